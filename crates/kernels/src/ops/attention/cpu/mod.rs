//! Attention on vectors: the small matrix product that all of attention consists of, and the layout of a page.
//!
//! Every product of the forward and of the backward pass has the form `C[m, lanes] += Σ_i a[m, i] · b[i, lanes]`. An
//! element of `a` is copied to every lane, and `b` is read along its rows. So the only sums across lanes are those of a
//! query: its maximum, its sum of weights and its δ. Each element of C is one accumulator, and terms are added to it in
//! order of increasing `i`. So the grouping of queries into tiles never changes a bit.
//!
//! Operands are stored as 4-byte *words*. A word is one f32. With `PAIRS`, a word is two bf16 that are neighbours along
//! the sum over `i`; the instruction `vdpbf16ps` multiplies both and adds both products. A matrix that one product sums
//! along its rows and another along its columns is therefore stored in two copies (`backward.rs` has a figure).
//!
//! Read next: `forward.rs`, then `backward.rs`.

pub(super) mod backward;
pub(super) mod forward;

use super::limits::KEY_BLOCK;
use crate::simd::{Simd, prefetch};
use crate::view::area;
use crate::{DType, Real, View, ViewMut, bf16};

/// The most lanes of any instruction path.
const MAX_LANES: usize = 16;

/// Length of a row of values: D padded to a multiple of the lanes of every path.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(MAX_LANES)
}

/// Pages in memory; `paged.rs` has a figure. Each page has one part per kv head, one after the other. A part holds the
/// keys `[D, KEY_BLOCK]` in words along D, and then the values `[KEY_BLOCK, padded D]` in words along the positions.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub memory: *mut f32,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Number of elements in a word.
    pub depth: usize,
}

// SAFETY: a pointer to words that are `Send + Sync`. Code that writes through it says why nobody else does.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Pages of elements of type T that begin at `memory`.
    pub fn of<T: Real>(memory: *mut T, kv_heads: usize, head_dim: usize) -> Pages {
        Pages { memory: memory.cast(), kv_heads, head_dim, depth: size_of::<f32>() / size_of::<T>() }
    }

    /// Number of words of one page.
    pub fn words(&self) -> usize {
        area(self.kv_heads, self.head_words())
    }

    /// Number of words of one head of one page.
    #[inline(always)]
    fn head_words(&self) -> usize {
        self.key_words() + KEY_BLOCK / self.depth * padded(self.head_dim)
    }

    /// Number of words of one head's keys.
    #[inline(always)]
    fn key_words(&self) -> usize {
        KEY_BLOCK * self.head_dim.div_ceil(self.depth)
    }

    /// Pointers to the keys and to the values of one head of one page.
    #[inline(always)]
    pub fn head(&self, page: usize, kv_head: usize) -> (*mut f32, *mut f32) {
        let keys = self.memory.wrapping_add((page * self.kv_heads + kv_head) * self.head_words());
        (keys, keys.wrapping_add(self.key_words()))
    }
}

/// `acc[m][w] += Σ_{i < depth} a[m·a_row + i·a_step] · b[i·b_row + w·LANES ..]`, in increasing `i`.
///
/// With `PAIRS` a word is two bf16, and each `·` adds the two products of a word ([`Simd::dot_bf16`]).
///
/// # Safety
/// The elements named must be readable.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const PAIRS: bool, const M: usize, const W: usize>(
    s: S,
    depth: usize,
    a: *const f32,
    (a_row, a_step): (usize, usize),
    b: *const f32,
    b_row: usize,
    acc: &mut [[S::F; W]; M],
) {
    for i in 0..depth {
        if PAIRS {
            let mut lanes = [s.splat_pair(0); W];
            for w in 0..W {
                // SAFETY: the caller's.
                lanes[w] = unsafe { s.load_pairs(b.add(i * b_row + w * S::LANES).cast()) };
            }
            for m in 0..M {
                // SAFETY: the caller's.
                let x = s.splat_pair(unsafe { a.add(m * a_row + i * a_step).cast::<u32>().read() });
                for w in 0..W {
                    acc[m][w] = s.dot_bf16(acc[m][w], x, lanes[w]);
                }
            }
            continue;
        }
        let mut lanes = [s.zero(); W];
        for w in 0..W {
            // SAFETY: the caller's.
            lanes[w] = unsafe { s.load(b.add(i * b_row + w * S::LANES)) };
        }
        for m in 0..M {
            // SAFETY: the caller's.
            let x = s.splat(unsafe { *a.add(m * a_row + i * a_step) });
            for w in 0..W {
                acc[m][w] = s.fma(x, lanes[w], acc[m][w]);
            }
        }
    }
}

/// `c[m, 0..cols] += Σ_i a[m, i] · b[i, 0..cols]` for M rows. `cols` is a multiple of `LANES`; strides are as in
/// [`product`].
///
/// # Safety
/// The elements named must be readable, and those of `c` writable.
#[inline(always)]
unsafe fn add_product<S: Simd, const PAIRS: bool, const M: usize, const W: usize>(
    s: S,
    depth: usize,
    a: *const f32,
    a_strides: (usize, usize),
    (b, b_row): (*const f32, usize),
    (c, c_row): (*mut f32, usize),
    cols: usize,
) {
    let mut col = 0;
    // SAFETY: columns stay below `cols`; the rest is the caller's.
    unsafe {
        while col + W * S::LANES <= cols {
            add_block::<S, PAIRS, M, W>(s, depth, a, a_strides, (b.add(col), b_row), (c.add(col), c_row));
            col += W * S::LANES;
        }
        while col < cols {
            add_block::<S, PAIRS, M, 1>(s, depth, a, a_strides, (b.add(col), b_row), (c.add(col), c_row));
            col += S::LANES;
        }
    }
}

