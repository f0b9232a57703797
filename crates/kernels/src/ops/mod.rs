//! One folder per operation: `mod.rs` says what it computes and checks its operands; `cpu.rs` holds the SIMD code.
//!
//! Every operation takes a [`crate::Queue`] first, then views and scalars. It checks them and returns nothing. A row of
//! its output depends only on that row's inputs. It does not depend on the other rows of the batch or on the number of
//! threads.
//!
//! Loops in `cpu.rs` count with indices and use no iterator adapters. The compiler does not always inline the adapters
//! into a large function, and a vector that passes through a call goes through memory.
//!
//! Read next: [`rmsnorm`], which shows the form; [`attention`], the hardest; [`head`], which computes the losses.

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
