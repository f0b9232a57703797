//! How a model learns.
#![forbid(unsafe_code)]

pub mod rewards;
pub mod rng;
pub mod suggest;
pub mod tasks;
