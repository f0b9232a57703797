//! Sizes that every part of attention uses.

/// Number of positions in one block of the online softmax, and in one page of a cache. It is the same on every device,
/// because it decides in what order numbers are added, and what a page table means.
pub const KEY_BLOCK: usize = 64;

/// The longest head, in elements. It bounds the queries and outputs of a few rows that are kept on the stack.
pub const MAX_HEAD_DIM: usize = 256;
