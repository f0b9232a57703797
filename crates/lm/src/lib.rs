//! What a language model is: its configuration and weights, forward and backward, the head, the optimiser, the files it
//! is kept in, and how it generates.
//!
//! Nothing here knows a learning algorithm. Below are only the kernels.
//!
//! Read in this order: [`config`], [`params`], [`model`], [`mod@forward`], [`mod@backward`], [`head`], [`mod@generate`].
#![forbid(unsafe_code)]

pub mod activations;
mod atomic;
pub mod backward;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod error;
mod flops;
pub mod forward;
pub mod generate;
pub mod head;
pub mod lora;
pub mod model;
mod operand;
pub mod optimizer;
pub mod params;
pub mod template;
pub mod tokenizer;

pub use activations::{Activations, Keep};
pub use batch::{Batch, Segment};
pub use config::Config;
pub use error::FormatError;
pub use model::{Model, Role};
pub use params::Arena;
