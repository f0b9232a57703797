//! Pretraining: cross-entropy on every token of the task's corpus, or of the user's texts.
//!
//! 1. A task's documents are trained in the order of its corpus. Each is a segment of its own, which attends to no other.
//! 2. The user's texts are read once. Those that hold a held-out case are left out and counted. The others are cut into pieces, and each
//!    pass shuffles the pieces by a key of (seed, stage, pass, text, piece). So leaving a text out does not change the order of the others.
//! 3. A step takes pieces until it has `tokens_per_step` tokens. The position in the corpus is part of the checkpoint.
//! 4. A document longer than `context` is cut after the last line that fits, or at the full length if no line ends before it. Nothing is
//!    dropped. Each piece begins with the token that begins a text, if the tokenizer has one.
//! 5. The task's corpus never holds a held-out case; the task guarantees that.

mod pieces;

use kernels::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::packing::Sequence;
use crate::prompting::Prompting;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Stage};
use crate::stages::sft::cross_entropy_step;
use crate::stages::texts;
use crate::trainer::Trainer;
use pieces::{Pieces, cut};
use tasks::paths::Paths;

/// Keys of a `pretrain` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pretrain {
    /// The model that learns.
    pub model: String,
    /// Files and folders of `.txt`, `.md` and `.jsonl` with `text`; without any, the task's corpus.
    #[serde(default)]
    pub texts: Paths,
    /// Tokens to train on in total.
    #[schemars(range(min = 1, max = 1_000_000_000_000u64))]
    pub tokens: u64,
    /// Tokens per step, rounded up to whole pieces.
    #[serde(default = "tokens_per_step")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub tokens_per_step: usize,
    /// Longest segment, in tokens.
    #[serde(default = "context")]
    #[schemars(range(min = 2, max = 1_000_000), extend("hint" = "a token is predicted from those before it"))]
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

impl Stage for Pretrain {
    const KIND: &'static str = "pretrain";
    const SUMMARY: &'static str = "Pretraining: cross-entropy on every token of the task's corpus, or of your texts.";
    const TUNES: bool = false;

    fn roles(&self) -> Roles {
        Roles::trains(&self.model)
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        checking.context(&self.model, "context", self.context)?;
        checking.micro_batch(self.optimisation.tokens_per_micro_batch, self.context)?;
        let settings = checking.place.settings;
        let texts = self.texts.located(&settings.folder);
        if let Some(missing) = texts.iter().find(|path| !path.exists()) {
            let problem = format!("there is nothing at {}", missing.display());
            let hint = "give files or folders of text, from the recipe's folder";
            return Err(checking.place.refuse("texts", problem, hint).into());
        }
        if texts.is_empty() && checking.task.corpus(0, settings.seed).is_none() {
            let hint = "give the stage `texts`, files or folders to pretrain on";
            return Err(checking.place.refuse("kind", "the task has no text to pretrain on", hint).into());
        }
        Ok(())
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        // The user's texts are cut at the last line end before `context` tokens, so their pieces are nearly that long.
        let of_task = self.texts.located(&planning.settings.folder).is_empty();
        let document = if of_task { planning.lengths.document } else { f64::INFINITY };
        let segment = document.clamp(1.0, self.context as f64);
        let tokens = self.tokens as f64;
        let packed = Packed { tokens, targets: tokens, pairs: tokens * segment / 2.0 };
        let training_flops = planning.training_flops(&self.model, &self.optimisation, packed);
        Estimate {
            steps: self.tokens.div_ceil(self.tokens_per_step as u64),
            work: Work { train_tokens: tokens, training_flops, ..Work::default() },
            bytes: planning.learning_bytes::<T>(&self.model, &self.optimisation),
        }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let paths = self.texts.located(&trainer.settings.folder);
        let texts = match paths.is_empty() {
            true => None,
            false => Some(Pieces::of(&texts::kept(&paths, trainer)?, self.context, &prompting)),
        };
        let steps = self.tokens.div_ceil(self.tokens_per_step as u64);
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            steps,
            |trainer, learner, _, rate| {
                let sequences = match &texts {
                    Some(pieces) => pieces.next(self.tokens_per_step, trainer),
                    None => self.next_documents(trainer, &prompting)?,
                };
                let per_micro_batch = self.optimisation.tokens_per_micro_batch;
                let report = cross_entropy_step(trainer.queue, learner, &sequences, per_micro_batch, rate);
                trainer.meters.flops += learner.flops(&report);
                Ok(report.into())
            },
            None,
        )?;
        Ok(Outcome::default())
    }
}

impl Pretrain {
    /// The next documents of the task's corpus, until the step has enough tokens. A finite corpus starts again at its end.
    fn next_documents(&self, trainer: &mut Trainer, prompting: &Prompting) -> Result<Vec<Sequence>, TrainError> {
        let mut sequences = Vec::new();
        let mut tokens = 0;
        while tokens < self.tokens_per_step {
            let Some(text) = trainer.task.corpus(trainer.cursor, trainer.settings.seed) else {
                if trainer.cursor == 0 {
                    let hint = "give the stage `texts`, files or folders to pretrain on";
                    return Err(TrainError::stage(trainer.stage, "the task has no corpus", hint));
                }
                trainer.cursor = 0;
                continue;
            };
            trainer.cursor += 1;
            let pieces = cut(&prompting.document(&text), self.context, prompting);
            tokens += pieces.iter().map(Vec::len).sum::<usize>();
            sequences.extend(pieces.into_iter().map(Sequence::document));
        }
        Ok(sequences)
    }
}
