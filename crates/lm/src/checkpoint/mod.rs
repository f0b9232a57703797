//! Models on disk: Hugging Face folders and GGUF files behind one trait, [`TensorSource`].
//!
//! Reading takes three steps, and each can refuse the file. First, the header is validated against the file's length,
//! before any memory is allocated. Second, [`check`] compares names and shapes with the table of
//! [`crate::Config::tensors`]. Third, every value is checked to be finite as it is read. [`crate::Arena::load`] does
//! the second and the third step:
//!
//! ```no_run
//! # use lm::checkpoint;
//! # fn main() -> Result<(), lm::FormatError> {
//! let model = checkpoint::open(std::path::Path::new("SmolLM2-135M"))?;
//! let master = lm::Arena::load(kernels::Device::Cpu, model.config(), model.tensors())?;
//! # Ok(()) }
//! ```
//!
//! Files are written completely or not at all (`atomic.rs`).
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
