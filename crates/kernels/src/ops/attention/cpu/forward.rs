//! The forward pass over pages: a tile of a few queries goes through the pages of its sequence, one block at a time.
//!
//! Scores come out with keys in the lanes, since keys lie transposed; outputs with the coordinates of values in the
//! lanes. Between the two, the tile's scores (a few rows of [`KEY_BLOCK`]) lie on the stack.
//!
//! Read next: `backward.rs`.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::KEY_BLOCK;
use super::{MAX_HEAD_DIM, Pages, Rows, RowsMut, add_product, padded, product, transpose};
use crate::Real;
use crate::simd::{Kernel, Simd, exp};

/// Most queries in one tile.
const TILE: usize = 6;

/// Writes one kv head of one page from rows of keys and values, widened.
pub(in super::super) struct FillPage<'a> {
    pub keys: Rows,
    pub values: Rows,
    pub rows: &'a [u32],
    pub kv_head: usize,
    pub head_dim: usize,
    pub to: (*mut f32, *mut f32),
}

impl Kernel for FillPage<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (d, width) = (self.head_dim, padded(self.head_dim));
        // SAFETY: whoever makes this task names existing rows, at most `KEY_BLOCK` of them, and points at a page's head of
        // which it is the only writer. The values' place serves the keys first.
        unsafe {
            for j in 0..self.rows.len() {
                self.keys.copy(s, self.rows[j] as usize, self.kv_head * d, d, 1.0, self.to.1.add(j * width));
            }
            transpose(self.to.1, width, self.rows.len(), d, self.to.0, KEY_BLOCK);
            for j in 0..self.rows.len() {
                self.values.copy(s, self.rows[j] as usize, self.kv_head * d, d, 1.0, self.to.1.add(j * width));
            }
        }
    }
}

/// A few consecutive rows of one sequence and the query heads of one kv head.
pub(in super::super) struct Attend<'a, P> {
    pub q: Rows,
    pub out: RowsMut,
    /// Log-sum-exp, if it is wanted.
    pub lse: Option<RowsMut>,
    pub rows: Range<usize>,
    /// Position of each of the batch's rows.
    pub positions: &'a [u32],
    pub table: &'a [u32],
    pub pages: Pages<P>,
    pub kv_head: usize,
    /// Query heads of a kv head.
    pub group: usize,
    pub scale: f32,
}

/// What a tile keeps on the stack.
#[repr(align(64))]
struct Tile {
    q: [f32; TILE * MAX_HEAD_DIM],
    scores: [f32; TILE * KEY_BLOCK],
    out: [f32; TILE * MAX_HEAD_DIM],
}

impl<P: Real> Kernel for Attend<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Zeroing it would cost a tenth of one token's decode; every element is written before it is read.
        let mut tile = MaybeUninit::<Tile>::uninit();
        let tile = tile.as_mut_ptr();
        let queries = self.rows.len() * self.group;
        let mut first = 0;
        while first < queries {
            // SAFETY: whoever makes this task points at rows and pages that hold the positions, and it is the only
            // writer of the heads of its rows.
            first += unsafe {
                match queries - first {
                    4.. => self.tile::<S, 6, 2, 2>(s, first, queries, tile),
                    2.. => self.tile::<S, 3, 2, 2>(s, first, queries, tile),
                    // A single query waits for its chains of additions: as many as its head allows.
                    _ if padded(self.pages.head_dim) >= 4 * S::LANES => {
                        self.tile::<S, 1, 4, 4>(s, first, queries, tile)
                    }
                    _ => self.tile::<S, 1, 4, 2>(s, first, queries, tile),
                }
            };
        }
    }
}

