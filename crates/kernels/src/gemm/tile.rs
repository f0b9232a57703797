//! The innermost loop: it computes a few rows of A by one panel of B, with the sums in registers.
//!
//! ```text
//!     for each step along k:
//!         load the panel's 32 columns              2 vectors of AVX-512, 4 of AVX2, 8 of NEON
//!         for each row of the tile:
//!             word = A[row, step] in every lane
//!             sums[row] += word · columns          one multiply-add per vector
//! ```
//!
//! A *step* is one k for f32, and a pair of k for bf16. The loop reads A in 4-byte *words*. A word is an f32; or, where
//! `vdpbf16ps` exists, a pair of bf16. On other paths the two bf16 of a pair were widened to two f32, that is to two
//! words, when the block was copied (`pack.rs`).
//!
//! A tile of few rows has too few sums to hide the latency of a multiply-add. It then takes several panels at once.
//!
//! Read next: `blocks.rs`.

use std::marker::PhantomData;

use crate::device::Isa;
use crate::dtype::{DType, Real};
use crate::simd::{Kernel, Simd, prefetch};

/// Columns of B in a panel: two vectors of AVX-512, four of AVX2, eight of NEON.
pub(super) const PANEL: usize = 32;
/// Most words of one row of A in a block of k. The part of a panel of B that is this deep is at most 48 KB. It stays in
/// the nearest caches while all tiles of a row block read it.
pub(super) const BLOCK_WORDS: usize = 384;
/// Number of words from one row of a copied block of A to the next. It is not a multiple of the page size, so that the
/// rows do not compete for the same cache sets.
pub(super) const ROW_WORDS: usize = BLOCK_WORDS + 16;
/// Most rows of a row block. A copied block of A then takes 300 KB of the L2 cache.
pub(super) const BLOCK_ROWS: usize = 192;
/// Number of words from one step of a copied block of a transposed A to the next. It is not a multiple of the page
/// size, for the same reason.
pub(super) const COLUMN_WORDS: usize = BLOCK_ROWS + 16;
/// Rows of the tallest tile of any instruction path.
pub(super) const TALLEST: usize = 12;

/// Number of k in a step.
pub(super) const fn step_depth<T: Real>() -> usize {
    match T::DTYPE {
        DType::F32 => 1,
        _ => 2,
    }
}

/// Number of words of one row of A in a step.
pub(super) fn step_words<T: Real>(isa: Isa) -> usize {
    if T::DTYPE == DType::F32 || isa == Isa::Avx512Bf16 { 1 } else { 2 }
}

/// Rows of the tallest tile of an instruction path. The sums use all registers but those for one row of B and one word
/// of A.
pub(super) const fn tile_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512Bf16 | Isa::Avx512 => 12,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 4,
    }
}

/// How many panels a tile of `rows` rows takes at once: enough sums to hide the latency of a multiply-add.
pub(super) fn panels_at_once(isa: Isa, rows: usize) -> usize {
    match (isa, rows) {
        (Isa::Avx512Bf16 | Isa::Avx512, 1) => 4,
        (Isa::Avx512Bf16 | Isa::Avx512, 2) => 2,
        (Isa::Avx2 | Isa::Neon, 1) => 2,
        _ => 1,
    }
}

/// One tile: `rows` rows of A by `panels` panels of B, `steps` steps deep.
///
/// Word `w` of step `p` of row `i` of A lies at `i · a_stride + p · words + w`; with `TRANSPOSED`, at
/// `(p · words + w) · a_stride + i`.
pub(super) struct Tile<T, const TRANSPOSED: bool> {
    pub a: *const f32,
    pub a_stride: usize,
    /// The first panel, at the first step.
    pub b: *const T,
    /// Elements from one panel of B to the next.
    pub panel_stride: usize,
    /// 1, or [`panels_at_once`].
    pub panels: usize,
    pub steps: usize,
    pub rows: usize,
    /// Memory that will be read later. At each step and for each panel, the tile prefetches the cache line at `ahead`
    /// and the one that lies `ahead_line` elements after it. Then it advances `ahead` by `ahead_step` elements.
    pub ahead: *const T,
    pub ahead_line: usize,
    pub ahead_step: usize,
    /// The sums. They start from the values at `c`, or from zero with `from_zero`. In the end they are written to `c`.
    pub c: *mut f32,
    /// Number of floats from one row of sums to the next, and from one panel of sums to the next.
    pub c_row: usize,
    pub c_panel: usize,
    pub from_zero: bool,
}

