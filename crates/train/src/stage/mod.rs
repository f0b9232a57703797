//! The trait of a stage: its keys, its checks, its estimate and its algorithm, which are all in one file of [`crate::stages`].
//!
//! A new kind of stage is a struct of keys that implements [`Stage`], and one line in [`crate::stages::registry`]. No other code of the
//! crate knows the kinds.
//!
//! A stage makes sequences and signals and hands them to the trainer ([`crate::trainer`]). It never knows an optimiser.
//!
//! Read next: [`crate::stages::sft`], the simplest whole algorithm.

pub mod checking;
pub mod estimate;
pub mod memory;
pub mod place;

use std::any::Any;

use kernels::{DType, Real, bf16};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::prompting::Prompting;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Roles;
use crate::trainer::Trainer;
use tasks::refusal::Refusal;

pub use checking::Checking;
pub use estimate::{Estimate, Planning};
pub use place::Place;

/// A kind of stage. The implementing struct holds the keys that a recipe writes. `ferule explain` prints their documentation, types and
/// defaults.
pub trait Stage: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The word that a recipe writes as `kind`.
    const KIND: &'static str;
    /// Other words that a recipe may write for it.
    const ALIASES: &'static [&'static str] = &[];
    /// What the stage does, in one sentence.
    const SUMMARY: &'static str;
    /// Whether the stage tunes a model to the task. The base model is measured before the first stage that does.
    const TUNES: bool = true;

    /// The models that it trains, samples from, measures and learns from, and what it makes.
    fn roles(&self) -> Roles;

    /// How its steps are taken; none for a stage that trains nothing.
    fn optimisation(&self) -> Option<&Optimisation> {
        None
    }

    /// Refuses a stage that the recipe alone shows to be wrong. Types and ranges are checked before, from the struct's own attributes.
    ///
    /// # Errors
    /// A refusal that names the key.
    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        let _ = place;
        Ok(())
    }

    /// Refuses a stage that does not fit the task's cases, the models' shapes or the tokenizer.
    ///
    /// # Errors
    /// A refusal that names the key, or an error of reading the task's files.
    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        let _ = checking;
        Ok(())
    }

    /// Estimates its cost: steps, tokens, operations, memory.
    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate;

    /// Runs it, from its beginning or from the checkpoint that `trainer` resumes.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] when the user asked to stop; otherwise the first error of its work.
    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError>;
}

/// What a stage returns. Trained weights are in [`Trainer::models`] instead.
#[derive(Default)]
pub struct Outcome {
    /// The tokenizer that it made.
    pub prompting: Option<Prompting>,
    /// Its own measurement. The pipeline measures stages that train.
    pub evaluation: Option<Evaluation>,
}

/// A stage of any kind: [`Stage`] as an object. Implemented for every `Stage`.
pub trait AnyStage: erased_serde::Serialize + Send + Sync {
    /// [`Stage::KIND`].
    fn kind(&self) -> &'static str;
    /// [`Stage::TUNES`].
    fn tunes(&self) -> bool;
    /// [`Stage::roles`].
    fn roles(&self) -> Roles;
    /// [`Stage::optimisation`].
    fn optimisation(&self) -> Option<&Optimisation>;
    /// [`Stage::validate`].
    ///
    /// # Errors
    /// As there.
    fn validate(&self, place: &Place) -> Result<(), Refusal>;
    /// [`Stage::check`].
    ///
    /// # Errors
    /// As there.
    fn check(&self, checking: &Checking) -> Result<(), TrainError>;
    /// [`Stage::estimate`] in a dtype.
    fn estimate(&self, dtype: DType, planning: &Planning) -> Estimate;
    /// [`Stage::run`] in a dtype.
    ///
    /// # Errors
    /// As there.
    fn run(&self, dtype: DType, trainer: &mut Trainer) -> Result<Outcome, TrainError>;
    /// The stage as its own type.
    fn as_any(&self) -> &dyn Any;
    /// A copy.
    fn boxed(&self) -> Box<dyn AnyStage>;
}

erased_serde::serialize_trait_object!(AnyStage);

impl<S: Stage> AnyStage for S {
    fn kind(&self) -> &'static str {
        S::KIND
    }
    fn tunes(&self) -> bool {
        S::TUNES
    }
    fn roles(&self) -> Roles {
        Stage::roles(self)
    }
    fn optimisation(&self) -> Option<&Optimisation> {
        Stage::optimisation(self)
    }
    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        Stage::validate(self, place)
    }
    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        Stage::check(self, checking)
    }
    fn estimate(&self, dtype: DType, planning: &Planning) -> Estimate {
        match dtype {
            DType::Bf16 => Stage::estimate::<bf16>(self, planning),
            _ => Stage::estimate::<f32>(self, planning),
        }
    }
    fn run(&self, dtype: DType, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        match dtype {
            DType::Bf16 => Stage::run::<bf16>(self, trainer),
            _ => Stage::run::<f32>(self, trainer),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn boxed(&self) -> Box<dyn AnyStage> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyStage> {
    fn clone(&self) -> Self {
        self.as_ref().boxed()
    }
}
