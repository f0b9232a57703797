//! How a model learns.
#![forbid(unsafe_code)]

pub mod advantage;
pub mod baselines;
pub mod rewards;
pub use lm::rng;
pub mod stats;
pub mod suggest;
pub mod tasks;