impl<T: Real, const TRANSPOSED: bool> Kernel for Tile<T, TRANSPOSED> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `blocks.rs` made the pointers for this shape. It never gives more rows or panels than the functions
        // above return for the path.
        unsafe {
            // The conditions are constant, so that no instruction path compiles the tiles of another.
            if const { S::LANES == 16 } {
                match (self.rows, self.panels) {
                    (1, 4) => self.sums::<S, 1, 2, 4>(s, 0),
                    (2, 2) => self.sums::<S, 2, 2, 2>(s, 0),
                    (1, _) => self.sums::<S, 1, 2, 1>(s, 0),
                    (2, _) => self.sums::<S, 2, 2, 1>(s, 0),
                    (3, _) => self.sums::<S, 3, 2, 1>(s, 0),
                    (4, _) => self.sums::<S, 4, 2, 1>(s, 0),
                    (5, _) => self.sums::<S, 5, 2, 1>(s, 0),
                    (6, _) => self.sums::<S, 6, 2, 1>(s, 0),
                    (7, _) => self.sums::<S, 7, 2, 1>(s, 0),
                    (8, _) => self.sums::<S, 8, 2, 1>(s, 0),
                    (9, _) => self.sums::<S, 9, 2, 1>(s, 0),
                    (10, _) => self.sums::<S, 10, 2, 1>(s, 0),
                    (11, _) => self.sums::<S, 11, 2, 1>(s, 0),
                    (12, _) => self.sums::<S, 12, 2, 1>(s, 0),
                    (rows, panels) => unreachable!("a tile of {rows} rows and {panels} panels"),
                }
            } else if const { matches!(S::ISA, Isa::Avx2) } {
                match (self.rows, self.panels) {
                    (1, 2) => self.sums::<S, 1, 4, 2>(s, 0),
                    (1, _) => self.sums::<S, 1, 4, 1>(s, 0),
                    (2, _) => self.sums::<S, 2, 4, 1>(s, 0),
                    (3, _) => self.halves::<S, 3, 2>(s),
                    (4, _) => self.halves::<S, 4, 2>(s),
                    (5, _) => self.halves::<S, 5, 2>(s),
                    (6, _) => self.halves::<S, 6, 2>(s),
                    (rows, panels) => unreachable!("a tile of {rows} rows and {panels} panels"),
                }
            } else if const { matches!(S::ISA, Isa::Neon) } {
                match (self.rows, self.panels) {
                    (1, 2) => self.sums::<S, 1, 8, 2>(s, 0),
                    (1, _) => self.sums::<S, 1, 8, 1>(s, 0),
                    (2, _) => self.sums::<S, 2, 8, 1>(s, 0),
                    (3, _) => self.halves::<S, 3, 4>(s),
                    (4, _) => self.halves::<S, 4, 4>(s),
                    (5, _) => self.halves::<S, 5, 4>(s),
                    (6, _) => self.halves::<S, 6, 4>(s),
                    (rows, panels) => unreachable!("a tile of {rows} rows and {panels} panels"),
                }
            } else {
                match self.rows {
                    1 => self.halves::<S, 1, 2>(s),
                    2 => self.halves::<S, 2, 2>(s),
                    3 => self.halves::<S, 3, 2>(s),
                    4 => self.halves::<S, 4, 2>(s),
                    rows => unreachable!("a tile of {rows} rows"),
                }
            }
        }
    }
}

impl<T: Real, const TRANSPOSED: bool> Tile<T, TRANSPOSED> {
    /// Computes one panel as two halves, each `V` vectors wide.
    #[inline(always)]
    unsafe fn halves<S: Simd, const R: usize, const V: usize>(&self, s: S) {
        // SAFETY: forwarded.
        unsafe {
            self.sums::<S, R, V, 1>(s, 0);
            self.sums::<S, R, V, 1>(s, PANEL / 2);
        }
    }

