//! Training the tokenizer of models that start from random weights.
//!
//! A byte-level BPE, deterministic, on documents of the task's corpus, the user's texts and prompts of the training split; the answer's markup
//! (`<think>`, `<answer>` and their ends) are tokens of their own, as in models that were made to reason.

use std::path::Path;

use lm::tokenizer::{Tokenizer, TrainOptions};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::StageFields;
use crate::stages::texts::kept;
use crate::trainer::Trainer;
use tasks::Split;
use tasks::paths::Paths;

/// Keys of a `tokenizer` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizerStage {
    /// Tokens in all.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    /// Files and folders of `.txt`, `.md` and `.jsonl` with `text` that are counted too.
    #[serde(default)]
    pub texts: Paths,
    /// Documents of the task's corpus that are counted.
    #[serde(default = "documents")]
    pub documents: u64,
    /// Prompts of the training split that are counted; their answers are not read.
    #[serde(default = "prompts")]
    pub prompts: usize,
    /// Longest token in bytes: short ones keep a template's phrases from becoming tokens.
    #[serde(default = "longest")]
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

impl StageFields for TokenizerStage {
    const FIELDS: &'static [&'static str] = &["vocab_size", "texts", "documents", "prompts", "longest_token_bytes"];
}

/// Runs the stage and returns the prompting.
///
/// # Errors
/// Texts that cannot be read; a corpus too poor for the vocabulary.
pub fn run(stage: &TokenizerStage, trainer: &mut Trainer) -> Result<Prompting, TrainError> {
    let seed = trainer.recipe.seed;
    let mut texts: Vec<String> = (0..stage.documents).map_while(|index| trainer.task.corpus(index, seed)).collect();
    let paths = stage.texts.located(&trainer.recipe.folder);
    if !paths.is_empty() {
        texts.extend(kept(&paths, trainer)?.into_iter().map(|text| text.text));
    }
    let prompts = trainer.task.cases(Split::Train, stage.prompts, seed)?;
    trainer.note_uses("prompt", prompts.iter().map(|case| &case.id))?;
    texts.extend(prompts.iter().map(|case| case.prompt_text()));
    prompting_of(stage, &trainer.recipe.name, texts.iter().map(String::as_str))
}

/// The prompting that the stage makes of some texts; `name` is for messages.
///
/// # Errors
/// Texts too poor for the vocabulary.
pub(crate) fn prompting_of<'t>(
    stage: &TokenizerStage,
    name: &str,
    texts: impl IntoIterator<Item = &'t str>,
) -> Result<Prompting, TrainError> {
    let markup = ["<think>", "</think>", "<answer>", "</answer>"];
    let options = TrainOptions {
        vocab_size: stage.vocab_size,
        longest_token_bytes: stage.longest_token_bytes,
        markup_tokens: markup.map(String::from).to_vec(),
        ..TrainOptions::default()
    };
    let tokenizer = Tokenizer::train(texts, &options, Path::new(name))?;
    Prompting::new(tokenizer, None, &[])
}
