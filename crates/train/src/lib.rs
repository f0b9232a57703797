//! How a model learns.
#![forbid(unsafe_code)]
