//! The `ferule` binary.
#![forbid(unsafe_code)]

#[allow(dead_code)] // until `ferule report` calls it
mod report;

fn main() {}
