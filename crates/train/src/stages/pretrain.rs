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

use crate::error::TrainError;
use crate::packing::Sequence;
use crate::prompting::Prompting;
use crate::recipe::{Optimisation, StageFields};
use crate::stages::sft::cross_entropy_step;
use crate::stages::texts;
use crate::trainer::Trainer;
use pieces::{Pieces, cut};
use tasks::paths::Paths;

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
pub fn run<T: Real>(stage: &Pretrain, trainer: &mut Trainer) -> Result<(), TrainError> {
    let prompting = trainer.prompting()?;
    let limit = trainer.weights(&stage.model).config().max_position_embeddings;
    if !(2..=limit).contains(&stage.context) {
        let problem = format!("a context of {} tokens in a model of {limit}", stage.context);
        return Err(TrainError::stage(trainer.stage, problem, format!("set `context` to between 2 and {limit}")));
    }
    let paths = stage.texts.located(&trainer.recipe.folder);
    let texts = match paths.is_empty() {
        true => None,
        false => Some(Pieces::of(&texts::kept(&paths, trainer)?, stage.context, &prompting)),
    };
    let steps = stage.tokens.div_ceil(stage.tokens_per_step as u64);
    trainer.train::<T>(
        &stage.model,
        &stage.optimisation,
        steps,
        |trainer, learner, _, rate| {
            let sequences = match &texts {
                Some(pieces) => pieces.next(stage.tokens_per_step, trainer),
                None => next_documents(stage, trainer, &prompting)?,
            };
            let per_micro_batch = stage.optimisation.tokens_per_micro_batch;
            let report = cross_entropy_step(trainer.queue, learner, &sequences, per_micro_batch, rate);
            trainer.meters.flops += learner.flops(&report);
            Ok(report.into())
        },
        None,
    )
}

/// Documents from the cursor on, until there are enough tokens; begins again at the end of a corpus that ends.
fn next_documents(stage: &Pretrain, trainer: &mut Trainer, prompting: &Prompting) -> Result<Vec<Sequence>, TrainError> {
    let mut sequences = Vec::new();
    let mut tokens = 0;
    while tokens < stage.tokens_per_step {
        let Some(text) = trainer.task.corpus(trainer.cursor, trainer.recipe.seed) else {
            if trainer.cursor == 0 {
                let hint = "give the stage `texts`, files or folders to pretrain on";
                return Err(TrainError::stage(trainer.stage, "the task has no corpus", hint));
            }
            trainer.cursor = 0;
            continue;
        };
        trainer.cursor += 1;
        let pieces = cut(&prompting.document(&text), stage.context, prompting);
        tokens += pieces.iter().map(Vec::len).sum::<usize>();
        sequences.extend(pieces.into_iter().map(Sequence::document));
    }
    Ok(sequences)
}
