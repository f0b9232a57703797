//! Training the tokenizer of models that start from random weights.
//!
//! A byte-level BPE, deterministic, on documents of the task's corpus, the user's texts and prompts of the training split; the answer's markup
//! (`<think>`, `<answer>` and their ends) are tokens of their own, as in models that were made to reason.

use std::path::Path;

use lm::tokenizer::{Tokenizer, TrainOptions};
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::TrainError;
use crate::recipe::{Paths, StageFields};
use crate::recipes::texts::kept;
use crate::tasks::Split;
use crate::walk::Walk;

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

/// Runs the stage and returns the codec.
///
/// # Errors
/// Texts that cannot be read; a corpus too poor for the vocabulary.
pub fn run(stage: &TokenizerStage, walk: &mut Walk) -> Result<Codec, TrainError> {
    let seed = walk.recipe.seed;
    let mut texts: Vec<String> = (0..stage.documents).map_while(|index| walk.task.corpus(index, seed)).collect();
    let paths = stage.texts.located(&walk.recipe.folder);
    if !paths.is_empty() {
        texts.extend(kept(&paths, walk)?.into_iter().map(|text| text.text));
    }
    let prompts = walk.task.cases(Split::Train, stage.prompts, seed)?;
    walk.note_uses("prompt", prompts.iter().map(|case| &case.id))?;
    texts.extend(prompts.iter().map(|case| case.prompt_text()));
    codec_of(stage, &walk.recipe.name, texts.iter().map(String::as_str))
}

/// The codec that the stage makes of some texts; `name` is for messages.
///
/// # Errors
/// Texts too poor for the vocabulary.
pub(crate) fn codec_of<'t>(
    stage: &TokenizerStage,
    name: &str,
    texts: impl IntoIterator<Item = &'t str>,
) -> Result<Codec, TrainError> {
    let markup = ["<think>", "</think>", "<answer>", "</answer>"];
    let options = TrainOptions {
        vocab_size: stage.vocab_size,
        longest_token_bytes: stage.longest_token_bytes,
        markup_tokens: markup.map(String::from).to_vec(),
        ..TrainOptions::default()
    };
    let tokenizer = Tokenizer::train(texts, &options, Path::new(name))?;
    Codec::new(tokenizer, None, &[])
}
