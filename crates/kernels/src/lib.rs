//! All arithmetic of Ferule: memory, the thread pool, the matrix products, one folder per operation.
//!
//! This is the only crate with `unsafe`. It knows nothing of models. An operation takes a [`Queue`] first, then
//! views and scalars; it checks them, enqueues its work and returns nothing. On the CPU the work is done when it returns.
//!
//! # The border between host and device
//! Two rules let a GPU stand where the CPU stands now, without a change in any caller:
//!
//! 1. *Numbers lie on the device.* What an operation computes with or writes, token ids and positions too, is a view of a [`Buffer`] or of an
//!    [`Upload`] ([`Queue::upload`]). Nobody outside this crate sees the memory: elements are copied in and out, by
//!    [`Buffer::from_host`], [`Buffer::to_host`], [`View::copy_to_host`] and [`ViewMut::copy_from_host`]. How a packed weight
//!    ([`gemm::Packed`]) or a cache of keys ([`ops::attention::PagedCache`]) is laid out is the device's business.
//! 2. *What says which rows belong together is a host slice*: segments, page tables, slots. An operation reads it before it
//!    starts any work, and hands the device what it needs of it.
//!
//! # Safety
//! No safe function reads or writes outside its operands. Every operation compares the whole shape of each operand and the range of each
//! index before it starts, and panics with both shapes otherwise. Tasks of one operation write disjoint elements.
//! The tests run under random shapes (`properties/`), AddressSanitizer, valgrind, and for the pool loom (`bench/memory.sh`).
//!
//! # Canonical arithmetic
//! Each element of a product has one f32 accumulator, to which products are added in increasing `k` (for bf16 in pairs).
//! Threads and tiles divide outputs only; ends of rows use masks. So a row's result does not depend on the batch around
//! it, on the number of threads, or on how the caller cut the work. Equality holds per instruction path ([`Isa`]) and dtype.
//!
//! Read next: [`buffer`], then `ops/rmsnorm/mod.rs` for the form that every operation has.

pub mod buffer;
mod check;
pub mod device;
pub mod dtype;
pub mod gemm;
pub mod mapping;
mod memory;
pub mod ops;
pub mod peak;
#[cfg(test)]
mod properties;
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
