//! How a model learns: tasks and rules, recipes and the one trainer under them, and the road they make.
//!
//! Every stage is the same loop: make sequences, attach signals to tokens, take a step. What passes between the three is data
//! (`lm::Batch`, [`step::Signals`]).
//!
//! Read in this order: [`recipe`], [`recipes::sft`] (the simplest whole algorithm), [`walk`], [`step`], [`recipes::grpo`], [`road`].
#![forbid(unsafe_code)]

pub mod advantage;
pub mod baselines;
pub mod check;
pub mod codec;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod packing;
pub mod plan;
pub mod play;
pub mod policy;
pub mod recipe;
pub mod recipes;
pub mod rewards;
pub mod road;
pub mod rollout;
pub mod rules;
pub mod schedule;
pub mod stats;
pub mod step;
pub mod suggest;
pub mod tasks;
pub mod teacher;
pub mod walk;
pub mod watch;

pub use error::TrainError;
pub use lm::rng;
