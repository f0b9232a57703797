//! Trains the tokenizer of models that start from random weights.
//!
//! It is a byte-level BPE, trained deterministically on documents of the task's corpus, the user's texts, and prompts of the training
//! split. The markup of an answer (`<think>`, `<answer>` and their closing tags) has tokens of its own, as in reasoning models.

use std::path::Path;
use std::time::Instant;

use kernels::Real;
use lm::FormatError;
use lm::tokenizer::{Tokenizer, TrainOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::outline::{Made, Roles};
use crate::stage::estimate::{Estimate, Planning};
use crate::stage::{Outcome, Place, Stage};
use crate::stages::texts::kept;
use crate::trainer::Trainer;
use tasks::Split;
use tasks::paths::Paths;

/// Keys of a `tokenizer` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenizerStage {
    /// Tokens in the vocabulary.
    #[serde(default = "vocab_size")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: usize,
    /// Files and folders of `.txt`, `.md` and `.jsonl` with `text` to train on too.
    #[serde(default)]
    pub texts: Paths,
    /// Documents of the task's corpus to train on.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "documents")]
    pub documents: u64,
    /// Prompts of the training split to train on; their answers are not read.
    #[schemars(range(max = 1_000_000))]
    #[serde(default = "prompts")]
    pub prompts: usize,
    /// Longest token, in bytes. A low limit keeps the phrases of a template from becoming tokens.
    #[serde(default = "longest")]
    #[schemars(range(min = 1, max = 4_096))]
    pub longest_token_bytes: usize,
}

fn vocab_size() -> usize {
    1024
}
fn documents() -> u64 {
    4000
}
fn prompts() -> usize {
    1000
}
fn longest() -> usize {
    12
}

impl Stage for TokenizerStage {
    const KIND: &'static str = "tokenizer";
    const SUMMARY: &'static str = "Trains the tokenizer of models that start from random weights.";
    const TUNES: bool = false;

    fn roles(&self) -> Roles {
        Roles { makes: Some(Made::Tokenizer { vocab_size: self.vocab_size }), ..Roles::default() }
    }

    fn estimate<T: Real>(&self, _: &Planning) -> Estimate {
        Estimate::default()
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let began = Instant::now();
        trainer.observer.stage(trainer.stage, 0);
        let seed = trainer.settings.seed;
        let mut texts: Vec<String> = (0..self.documents).map_while(|index| trainer.task.corpus(index, seed)).collect();
        let paths = self.texts.located(&trainer.settings.folder);
        if !paths.is_empty() {
            texts.extend(kept(&paths, trainer)?.into_iter().map(|text| text.text));
        }
        let prompts = trainer.task.cases(Split::Train, self.prompts, seed)?;
        trainer.note_uses("prompt", prompts.iter().map(|case| &case.id))?;
        texts.extend(prompts.iter().map(|case| case.prompt_text()));
        let place = Place { settings: trainer.settings, stages: trainer.stages, index: trainer.index as usize };
        let prompting = self.prompting(&place, texts.iter().map(String::as_str))?;
        trainer.meters.seconds += began.elapsed().as_secs_f64();
        Ok(Outcome { prompting: Some(prompting), ..Outcome::default() })
    }
}

impl TokenizerStage {
    /// Trains a tokenizer on some texts and makes a prompting of it.
    ///
    /// # Errors
    /// A refusal at one of the stage's keys, above all for texts that are too few for the vocabulary.
    pub(crate) fn prompting<'t>(
        &self,
        place: &Place,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Prompting, TrainError> {
        let markup = ["<think>", "</think>", "<answer>", "</answer>"];
        let options = TrainOptions {
            vocab_size: self.vocab_size,
            longest_token_bytes: self.longest_token_bytes,
            markup_tokens: markup.map(String::from).to_vec(),
            ..TrainOptions::default()
        };
        let trained = Tokenizer::train(texts, &options, Path::new(&place.settings.name));
        let tokenizer = trained.map_err(|error| match error {
            FormatError::Config { field, problem, hint, .. } => place.refuse(&field, problem, hint).into(),
            error => TrainError::from(error),
        })?;
        Prompting::new(tokenizer, None, &[])
    }
}
