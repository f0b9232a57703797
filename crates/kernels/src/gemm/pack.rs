//! Copies operands into the order in which `tile.rs` reads them: B in panels, A in blocks of words.
//!
//! A panel holds 32 columns of B: row k = 0 of these columns, then row k = 1, and so on. The next panel follows in
//! memory. For bf16 the elements of two consecutive k form a pair, because `vdpbf16ps` multiplies pairs. If K is odd,
//! the last k is paired with zeros. Columns beyond the last one are zeros.
//!
//! ```text
//!     B, K = 3                   panel of f32                panel of bf16
//!     a0 b0 c0 …                 a0 b0 c0 …  (32)            a0 a1 b0 b1 c0 c1 …  (64)
//!     a1 b1 c1 …                 a1 b1 c1 …                  a2  0 b2  0 c2  0 …
//!     a2 b2 c2 …                 a2 b2 c2 …
//! ```
//!
//! Rows of A are read in place if they already consist of 4-byte words, that is of f32, or of pairs of bf16 for
//! `vdpbf16ps`. Otherwise a block of them is copied, for one of two reasons. The other paths read bf16 that was widened
//! to f32. A product by the transpose of A needs pairs along A's columns.
//!
//! Read next: `tile.rs`.

use super::tile::{COLUMN_WORDS, PANEL, ROW_WORDS, step_depth};
use crate::dtype::{DType, Real, bf16};
use crate::simd::{Kernel, Simd};

/// Number of elements of T in a panel of depth `k`; `None` if it overflows.
pub(super) fn panel_len<T: Real>(k: usize) -> Option<usize> {
    k.checked_next_multiple_of(step_depth::<T>())?.checked_mul(PANEL)
}

/// Makes a panel of B from its rows: row `k` of B lies at `from + k · stride`.
pub(super) struct PanelFromRows<X, T> {
    pub from: *const X,
    pub stride: usize,
    pub k: usize,
    pub cols: usize,
    pub to: *mut T,
}

impl<X: Real, T: Real> Kernel for PanelFromRows<X, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let depth = step_depth::<T>();
        let mut k = 0;
        while k < self.k {
            let mut column = 0;
            while column < PANEL {
                let count = S::LANES.min(self.cols.saturating_sub(column));
                // SAFETY: the caller gives `k` rows of `cols` elements to read and `panel_len` elements to write. A
                // column past the end has a `count` of 0, and a row past the end is replaced by zeros: neither is read.
                unsafe {
                    let from = self.from.add(k * self.stride).wrapping_add(column);
                    let to = self.to.add(k * PANEL + column * depth);
                    let first = s.load_partial(from, count);
                    if T::DTYPE == DType::F32 {
                        s.store(to, first);
                    } else {
                        let second = if k + 1 < self.k {
                            s.load_partial(from.wrapping_add(self.stride), count)
                        } else {
                            s.zero()
                        };
                        let pairs = if X::DTYPE == DType::F32 {
                            s.rounded_pairs(first, second)
                        } else {
                            s.pairs(first, second)
                        };
                        s.store_pairs(to.cast::<bf16>(), pairs);
                    }
                }
                column += S::LANES;
            }
            k += depth;
        }
    }
}

/// Makes a panel of B from its columns, the order of weights in files: column `j` of B lies at `from + j · stride`.
pub(super) struct PanelFromColumns<T> {
    pub from: *const f32,
    pub stride: usize,
    pub k: usize,
    pub cols: usize,
    pub to: *mut T,
}

impl<T: Real> Kernel for PanelFromColumns<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Depth of the part that is transposed at a time: small enough to stay in the first cache.
        const DEPTH: usize = 64;
        let mut turned = [[0.0f32; PANEL]; DEPTH];
        for start in (0..self.k).step_by(DEPTH) {
            let k = DEPTH.min(self.k - start);
            for column in 0..self.cols {
                // SAFETY: the caller gives `cols` columns of `self.k` elements.
                let from = unsafe { std::slice::from_raw_parts(self.from.add(column * self.stride + start), k) };
                for (row, &x) in turned.iter_mut().zip(from) {
                    row[column] = x;
                }
            }
            let part = PanelFromRows {
                from: turned.as_ptr().cast::<f32>(),
                stride: PANEL,
                k,
                cols: self.cols,
                to: self.to.wrapping_add(start * PANEL),
            };
            part.run(s);
        }
    }
}

/// Copies `rows` rows of A, `k` elements of each, and pads each with zeros to whole steps.
pub(super) struct BlockFromRows<T> {
    pub from: *const T,
    pub stride: usize,
    pub rows: usize,
    pub k: usize,
    pub to: *mut f32,
}

impl<T: Real> Kernel for BlockFromRows<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.k.next_multiple_of(step_depth::<T>());
        for i in 0..self.rows {
            // SAFETY: the caller gives `rows` rows of `k` elements to read, and as many rows of `ROW_WORDS` words to
            // write, which is room for whole steps.
            unsafe {
                let from = self.from.add(i * self.stride);
                let to = self.to.add(i * ROW_WORDS);
                if T::DTYPE == DType::F32 || S::NATIVE_BF16 {
                    let to = to.cast::<T>();
                    std::ptr::copy_nonoverlapping(from, to, self.k);
                    if whole > self.k {
                        to.add(self.k).write(T::from_f32(0.0));
                    }
                    continue;
                }
                let mut k = 0;
                while k < whole {
                    let count = S::LANES.min(self.k.saturating_sub(k));
                    s.store_partial(to.add(k), s.load_partial(from.wrapping_add(k), count), S::LANES.min(whole - k));
                    k += S::LANES;
                }
            }
        }
    }
}

/// Copies a block of a transposed A. Row `i` of A is column `i` of `from`; the rows of `from` are consecutive k.
pub(super) struct BlockFromColumns<T> {
    pub from: *const T,
    pub stride: usize,
    pub rows: usize,
    pub k: usize,
    pub to: *mut f32,
}

impl<T: Real> Kernel for BlockFromColumns<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let as_pairs = T::DTYPE != DType::F32 && S::NATIVE_BF16;
        let whole = self.k.next_multiple_of(step_depth::<T>());
        let mut to = self.to;
        for k in (0..whole).step_by(if as_pairs { 2 } else { 1 }) {
            let mut row = 0;
            while row < self.rows {
                let count = S::LANES.min(self.rows - row);
                // SAFETY: the caller gives `k` rows of `rows` elements to read, and `COLUMN_WORDS` words to write for
                // each word of each step. Rows from `self.k` on are not read.
                unsafe {
                    let from = self.from.wrapping_add(k * self.stride + row);
                    let first = if k < self.k { s.load_partial(from, count) } else { s.zero() };
                    if as_pairs {
                        let has_second = k + 1 < self.k;
                        let second = if has_second { s.load_partial(from.add(self.stride), count) } else { s.zero() };
                        s.store_pairs(to.add(row).cast::<bf16>(), s.pairs(first, second));
                    } else {
                        s.store(to.add(row), first);
                    }
                }
                row += S::LANES;
            }
            to = to.wrapping_add(COLUMN_WORDS);
        }
    }
}
