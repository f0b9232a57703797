//! The forward pass over pages.
//!
//! A task takes a few consecutive rows of one sequence, with the query heads of one or more kv heads. It works on a
//! *slab* of at most 48 queries. Their running maxima, sums and outputs lie on the stack:
//!
//! ```text
//!     for each block of 64 keys                    a page; the whole slab reads it once
//!         for each kv head of the slab
//!             for each tile of up to 6 queries
//!                 scores  [6, 64] = q · keys       keys in the lanes, because the keys are stored transposed
//!                 weights [6, 64] = exp(…)         sums and outputs are rescaled where a maximum has grown
//!                 out     [6, D] += weights · values       coordinates in the lanes
//!     divide by the sums, and write the outputs
//! ```
//!
//! When a sequence has few query rows, several kv heads share a slab, in the order in which they lie in the page. A
//! decode step of many sequences is limited by memory, so it reads each page from start to end.
//!
//! For bf16, words are pairs (`PAIRS`). The weights are then rounded to bf16 before they are multiplied by the values,
//! as in FlashAttention. Their sum is not rounded.
//!
//! Read next: `backward.rs`.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::limits::{KEY_BLOCK, MAX_HEAD_DIM};
use super::{MAX_LANES, Pages, Rows, RowsMut, add_product, padded, product, transpose};
use crate::bf16;
use crate::simd::{Kernel, Simd, exp};

/// Most queries in one tile.
const TILE: usize = 6;
/// Most queries in one slab: a whole number of tiles.
const SLAB: usize = 48;

/// Copies one kv head of some rows of keys and values to a page.
pub(in super::super) struct FillPage<'a, const PAIRS: bool> {
    pub keys: Rows,
    pub values: Rows,
    pub rows: &'a [u32],
    pub kv_head: usize,
    pub head_dim: usize,
    pub to: (*mut f32, *mut f32),
}

impl<const PAIRS: bool> Kernel for FillPage<'_, PAIRS> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (d, width, col) = (self.head_dim, padded(self.head_dim), self.kv_head * self.head_dim);
        let (keys, values) = self.to;
        let row = |j: usize| self.rows[j] as usize;
        // SAFETY: the creator of this task names existing rows, at most `KEY_BLOCK` of them, and points to one head of
        // a page that nobody else uses. The keys are first copied to the place of the values, and transposed from
        // there.
        unsafe {
            let depth = if PAIRS { 2 } else { 1 };
            for j in 0..self.rows.len() {
                if PAIRS {
                    self.keys.copy(s, row(j), col, d, values.cast::<bf16>().add(j * width));
                } else {
                    self.keys.copy(s, row(j), col, d, values.add(j * width));
                }
            }
            transpose(values, width / depth, self.rows.len(), d.div_ceil(depth), keys, KEY_BLOCK);
            let mut j = 0;
            while j < self.rows.len() {
                if !PAIRS {
                    self.values.copy(s, row(j), col, d, values.add(j * width));
                } else {
                    let mut i = 0;
                    while i < width {
                        let (at, count) = (col + i.min(d), d.saturating_sub(i).min(S::LANES));
                        let first = self.values.load(s, row(j), at, count);
                        // The second half of the last word has a weight of zero. It must still be a finite number, so
                        // that the product is zero.
                        let exists = j + 1 < self.rows.len();
                        let second = if exists { self.values.load(s, row(j + 1), at, count) } else { s.zero() };
                        s.store_pairs(values.add(j / 2 * width + i).cast(), s.pairs(first, second));
                        i += S::LANES;
                    }
                }
                j += depth;
            }
        }
    }
}

/// What all tasks of a pass share; see `attention_forward`.
pub(in super::super) struct Attention<'a> {
    pub q: Rows,
    pub out: RowsMut,
    /// Log-sum-exp, if it is wanted.
    pub lse: Option<RowsMut>,
    /// Position of each row of the batch.
    pub positions: &'a [u32],
    pub pages: Pages,
    /// Number of query heads per kv head.
    pub group: usize,
    pub scale: f32,
}