    /// Computes `R` rows by `V` vectors of each of `G` panels, starting at column `column` of each panel.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize, const V: usize, const G: usize>(&self, s: S, column: usize) {
        let depth = step_depth::<T>();
        let narrow = T::DTYPE == DType::F32 || S::NATIVE_BF16;
        let words = if narrow { 1 } else { 2 };
        let (row_step, word_step) = if TRANSPOSED { (1, self.a_stride) } else { (self.a_stride, 1) };
        let mut acc = [[[s.zero(); V]; G]; R];
        // SAFETY: the caller's. A holds `steps` steps of R rows, each panel of B `steps` steps, and the sums R rows for
        // each panel.
        unsafe {
            if !self.from_zero {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (g, panel) in row.iter_mut().enumerate() {
                        for (v, sum) in panel.iter_mut().enumerate() {
                            *sum = s.load(self.c.add(g * self.c_panel + i * self.c_row + column + v * S::LANES));
                        }
                    }
                }
            }
            let mut a = self.a;
            let mut b = self.b.add(column * depth);
            let mut ahead = self.ahead;
            for _ in 0..self.steps {
                // Load B's vectors first, then take one row after the other. In this order everything fits into the
                // registers.
                if T::DTYPE == DType::F32 {
                    let mut columns = [[s.zero(); V]; G];
                    for g in 0..G {
                        for v in 0..V {
                            columns[g][v] = s.load_f32(b.add(g * self.panel_stride + v * S::LANES).cast());
                        }
                    }
                    for i in 0..R {
                        let word = s.splat(*a.add(i * row_step));
                        for g in 0..G {
                            for v in 0..V {
                                acc[i][g][v] = s.fma(word, columns[g][v], acc[i][g][v]);
                            }
                        }
                    }
                } else if S::NATIVE_BF16 {
                    let mut columns = [[s.splat_pair(0); V]; G];
                    for g in 0..G {
                        for v in 0..V {
                            columns[g][v] = s.load_pairs(b.add(g * self.panel_stride + v * S::LANES * 2).cast());
                        }
                    }
                    for i in 0..R {
                        let pair = s.splat_pair(a.add(i * row_step).cast::<u32>().read());
                        for g in 0..G {
                            for v in 0..V {
                                acc[i][g][v] = s.dot_bf16(acc[i][g][v], pair, columns[g][v]);
                            }
                        }
                    }
                } else {
                    // This computes the same as `dot_bf16`: the second element of each pair first. A was widened when
                    // its block was copied.
                    for half in [1, 0] {
                        let mut columns = [[s.zero(); V]; G];
                        for g in 0..G {
                            for v in 0..V {
                                let b = b.add(g * self.panel_stride + v * S::LANES * depth);
                                let (first, second) = s.widen_pairs(s.load_pairs(b.cast()));
                                columns[g][v] = if half == 1 { second } else { first };
                            }
                        }
                        for i in 0..R {
                            let word = s.splat(*a.add(i * row_step + half * word_step));
                            for g in 0..G {
                                for v in 0..V {
                                    acc[i][g][v] = s.fma(word, columns[g][v], acc[i][g][v]);
                                }
                            }
                        }
                    }
                }
                for g in 0..G {
                    let ahead = ahead.wrapping_add(g * self.panel_stride);
                    prefetch(ahead);
                    prefetch(ahead.wrapping_add(self.ahead_line));
                }
                ahead = ahead.wrapping_add(self.ahead_step);
                a = a.wrapping_add(words * word_step);
                b = b.wrapping_add(PANEL * depth);
            }
            for (i, row) in acc.iter().enumerate() {
                for (g, panel) in row.iter().enumerate() {
                    for (v, &sum) in panel.iter().enumerate() {
                        s.store(self.c.add(g * self.c_panel + i * self.c_row + column + v * S::LANES), sum);
                    }
                }
            }
        }
    }
}

/// Writes finished sums: `out = addend + (sums + bias)`, rounded once to `O`.
pub(super) struct Finish<'a, O> {
    pub c: *const f32,
    pub rows: usize,
    /// At most [`PANEL`].
    pub cols: usize,
    pub out: *mut O,
    pub out_stride: usize,
    /// Null, or `cols` values.
    pub bias: *const f32,
    /// Null, or `rows` rows.
    pub addend: *const f32,
    pub addend_stride: usize,
    pub life: PhantomData<&'a mut O>,
}

impl<O: Real> Kernel for Finish<'_, O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in 0..self.rows {
            let mut column = 0;
            while column < self.cols {
                let count = S::LANES.min(self.cols - column);
                // SAFETY: `blocks.rs` gives `rows` rows of `cols` columns at each pointer.
                unsafe {
                    let mut sum = s.load(self.c.add(i * PANEL + column));
                    if !self.bias.is_null() {
                        sum = s.add(sum, s.load_partial(self.bias.add(column), count));
                    }
                    if !self.addend.is_null() {
                        let addend = self.addend.add(i * self.addend_stride + column);
                        sum = s.add(s.load_partial(addend, count), sum);
                    }
                    let out = self.out.add(i * self.out_stride + column);
                    if count == S::LANES { s.store(out, sum) } else { s.store_partial(out, sum, count) }
                }
                column += S::LANES;
            }
        }
    }
}
