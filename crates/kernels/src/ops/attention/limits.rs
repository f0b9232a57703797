//! Sizes that every part of attention keeps to.

/// Positions in one block of the online softmax, and in one page of a cache. Every device keeps to it: it decides in what order
/// numbers are added, and what a page table means.
pub const KEY_BLOCK: usize = 64;

/// The longest head. Queries and outputs of a few rows are kept on the stack, which bounds it.
pub const MAX_HEAD_DIM: usize = 256;