/// One task: consecutive rows of one sequence, and the query heads of some kv heads.
pub(in super::super) struct Attend<'a, const PAIRS: bool> {
    pub of: &'a Attention<'a>,
    pub rows: Range<usize>,
    pub kv_heads: Range<usize>,
    pub table: &'a [u32],
}

/// How many kv heads with `queries` queries each fit into one slab; at least one.
pub(in super::super) fn heads_together(queries: usize) -> usize {
    (SLAB / whole_tiles(queries.clamp(1, SLAB))).max(1)
}

/// The number of queries, rounded up so that the last tile is full. The last tile has six rows, three or one.
#[inline(always)]
fn whole_tiles(queries: usize) -> usize {
    queries / TILE * TILE + [0, 1, 3, 3, 6, 6][queries % TILE]
}

/// Queries that go over the blocks of keys together: `count` queries of each of `heads` kv heads, from query `first`
/// on.
#[derive(Clone, Copy)]
struct Slab {
    head: usize,
    heads: usize,
    first: usize,
    count: usize,
}

/// The data of a slab on the stack. Queries (in words) and outputs are stored row by row; each row has the padded
/// length of a head.
#[repr(align(64))]
struct State {
    q: [f32; SLAB * MAX_HEAD_DIM],
    out: [f32; SLAB * MAX_HEAD_DIM],
    /// Sum of the weights so far, one partial sum per lane.
    sum: [f32; SLAB * MAX_LANES],
    /// Greatest score so far.
    highest: [f32; SLAB],
    /// How many keys each query sees.
    visible: [usize; SLAB],
    scores: [f32; TILE * KEY_BLOCK],
}

/// Pointers to the parts of a [`State`].
#[derive(Clone, Copy)]
struct Places {
    q: *mut f32,
    out: *mut f32,
    sum: *mut f32,
    highest: *mut f32,
    visible: *mut usize,
    scores: *mut f32,
}

impl<const PAIRS: bool> Kernel for Attend<'_, PAIRS> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Most heads need far less memory than this. Every element is written before it is read.
        let mut state = MaybeUninit::<State>::uninit();
        let state = state.as_mut_ptr();
        // SAFETY: the places lie inside the state. No reference is made to memory that is not written yet.
        let places = unsafe {
            Places {
                q: (&raw mut (*state).q).cast(),
                out: (&raw mut (*state).out).cast(),
                sum: (&raw mut (*state).sum).cast(),
                highest: (&raw mut (*state).highest).cast(),
                visible: (&raw mut (*state).visible).cast(),
                scores: (&raw mut (*state).scores).cast(),
            }
        };
        let queries = self.rows.len() * self.of.group;
        let together = heads_together(queries);
        let mut head = self.kv_heads.start;
        while head < self.kv_heads.end {
            let heads = together.min(self.kv_heads.end - head);
            let mut first = 0;
            while first < queries {
                let slab = Slab { head, heads, first, count: SLAB.min(queries - first) };
                // SAFETY: the creator of this task names rows that exist, and pages that hold their positions. No other
                // task writes these heads of these rows. The slab fits into the state.
                unsafe {
                    let longest = self.open(s, slab, places);
                    self.attend(s, slab, longest, places);
                    self.close(s, slab, places);
                }
                first += slab.count;
            }
            head += heads;
        }
    }
}

