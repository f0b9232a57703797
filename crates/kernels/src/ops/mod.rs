//! One folder per operation: `mod.rs` says what it computes and holds the f64 reference, `cpu.rs` the SIMD code.
//!
//! Every operation takes a [`crate::Queue`] first, then views and scalars, checks shapes, and returns nothing. A row of
//! its output depends on that row's inputs alone: not on the batch around it, nor on the number of threads.
//!
//! Loops in `cpu.rs` are plain counts, without iterator adapters: those are not always inlined into a large function, and
//! a vector that passes through a call goes through memory.
//!
//! Read next: [`rmsnorm`] for the form, [`attention`] for the hardest, [`head`] for where losses come from.

#![allow(clippy::needless_range_loop)]

pub mod adamw;
pub mod attention;
pub mod bias;
pub mod elementwise;
pub mod embedding;
pub mod head;
pub mod head_norm;
pub mod rmsnorm;
pub mod rotary;
pub mod rows;
pub mod sample;
pub mod swiglu;

mod split;
