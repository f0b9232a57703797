//! The `ferule` binary.
#![forbid(unsafe_code)]
fn main() {}
