//! Pretraining: cross-entropy on every token of the task's corpus, or of the user's texts.
//!
//! 1. Documents of a task come in its corpus's own order, each a segment of its own that sees no other.
//! 2. Texts are read once: those that hold a held-out case are left out and counted. All are cut into pieces, and each pass goes through the pieces
//!    in an order keyed by (seed, stage, pass, text, piece), so that a text that is not there changes nothing but its own place.
//! 3. A step takes pieces until it has `tokens_per_step` tokens; the place in the corpus is part of the checkpoint.
//! 4. A document longer than `context` is cut behind the last line that fits, or where there is none, at the full length: nothing is dropped.
//!    Each piece begins with the token that begins a text, where the tokenizer has one.
//! 5. The task's corpus never holds a held-out case; the task sees to it.

mod pieces;

use kernels::Real;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::TrainError;
use crate::packing::Sequence;
use crate::recipe::{Optimisation, Paths, StageFields};
use crate::recipes::sft::cross_entropy_step;
use crate::recipes::texts;
use crate::walk::Walk;
use pieces::{Pieces, cut};

/// Keys of a `pretrain` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    /// The model that learns.
    pub model: String,
    /// Files and folders of `.txt`, `.md` and `.jsonl` with `text`; the task's corpus where there are none.
    #[serde(default)]
    pub texts: Paths,
    /// Tokens in all.
    pub tokens: u64,
    /// Tokens a step.
    #[serde(default = "tokens_per_step")]
    pub tokens_per_step: usize,
    /// Longest segment, in tokens.
    #[serde(default = "context")]
    pub context: usize,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn tokens_per_step() -> usize {
    8192
}
fn context() -> usize {
    256
}

impl StageFields for Pretrain {
    const FIELDS: &'static [&'static str] = &["model", "texts", "tokens", "tokens_per_step", "context"];
}

/// Runs the stage.
///
/// # Errors
/// A corpus without documents, texts that cannot be read or of which none is left, and whatever the loop meets.
pub fn run<T: Real>(stage: &Pretrain, walk: &mut Walk) -> Result<(), TrainError> {
    let codec = walk.codec()?;
    let limit = walk.weights(&stage.model).config().max_position_embeddings;
    if !(2..=limit).contains(&stage.context) {
        let problem = format!("a context of {} tokens in a model of {limit}", stage.context);
        return Err(TrainError::stage(walk.stage, problem, format!("set `context` to between 2 and {limit}")));
    }
    let paths = stage.texts.located(&walk.recipe.folder);
    let texts = match paths.is_empty() {
        true => None,
        false => Some(Pieces::of(&texts::kept(&paths, walk)?, stage.context, &codec)),
    };
    let steps = stage.tokens.div_ceil(stage.tokens_per_step as u64);
    walk.train::<T>(
        &stage.model,
        &stage.optimisation,
        steps,
        |walk, learner, _, rate| {
            let sequences = match &texts {
                Some(pieces) => pieces.next(stage.tokens_per_step, walk),
                None => next_documents(stage, walk, &codec)?,
            };
            let per_micro_batch = stage.optimisation.tokens_per_micro_batch;
            let report = cross_entropy_step(walk.queue, learner, &sequences, per_micro_batch, rate);
            walk.meters.flops += learner.flops(&report);
            Ok(report.into())
        },
        None,
    )
}

/// Documents from the cursor on, until there are enough tokens; begins again at the end of a corpus that ends.
fn next_documents(stage: &Pretrain, walk: &mut Walk, codec: &Codec) -> Result<Vec<Sequence>, TrainError> {
    let mut sequences = Vec::new();
    let mut tokens = 0;
    while tokens < stage.tokens_per_step {
        let Some(text) = walk.task.corpus(walk.cursor, walk.recipe.seed) else {
            if walk.cursor == 0 {
                let hint = "give the stage `texts`, files or folders to pretrain on";
                return Err(TrainError::stage(walk.stage, "the task has no corpus", hint));
            }
            walk.cursor = 0;
            continue;
        };
        walk.cursor += 1;
        let pieces = cut(&codec.document(&text), stage.context, codec);
        tokens += pieces.iter().map(Vec::len).sum::<usize>();
        sequences.extend(pieces.into_iter().map(Sequence::document));
    }
    Ok(sequences)
}