impl<const PAIRS: bool> Attend<'_, PAIRS> {
    /// Number of elements in a word.
    const DEPTH: usize = if PAIRS { 2 } else { 1 };

    /// Row and head of a query. The heads of one row follow one another, so that the queries of a tile see nearly the
    /// same keys.
    #[inline(always)]
    fn query(&self, kv_head: usize, index: usize) -> (usize, usize) {
        (self.rows.start + index / self.of.group, kv_head * self.of.group + index % self.of.group)
    }

    /// Copies a slab's queries and sets its sums to zero. Returns how many keys the slab sees. If the queries of a head
    /// do not fill the last tile, the last query is repeated.
    ///
    /// # Safety
    /// As in `run`; also, nobody else uses the state. The same holds for the methods below.
    #[inline(always)]
    unsafe fn open<S: Simd>(&self, s: S, slab: Slab, state: Places) -> usize {
        let (d, width) = (self.of.pages.head_dim, padded(self.of.pages.head_dim));
        let (mut longest, mut at) = (0, 0);
        for head in slab.head..slab.head + slab.heads {
            for i in 0..whole_tiles(slab.count) {
                let (row, head) = self.query(head, slab.first + i.min(slab.count - 1));
                let visible = self.of.positions[row] as usize + 1;
                longest = longest.max(visible);
                // SAFETY: the row and head exist, and the state has room for whole tiles.
                unsafe {
                    let q = state.q.add(at * width / Self::DEPTH);
                    if PAIRS {
                        self.of.q.copy(s, row, head * d, d, q.cast::<bf16>());
                    } else {
                        self.of.q.copy(s, row, head * d, d, q);
                    }
                    let mut i = 0;
                    while i < width {
                        s.store(state.out.add(at * width + i), s.zero());
                        i += S::LANES;
                    }
                    s.store(state.sum.add(at * S::LANES), s.zero());
                    *state.highest.add(at) = f32::NEG_INFINITY;
                    *state.visible.add(at) = visible;
                }
                at += 1;
            }
        }
        longest
    }

    /// Goes over the blocks of keys with a slab.
    #[inline(always)]
    unsafe fn attend<S: Simd>(&self, s: S, slab: Slab, longest: usize, state: Places) {
        for block in 0..longest.div_ceil(KEY_BLOCK) {
            let (page, start) = (self.table[block] as usize, block * KEY_BLOCK);
            let mut at = 0;
            for head in slab.head..slab.head + slab.heads {
                let page = self.of.pages.head(page, head);
                let mut left = slab.count;
                while left > 0 {
                    // SAFETY: as in `run`.
                    let tile = unsafe {
                        match left {
                            4.. => self.tile::<S, 6, 2, 2>(s, at, start, page, state),
                            2.. => self.tile::<S, 3, 2, 2>(s, at, start, page, state),
                            // A single query has few chains of additions, so their latency limits it. It gets as many
                            // as its head allows.
                            _ if padded(self.of.pages.head_dim) >= 4 * S::LANES => {
                                self.tile::<S, 1, 4, 4>(s, at, start, page, state)
                            }
                            _ => self.tile::<S, 1, 4, 2>(s, at, start, page, state),
                        }
                    };
                    at += tile;
                    left = left.saturating_sub(tile);
                }
            }
        }
    }

    /// Computes attention of M queries of the slab, from query `at` on, over the block that begins at position `start`.
    /// It takes W vectors of keys and V vectors of coordinates at a time. Returns M.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const W: usize, const V: usize>(
        &self,
        s: S,
        at: usize,
        start: usize,
        (keys, values): (*mut f32, *mut f32),
        state: Places,
    ) -> usize {
        let (width, scale) = (padded(self.of.pages.head_dim), self.of.scale);
        let words = width / Self::DEPTH;
        // SAFETY: the state holds M queries from `at` on.
        let (q, out) = unsafe { (state.q.add(at * words), state.out.add(at * width)) };
        let (mut visible, mut longest) = ([0; M], 0);
        for m in 0..M {
            // SAFETY: as above.
            visible[m] = unsafe { *state.visible.add(at + m) };
            longest = longest.max(visible[m]);
        }
        if longest <= start {
            return M;
        }
        let seen = KEY_BLOCK.min(longest - start);
        let vectors = seen.div_ceil(S::LANES);
        let mut top = [s.splat(f32::NEG_INFINITY); M];
        let mut vector = 0;
        while vector < vectors {
            let from = vector * S::LANES;
            // SAFETY: the vectors lie inside the block's keys and the tile's scores.
            vector += unsafe {
                let (q, keys, scores) = ((q.cast_const(), words), keys.add(from), state.scores.add(from));
                if vector + W <= vectors {
                    self.scores::<S, M, W>(s, q, keys, start + from, &visible, scores, &mut top)
                } else {
                    self.scores::<S, M, 1>(s, q, keys, start + from, &visible, scores, &mut top)
                }
            };
        }
        for m in 0..M {
            // SAFETY: inside the state. A row of scores has room for `KEY_BLOCK` scores, and so for as many weights,
            // which may be half as long.
            unsafe {
                let (highest, sum) = (state.highest.add(at + m), state.sum.add((at + m) * S::LANES));
                let mut total = s.load(sum);
                let top = s.reduce_max(top[m]);
                if top > *highest {
                    if start > 0 {
                        let shrink = exp(s, s.splat((*highest - top) * scale));
                        total = s.mul(total, shrink);
                        let mut i = 0;
                        while i < width {
                            let out = out.add(m * width + i);
                            s.store(out, s.mul(s.load(out), shrink));
                            i += S::LANES;
                        }
                    }
                    *highest = top;
                }
                let (scale, shift) = (s.splat(scale), s.splat(-*highest * scale));
                let scores = state.scores.add(m * KEY_BLOCK);
                for vector in 0..vectors {
                    let weight = exp(s, s.fma(s.load(scores.add(vector * S::LANES)), scale, shift));
                    total = s.add(total, weight);
                    if PAIRS {
                        s.store(scores.cast::<bf16>().add(vector * S::LANES), weight);
                    } else {
                        s.store(scores.add(vector * S::LANES), weight);
                    }
                }
                s.store(sum, total);
            }
        }
        // SAFETY: each row has weights for `seen` keys. The page has as many rows of values (with `PAIRS` an even
        // number), and the state has padded rows of output.
        unsafe {
            let (depth, weights) = (seen.div_ceil(Self::DEPTH), state.scores);
            add_product::<S, PAIRS, M, V>(s, depth, weights, (KEY_BLOCK, 1), (values, width), (out, width), width);
        }
        M
    }

    /// Writes a slab's outputs and log-sum-exps.
    #[inline(always)]
    unsafe fn close<S: Simd>(&self, s: S, slab: Slab, state: Places) {
        let (d, width) = (self.of.pages.head_dim, padded(self.of.pages.head_dim));
        for part in 0..slab.heads {
            for i in 0..slab.count {
                let (row, head) = self.query(slab.head + part, slab.first + i);
                let at = part * whole_tiles(slab.count) + i;
                // SAFETY: the row and head exist; the count keeps the store within the head.
                unsafe {
                    let total = s.reduce_add(s.load(state.sum.add(at * S::LANES)));
                    let inverse = s.splat(1.0 / total);
                    let mut i = 0;
                    while i < d {
                        // Adding zero turns −0 into 0. Otherwise the sign of a zero would depend on how many keys of
                        // weight zero there were.
                        let x = s.add(s.mul(s.load(state.out.add(at * width + i)), inverse), s.zero());
                        self.of.out.store(s, row, head * d + i, x, S::LANES.min(d - i));
                        i += S::LANES;
                    }
                    if let Some(lse) = self.of.lse {
                        let log = *state.highest.add(at) * self.of.scale + total.ln();
                        lse.store(s, row, head, s.splat(log), 1);
                    }
                }
            }
        }
    }

    /// Computes W vectors of scores, not yet scaled, for the keys from position `start` on. Keys that a query does not
    /// see get −∞. `top` is updated with the greatest scores. Returns W.
    #[inline(always)]
    unsafe fn scores<S: Simd, const M: usize, const W: usize>(
        &self,
        s: S,
        (q, q_row): (*const f32, usize),
        keys: *const f32,
        start: usize,
        visible: &[usize; M],
        scores: *mut f32,
        top: &mut [S::F; M],
    ) -> usize {
        let mut acc = [[s.zero(); W]; M];
        // SAFETY: as in `run`. W vectors of keys and of scores exist.
        unsafe {
            let depth = self.of.pages.head_dim.div_ceil(Self::DEPTH);
            product::<S, PAIRS, M, W>(s, depth, q, (q_row, 1), keys, KEY_BLOCK, &mut acc);
        }
        for m in 0..M {
            for w in 0..W {
                let at = w * S::LANES;
                let mut score = acc[m][w];
                if start + at + S::LANES > visible[m] {
                    let mask = s.first(visible[m].saturating_sub(start + at));
                    score = s.select(mask, score, s.splat(f32::NEG_INFINITY));
                }
                top[m] = s.max(top[m], score);
                // SAFETY: as above.
                unsafe { s.store(scores.add(m * KEY_BLOCK + at), score) };
            }
        }
        W
    }
}
