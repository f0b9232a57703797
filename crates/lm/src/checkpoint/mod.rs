//! Models on disk: Hugging Face folders and GGUF files behind one trait, [`TensorSource`].
//!
//! Reading takes three steps, each of which can refuse the file. The header is validated against the file's length before
//! anything is allocated. [`check`] compares names and shapes with the table of [`crate::Config::tensors`]. Every value
//! that is read is checked to be finite. [`crate::Arena::load`] does the last two:
//!
//! ```no_run
//! # use lm::checkpoint;
//! # fn main() -> Result<(), lm::FormatError> {
//! let model = checkpoint::open(std::path::Path::new("SmolLM2-135M"))?;
//! let master = lm::Arena::load(kernels::Device::Cpu, model.config(), model.tensors())?;
//! # Ok(()) }
//! ```
//!
//! Files are written whole or not at all (`atomic.rs`).
//!
//! Read next: `source.rs`, [`huggingface`], then [`gguf`].

mod bytes;
pub mod gguf;
pub mod huggingface;
mod numbers;
mod open;
pub mod safetensors;
mod source;

pub use open::{Checkpoint, open};
pub use source::{Storage, TensorSource, check};

pub(crate) use numbers::first_not_finite;

#[cfg(test)]
mod tests;
