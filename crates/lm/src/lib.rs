//! A language model: its configuration and weights, forward and backward pass, head, optimiser, file formats, and text
//! generation.
//!
//! Nothing here knows a learning algorithm. The crate depends only on `kernels`.
//!
//! Read in this order: [`config`], `layout.rs` (the table of tensors), [`params`] (weights in f32), [`model`] (weights
//! in the form that products read), [`mod@forward`], `layer/mod.rs` (the layers), [`mod@backward`], [`head`],
//! [`mod@generate`].
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
mod layer;
mod layout;
pub mod lora;
pub mod model;
mod operand;
pub mod optimizer;
mod packed;
mod panics;
pub mod params;
pub mod table;
pub mod template;
pub mod tokenizer;

pub use activations::{Activations, Keep};
pub use batch::{Batch, Segment};
pub use config::Config;
pub use error::FormatError;
pub use model::{Model, Role};
pub use params::Arena;
