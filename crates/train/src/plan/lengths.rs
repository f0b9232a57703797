//! How long a task's texts are, in tokens, by a few of them.

use std::time::Instant;

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::{Recipe, StageKind};
use crate::stages::tokenizer::{self, TokenizerStage};
use tasks::data::texts;
use tasks::{Split, Task};

/// Texts of each kind that are looked at.
const TEXTS: usize = 200;
/// One in so many of a tokenizer's texts is counted for the estimate.
const TOKENIZER_SHARE: usize = 10;

/// Mean lengths in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lengths {
    /// A document of the corpus; 0 where there is none.
    pub document: f64,
    /// A prompt.
    pub prompt: f64,
    /// What an expert writes, the end token included; none where the task has no demonstrations.
    pub demonstration: Option<f64>,
    /// Seconds that the tokenizer stage will take; 0 where there is none.
    pub tokenizer_seconds: f64,
}

impl Lengths {
    /// Looks at the task's texts with the prompting, or with a small one made from a part of what the tokenizer stage would count.
    pub(super) fn of(recipe: &Recipe, task: &dyn Task, prompting: Option<Prompting>) -> Result<Lengths, TrainError> {
        let stage = recipe.stages.iter().find_map(|stage| match &stage.kind {
            StageKind::Tokenizer(keys) => Some(keys),
            _ => None,
        });
        let mut tokenizer_seconds = 0.0;
        let prompting = match (prompting, stage) {
            (Some(prompting), _) => prompting,
            (None, Some(keys)) => {
                let texts = counted(keys, task, recipe)?;
                let part = texts.iter().step_by(TOKENIZER_SHARE).map(String::as_str);
                let began = Instant::now();
                // A part may be too poor for the vocabulary where the whole is not.
                let prompting = match tokenizer::prompting_of(keys, &recipe.name, part) {
                    Ok(prompting) => prompting,
                    Err(_) => tokenizer::prompting_of(keys, &recipe.name, texts.iter().map(String::as_str))?,
                };
                tokenizer_seconds = began.elapsed().as_secs_f64() * TOKENIZER_SHARE as f64;
                prompting
            }
            (None, None) => unreachable!("a recipe without either is refused when it is read"),
        };
        let cases = task.cases(Split::Train, TEXTS, recipe.seed)?;
        let prompts = cases.iter().map(|case| Ok(prompting.prompt(&case.prompt)?.len()));
        let prompts = prompts.collect::<Result<Vec<usize>, TrainError>>()?;
        let demonstrations = cases.iter().filter_map(|case| task.demonstration(case));
        let demonstrations: Vec<usize> = demonstrations.map(|text| prompting.completion(&text).len()).collect();
        let documents = (0..TEXTS as u64).map_while(|index| task.corpus(index, recipe.seed));
        let documents: Vec<usize> = documents.map(|text| prompting.document(&text).len()).collect();
        Ok(Lengths {
            document: mean(&documents).unwrap_or(0.0),
            prompt: mean(&prompts).unwrap_or(0.0),
            demonstration: mean(&demonstrations),
            tokenizer_seconds,
        })
    }

    /// A completion that may have `max_new_tokens`.
    pub(super) fn completion(&self, max_new_tokens: usize) -> f64 {
        self.demonstration.unwrap_or(f64::INFINITY).min(max_new_tokens as f64)
    }
}

/// The texts that a tokenizer stage counts, held-out ones among the user's not yet taken out.
fn counted(stage: &TokenizerStage, task: &dyn Task, recipe: &Recipe) -> Result<Vec<String>, TrainError> {
    let mut texts: Vec<String> = (0..stage.documents).map_while(|index| task.corpus(index, recipe.seed)).collect();
    let paths = stage.texts.located(&recipe.folder);
    if !paths.is_empty() {
        texts.extend(texts::read(&paths)?.texts.into_iter().map(|text| text.text));
    }
    texts.extend(task.cases(Split::Train, stage.prompts, recipe.seed)?.iter().map(|case| case.prompt_text()));
    Ok(texts)
}

fn mean(lengths: &[usize]) -> Option<f64> {
    (!lengths.is_empty()).then(|| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64)
}