impl<P: Real> Attend<'_, P> {
    /// Row and head of a query: rows outermost, so that a tile's queries see nearly the same keys.
    #[inline(always)]
    fn query(&self, index: usize) -> (usize, usize) {
        (self.rows.start + index / self.group, self.kv_head * self.group + index % self.group)
    }

    /// Attends for M queries from `first`, with W vectors of keys and V of coordinates at a time; returns M. Beyond the last
    /// of `queries` it computes that one again, and writes nothing.
    ///
    /// # Safety
    /// As in `run`; the tile is the caller's alone.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const W: usize, const V: usize>(
        &self,
        s: S,
        first: usize,
        queries: usize,
        tile: *mut Tile,
    ) -> usize {
        let d = self.pages.head_dim;
        // SAFETY: the caller's; no reference is made to what is not yet written.
        let (q, scores, out) = unsafe { (&raw mut (*tile).q, &raw mut (*tile).scores, &raw mut (*tile).out) };
        let (q, scores, out) = (q.cast::<f32>(), scores.cast::<f32>(), out.cast::<f32>());
        let mut visible = [0usize; M];
        for m in 0..M {
            let (row, head) = self.query((first + m).min(queries - 1));
            visible[m] = self.positions[row] as usize + 1;
            // SAFETY: the row and head exist; the tile has room for M padded rows.
            unsafe {
                self.q.copy(s, row, head * d, d, self.scale, q.add(m * MAX_HEAD_DIM));
                let mut at = 0;
                while at < padded(d) {
                    s.store(out.add(m * MAX_HEAD_DIM + at), s.zero());
                    at += S::LANES;
                }
            }
        }
        let mut longest = 0;
        for m in 0..M {
            longest = longest.max(visible[m]);
        }
        let mut highest = [f32::NEG_INFINITY; M];
        let mut sum = [s.zero(); M];
        for block in 0..longest.div_ceil(KEY_BLOCK) {
            let (page, start) = (self.table[block], block * KEY_BLOCK);
            let seen = KEY_BLOCK.min(longest - start);
            let (keys, values) = self.pages.head(page as usize, self.kv_head);
            let vectors = seen.div_ceil(S::LANES);
            let mut top = [s.splat(f32::NEG_INFINITY); M];
            let mut vector = 0;
            while vector < vectors {
                let at = vector * S::LANES;
                // SAFETY: the vectors lie within the block's keys and the tile's scores.
                let (keys, scores) = unsafe { (keys.add(at), scores.add(at)) };
                // SAFETY: as above.
                vector += unsafe {
                    if vector + W <= vectors {
                        self.scores::<S, M, W>(s, q, keys, start + at, &visible, scores, &mut top)
                    } else {
                        self.scores::<S, M, 1>(s, q, keys, start + at, &visible, scores, &mut top)
                    }
                };
            }
            for m in 0..M {
                let top = s.reduce_max(top[m]);
                if top > highest[m] {
                    if block > 0 {
                        let shrink = exp(s, s.splat(highest[m] - top));
                        sum[m] = s.mul(sum[m], shrink);
                        let mut at = 0;
                        while at < padded(d) {
                            let out = out.wrapping_add(m * MAX_HEAD_DIM + at);
                            // SAFETY: inside the tile's row.
                            unsafe { s.store(out, s.mul(s.load(out), shrink)) };
                            at += S::LANES;
                        }
                    }
                    highest[m] = top;
                }
                let shift = s.splat(highest[m]);
                for vector in 0..vectors {
                    let score = scores.wrapping_add(m * KEY_BLOCK + vector * S::LANES);
                    // SAFETY: a row of scores holds `KEY_BLOCK`.
                    unsafe {
                        let weight = exp(s, s.sub(s.load(score), shift));
                        sum[m] = s.add(sum[m], weight);
                        s.store(score, weight);
                    }
                }
            }
            // SAFETY: `seen` weights a row, as many rows of values in the page, padded rows of output in the tile.
            unsafe {
                let (values, out) = ((values.cast_const(), padded(d)), (out, MAX_HEAD_DIM));
                add_product::<S, P, false, M, V>(s, seen, scores, (KEY_BLOCK, 1), values, out, padded(d));
            }
        }
        for m in 0..M.min(queries - first) {
            let (row, head) = self.query(first + m);
            let total = s.reduce_add(sum[m]);
            let inverse = s.splat(1.0 / total);
            let mut at = 0;
            while at < d {
                // SAFETY: the count keeps the store within the head.
                unsafe {
                    // Adding zero makes the sign of a zero independent of how many keys of weight zero were passed.
                    let x = s.add(s.mul(s.load(out.add(m * MAX_HEAD_DIM + at)), inverse), s.zero());
                    self.out.store(s, row, head * d + at, x, S::LANES.min(d - at));
                }
                at += S::LANES;
            }
            if let Some(lse) = self.lse {
                // SAFETY: the row and head exist.
                unsafe { lse.store(s, row, head, s.splat(highest[m] + total.ln()), 1) };
            }
        }
        M
    }

    /// W vectors of scores from the keys at position `start` on, masked, and the greatest so far; returns W.
    ///
    /// # Safety
    /// As in `run`; W vectors of keys and of scores must exist.
    #[inline(always)]
    unsafe fn scores<S: Simd, const M: usize, const W: usize>(
        &self,
        s: S,
        q: *const f32,
        keys: *const P,
        start: usize,
        visible: &[usize; M],
        scores: *mut f32,
        top: &mut [S::F; M],
    ) -> usize {
        let mut acc = [[s.zero(); W]; M];
        // SAFETY: the caller's.
        unsafe {
            product::<S, P, false, M, W>(s, self.pages.head_dim, q, (MAX_HEAD_DIM, 1), keys, KEY_BLOCK, &mut acc)
        };
        for m in 0..M {
            for w in 0..W {
                let at = w * S::LANES;
                let mut score = acc[m][w];
                if start + at + S::LANES > visible[m] {
                    let mask = s.first(visible[m].saturating_sub(start + at));
                    score = s.select(mask, score, s.splat(f32::NEG_INFINITY));
                }
                top[m] = s.max(top[m], score);
                // SAFETY: the caller's.
                unsafe { s.store(scores.add(m * KEY_BLOCK + at), score) };
            }
        }
        W
    }
}
