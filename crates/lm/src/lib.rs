//! What a language model is.
#![forbid(unsafe_code)]
