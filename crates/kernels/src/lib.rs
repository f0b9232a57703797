//! All arithmetic of Ferule: buffers and views, the thread pool, the matrix products, one folder per operation.
//!
//! This is the only crate with `unsafe`. It knows nothing of models: an operation takes a [`Queue`] first, then
//! views and scalars, enqueues its work and returns nothing. On the CPU a queue runs the work at once on its pool.
//!
//! # Canonical arithmetic
//! Each element of a product is accumulated in increasing `k` by one f32 accumulator (in pairs for bf16). Threads and
//! tiles divide outputs only; tails use masks. So a row's result does not depend on the batch around it, on the
//! number of threads, or on how the caller cut the work. Equality holds per instruction path ([`Isa`]) and dtype.
//!
//! Read next: [`buffer`], then `ops/rmsnorm/mod.rs` for the form every operation has.

pub mod buffer;
mod check;
pub mod device;
pub mod dtype;
pub mod gemm;
pub mod mapping;
mod memory;
pub mod ops;
pub mod peak;
pub mod rng;
pub mod scratch;
pub(crate) mod simd;
#[cfg(test)]
mod testing;
mod view;

pub use buffer::{Buffer, Upload};
pub use device::{Device, Isa, Queue};
pub use dtype::{DType, Element, Real, bf16};
pub use mapping::Mapping;
pub use memory::Region;
pub use scratch::Scratch;
pub use view::{View, ViewMut};
