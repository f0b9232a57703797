//! All arithmetic of Ferule: memory, the thread pool, the matrix products, one folder per operation.
//!
//! This is the only crate with `unsafe`. It knows nothing of models. An operation takes a [`Queue`] first, then views
//! and scalars. It checks them, enqueues its work and returns nothing. On the CPU the work is done when it returns.
//!
//! # The border between host and device
//! Two rules allow a GPU to replace the CPU without a change in any caller:
//!
//! 1. *Numbers lie on the device.* Everything that an operation computes with or writes is a view of a [`Buffer`] or of
//!    an [`Upload`] ([`Queue::upload`]); this includes token ids and positions. Code outside this crate never gets a
//!    pointer or a slice of this memory. It copies elements in and out, with [`Buffer::from_host`],
//!    [`Buffer::to_host`], [`View::copy_to_host`] and [`ViewMut::copy_from_host`]. Each device decides how it lays out
//!    a packed weight ([`gemm::Packed`]) and a cache of keys ([`ops::attention::PagedCache`]).
//! 2. *The grouping of rows is a host slice*: segments, page tables, slots. An operation reads it before it starts any
//!    work, and gives the device the part that it needs.
//!
//! # Safety
//! No safe function reads or writes outside its operands. Before it starts, every operation checks the whole shape of
//! each operand and the range of each index. It panics with both shapes when they differ. Tasks of one operation write
//! disjoint elements. The tests run under random shapes (`properties/`), AddressSanitizer and valgrind, and those of
//! the pool under loom (`bench/memory.sh`).
//!
//! # Canonical arithmetic
//! Each element of a matrix product has one f32 accumulator. The terms are added to it in order of increasing `k` (for
//! bf16 in pairs). Threads and tiles divide outputs only; ends of rows use masks. Therefore a row's result does not
//! depend on the other rows of the batch, on the number of threads, or on how the caller cut the work. Results are
//! equal bit for bit within one instruction path ([`Isa`]) and dtype.
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
