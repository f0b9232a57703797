//! How a model learns: recipes and their stages, the one trainer under them, and the pipeline they make.
//!
//! Every stage is the same loop: make sequences, attach signals to tokens, take a step. What passes between the three is data
//! (`lm::Batch`, [`step::Signals`]).
//!
//! Read in this order: [`recipe`], [`stages::sft`] (the simplest whole algorithm), [`trainer`], [`step`], [`stages::grpo`], [`pipeline`].
#![forbid(unsafe_code)]

pub mod advantage;
pub mod baselines;
pub mod check;
pub mod divergence;
pub mod episodes;
pub mod error;
pub mod evaluate;
pub mod flywheel;
mod inputs;
mod notices;
pub mod packing;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod preference;
pub mod prompting;
pub mod recipe;
pub mod reference;
pub mod rollout;
pub mod rules;
pub mod schedule;
pub mod snapshots;
pub mod stage;
pub mod stages;
pub mod stats;
pub mod step;
pub mod tally;
pub mod teacher;
pub mod trainer;

pub use error::TrainError;