/// # Safety
/// As [`add_product`].
#[inline(always)]
unsafe fn add_block<S: Simd, const PAIRS: bool, const M: usize, const W: usize>(
    s: S,
    depth: usize,
    a: *const f32,
    a_strides: (usize, usize),
    (b, b_row): (*const f32, usize),
    (c, c_row): (*mut f32, usize),
) {
    let mut acc = [[s.zero(); W]; M];
    // SAFETY: the caller's.
    unsafe {
        for m in 0..M {
            for w in 0..W {
                acc[m][w] = s.load(c.add(m * c_row + w * S::LANES));
            }
        }
        product::<S, PAIRS, M, W>(s, depth, a, a_strides, b, b_row, &mut acc);
        for m in 0..M {
            for w in 0..W {
                s.store(c.add(m * c_row + w * S::LANES), acc[m][w]);
            }
        }
    }
}

/// Rows of f32 or of bf16, to be read. The type is a run-time value, not a type parameter, so that the large kernels
/// are compiled only once for both.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    start: *const u8,
    stride: usize,
    dtype: DType,
}

// SAFETY: a pointer to elements that are `Send + Sync` and only read.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    pub fn of<T: Real>(view: View<T>) -> Rows {
        Rows { start: view.as_ptr().cast(), stride: view.stride(), dtype: T::DTYPE }
    }

    /// Loads the first `count` elements from `(row, col)` on, widened to f32; the other lanes are zero.
    ///
    /// # Safety
    /// Those elements must exist.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, row: usize, col: usize, count: usize) -> S::F {
        let at = row * self.stride + col;
        // SAFETY: the caller's; the start is of this type.
        unsafe {
            match self.dtype {
                DType::F32 => s.load_partial(self.start.cast::<f32>().add(at), count),
                _ => s.load_partial(self.start.cast::<bf16>().add(at), count),
            }
        }
    }

    /// Prefetches `count` elements from `(row, col)` on. They need not exist.
    #[inline(always)]
    fn expect(self, row: usize, col: usize, count: usize) {
        let size = if self.dtype == DType::F32 { 4 } else { 2 };
        let at = self.start.wrapping_add((row * self.stride + col) * size);
        for line in (0..count * size).step_by(64) {
            prefetch(at.wrapping_add(line));
        }
    }

    /// Copies `head_dim` elements from `(row, col)` on as type O, and then writes zeros up to the padded length.
    ///
    /// # Safety
    /// Those elements must exist, and the padded number of elements must be writable at `to`.
    #[inline(always)]
    unsafe fn copy<S: Simd, O: Real>(self, s: S, row: usize, col: usize, head_dim: usize, to: *mut O) {
        let mut d = 0;
        while d < padded(head_dim) {
            // SAFETY: `d` stays below the padded length, and the count within `head_dim`.
            unsafe {
                let x = self.load(s, row, col + d.min(head_dim), head_dim.saturating_sub(d).min(S::LANES));
                s.store(to.add(d), x);
            }
            d += S::LANES;
        }
    }
}

/// Rows of f32 or of bf16, to be written.
#[derive(Clone, Copy)]
pub(super) struct RowsMut {
    start: *mut u8,
    stride: usize,
    dtype: DType,
}

// SAFETY: a pointer to elements that are `Send + Sync`. Code that writes through it says why nobody else does.
unsafe impl Send for RowsMut {}
// SAFETY: as above.
unsafe impl Sync for RowsMut {}

impl RowsMut {
    pub fn of<T: Real>(view: &ViewMut<T>) -> RowsMut {
        RowsMut { start: view.as_mut_ptr().cast(), stride: view.stride(), dtype: T::DTYPE }
    }

    /// Writes the first `count` lanes, rounded to the row's type, from `(row, col)` on.
    ///
    /// # Safety
    /// Those elements must exist and be written by no other task.
    #[inline(always)]
    unsafe fn store<S: Simd>(self, s: S, row: usize, col: usize, x: S::F, count: usize) {
        let at = row * self.stride + col;
        // SAFETY: the caller's; the start is of this type.
        unsafe {
            match self.dtype {
                DType::F32 => s.store_partial(self.start.cast::<f32>().add(at), x, count),
                _ => s.store_partial(self.start.cast::<bf16>().add(at), x, count),
            }
        }
    }
}

/// Transposes `rows` rows of `words` words: word `i` of row `j`, at `from[j·from_row + i]`, goes to `to[i·to_row + j]`.
///
/// # Safety
/// Those words must be readable, and their destinations writable.
#[inline(always)]
unsafe fn transpose(from: *const f32, from_row: usize, rows: usize, words: usize, to: *mut f32, to_row: usize) {
    for i in 0..words {
        for j in 0..rows {
            // SAFETY: the caller's.
            unsafe { *to.add(i * to_row + j) = *from.add(j * from_row + i) };
        }
    }
}
