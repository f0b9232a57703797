//! What a language model is.
#![forbid(unsafe_code)]

pub mod config;
pub mod error;

pub use config::Config;
pub use error::FormatError;
