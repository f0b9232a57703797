//! Copying operands into the layouts that `tile.rs` reads: B into panels, A into blocks of words.

use super::tile::{COLUMN_WORDS, PANEL, ROW_WORDS, step_depth};
use crate::dtype::{DType, Real, bf16};
use crate::simd::{Kernel, Simd};

/// Elements of T in a panel of depth `k`, if there can be so many.
pub(super) fn panel_len<T: Real>(k: usize) -> Option<usize> {
    k.checked_next_multiple_of(step_depth::<T>())?.checked_mul(PANEL)
}

/// One panel from rows along k: B's row `k` lies at `from + k · stride`. Columns past `cols`, and the second half of an odd
/// last pair, become zero.
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
                // SAFETY: `k` rows of `cols` elements may be read, and `panel_len` elements written; a row or a column
                // past the end is not read (`count` is then 0, or the row is replaced by zeros).
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

/// One panel from rows along n, as weights lie in files: B's column `j` lies at `from + j · stride`.
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
        /// Depth of the part that is transposed at a time; it stays in the first cache.
        const DEPTH: usize = 64;
        let mut turned = [[0.0f32; PANEL]; DEPTH];
        for start in (0..self.k).step_by(DEPTH) {
            let k = DEPTH.min(self.k - start);
            for column in 0..self.cols {
                // SAFETY: column `column` holds `self.k` elements at its place.
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

/// A block of A whose rows are not words as they lie, or lie whole pages apart: `rows` rows, `k` of each, completed by zeros to whole steps.
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
            // SAFETY: `rows` rows of `k` elements may be read, and as many rows of `ROW_WORDS` words written, which is
            // enough for whole steps.
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

/// A transposed block: A's row `i` is column `i` of `from`, whose rows run along k.
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
                // SAFETY: `k` rows of `rows` elements may be read, and `COLUMN_WORDS` words written for each word of
                // each step; rows from `self.k` on are not read.
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
