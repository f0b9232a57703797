//! The backward pass, as in FlashAttention-2 (Algorithm 2): blocks of keys in the outer loop, strips of queries in the
//! inner loop.
//!
//! Segments that share keys form a *tree*: one segment without a parent, and all its descendants. One task takes one
//! tree and one kv head. Only this task adds to the gradients of that tree and kv head, and it takes blocks and strips
//! in order. So no sum depends on the number of threads. (FlashAttention-2 uses atomic additions to d_q instead.)
//!
//! ```text
//!     copy the tree's queries and d_out together;  δ = Σ d_out·out, for each query
//!     for each block of 48 keys
//!         copy keys and values, also transposed
//!         for each strip of queries that see the block      first its own segment's, causally; then its descendants'
//!             S  = q · kᵀ         P  = exp(scale·S − lse)
//!             dP = d_out · vᵀ     dS = P · (dP − δ)
//!             d_v += Pᵀ · d_out   d_k += dSᵀ · q   d_q += dS · k
//!         write scale · d_k, and d_v
//!     write scale · d_q
//! ```
//!
//! # Pairs
//! `PAIRS` is true for bf16 where `vdpbf16ps` exists. A word is then a pair of bf16 that are neighbours along the sum.
//! P, dS and d_out are rounded to bf16 for this, as FlashAttention does. S sums q along the head, and d_k sums q along
//! the queries. So q is stored twice, once for each direction:
//!
//! ```text
//!     q, two queries, D = 4        words along D            words along the queries
//!     a0 a1 a2 a3                  (a0 a1) (a2 a3)          (a0 b0) (a1 b1) (a2 b2) (a3 b3)
//!     b0 b1 b2 b3                  (b0 b1) (b2 b3)
//! ```
//!
//! The same holds for d_out, k and dS. Without `PAIRS` a word is one f32, and one copy serves both sums.
//!
//! Queries are taken six at a time, even if fewer are left: the scratch has room for them, and P and dS are zero there.
//! Each segment begins at an even row of the scratch, so that both rows of a pair belong to one segment.

use super::super::segments::{Segment, Tree, descends};
use super::{Rows, RowsMut, add_product, padded, product, transpose};
use crate::bf16;
use crate::simd::{Kernel, Simd, exp};

/// Number of rows of one tile.
const TILE: usize = 6;
/// Number of keys in one block: whole tiles and whole vectors, and few enough that the data of a block fits the L1
/// cache.
const BLOCK: usize = 48;
/// Number of queries in one strip: whole tiles, and enough to make the sums over them long.
const STRIP: usize = 48;
/// Number of queries in one strip where the causal mask hides a part of the block. It is smaller, so that less work is
/// wasted on hidden elements.
const DIAGONAL_STRIP: usize = 24;
/// Rows are prefetched this many rows before they are copied.
const AHEAD: usize = 12;

/// What all tasks of one backward pass share; see `attention_backward` for the meaning of each.
pub(in super::super) struct Passes<'a> {
    pub q: Rows,
    pub k: Rows,
    pub v: Rows,
    pub out: Rows,
    pub lse: Rows,
    pub d_out: Rows,
    pub d_q: RowsMut,
    pub d_k: RowsMut,
    pub d_v: RowsMut,
    pub segments: &'a [Segment],
    pub head_dim: usize,
    pub group: usize,
    pub scale: f32,
}

/// One task: one tree and one kv head.
pub(in super::super) struct Differentiate<'a, const PAIRS: bool> {
    pub of: &'a Passes<'a>,
    pub tree: &'a Tree,
    pub kv_head: usize,
    /// Room for at least [`scratch_elements`] elements for this tree.
    pub scratch: *mut f32,
}

/// Number of f32 elements of scratch that a tree of `rows` rows needs.
pub(in super::super) fn scratch_elements(pairs: bool, rows: usize, group: usize, head_dim: usize) -> usize {
    let (start, queries) = (std::ptr::null_mut(), rows * group);
    let room =
        if pairs { Room::new::<true>(start, queries, head_dim) } else { Room::new::<false>(start, queries, head_dim) };
    room.end.addr() / size_of::<f32>()
}

/// Where each array lies in the scratch. With `PAIRS`, a matrix "in words along D" has half as many columns as its
/// shape says, and one "in words along the queries" has half as many rows.
#[derive(Clone, Copy)]
struct Room {
    /// Queries and gradients of outputs, `[queries, padded D]`, in words along D.
    q: *mut f32,
    d_out: *mut f32,
    /// The same matrices in words along the queries.
    q_along: *mut f32,
    d_out_along: *mut f32,
    /// Gradients of queries, `[queries, padded D]`, f32.
    d_q: *mut f32,
    /// Log-sum-exp and δ of each query.
    lse: *mut f32,
    delta: *mut f32,
    /// Rows of keys or of values, `[BLOCK, padded D]`, in words along D; and rows of keys in words along the keys.
    rows: *mut f32,
    k_along: *mut f32,
    /// Keys and values transposed, `[padded D, BLOCK]`, in words along D.
    k_columns: *mut f32,
    v_columns: *mut f32,
    /// Gradients of keys and of values, `[BLOCK, padded D]`, f32.
    d_k: *mut f32,
    d_v: *mut f32,
    /// For one strip, `[STRIP, BLOCK]`: P and dS in words along the queries, and dS in words along the keys.
    p: *mut f32,
    d_s: *mut f32,
    d_s_along: *mut f32,
    end: *mut f32,
    /// Number of queries, including those that fill up the last tile.
    queries: usize,
}

impl Room {
    fn new<const PAIRS: bool>(start: *mut f32, queries: usize, head_dim: usize) -> Room {
        let depth = if PAIRS { 2 } else { 1 };
        let mut next = start;
        let mut take = |elements: usize| {
            let here = next;
            next = next.wrapping_add(elements.next_multiple_of(16));
            here
        };
        let queries = queries + TILE;
        let width = padded(head_dim);
        let (words, strip) = (queries * width / depth, STRIP * BLOCK / depth);
        let (q, d_out) = (take(words), take(words));
        let (rows, d_s) = (take(BLOCK * width / depth), take(strip));
        // Without `PAIRS` a word is one element, so both orders use the same memory.
        let mut other = |same: *mut f32, elements: usize| if PAIRS { take(elements) } else { same };
        Room {
            q,
            d_out,
            q_along: other(q, words),
            d_out_along: other(d_out, words),
            rows,
            k_along: other(rows, BLOCK * width / depth),
            d_s,
            d_s_along: other(d_s, strip),
            d_q: take(queries * width),
            lse: take(queries),
            delta: take(queries),
            k_columns: take(BLOCK * width / depth),
            v_columns: take(BLOCK * width / depth),
            d_k: take(BLOCK * width),
            d_v: take(BLOCK * width),
            p: take(strip),
            end: take(0),
            queries,
        }
    }
}

impl<const PAIRS: bool> Kernel for Differentiate<'_, PAIRS> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if const { PAIRS && !S::NATIVE_BF16 } {
            unreachable!("pairs on {}", S::ISA.name());
        }
        // SAFETY: the creator of this task gives matrices that hold the tree's rows and heads. No other task writes the
        // gradients of these rows and this kv head, or uses this scratch.
        unsafe {
            let parts = &self.tree.segments;
            let room = Room::new::<PAIRS>(self.scratch, self.tree.rows * self.of.group, self.of.head_dim);
            self.gather_queries(s, room);
            let mut first = 0;
            for order in 0..parts.len() {
                let segment = self.of.segments[parts[order]];
                let mut start = 0;
                while start < segment.len {
                    let keys = BLOCK.min(segment.len - start);
                    self.open_block(s, room, segment.start + start, keys);
                    // First the segment's own queries, with the causal mask; then those of its descendants, which see
                    // the whole block.
                    let mut begin = first;
                    for later in order..parts.len() {
                        let part = &self.of.segments[parts[later]];
                        let end = begin + part.len;
                        if later == order {
                            self.strips(s, room, begin + start, end, keys, true);
                        } else if descends(self.of.segments, parts[later], parts[order]) {
                            self.strips(s, room, begin, end, keys, false);
                        }
                        begin += part.even_len();
                    }
                    self.close_block(s, room, segment.start + start, keys);
                    start += BLOCK;
                }
                first += segment.even_len();
            }
            self.scatter_queries(s, room);
        }
    }
}

impl<const PAIRS: bool> Differentiate<'_, PAIRS> {
    /// Number of elements in a word.
    const DEPTH: usize = if PAIRS { 2 } else { 1 };

    /// Copies the queries and output gradients of the tree to the scratch, computes δ, and sets d_q to zero.
    ///
    /// # Safety
    /// As in `run`. The same holds for the methods below.
    #[inline(always)]
    unsafe fn gather_queries<S: Simd>(&self, s: S, room: Room) {
        let (d, words) = (self.of.head_dim, padded(self.of.head_dim) / Self::DEPTH);
        let mut query = 0;
        // SAFETY: rows and heads exist. The room holds every query of the tree, and one tile more.
        unsafe {
            for part in 0..self.tree.segments.len() {
                let segment = self.of.segments[self.tree.segments[part]];
                for row in segment.start..segment.start + segment.len {
                    for head in self.kv_head * self.of.group..(self.kv_head + 1) * self.of.group {
                        let at = query * words;
                        for matrix in [self.of.q, self.of.d_out, self.of.out] {
                            matrix.expect(row + AHEAD, head * d, d);
                        }
                        self.copy(s, self.of.q, row, head, room.q.add(at));
                        self.copy(s, self.of.d_out, row, head, room.d_out.add(at));
                        let (mut delta, mut i) = (s.zero(), 0);
                        while i < d {
                            let out = self.of.out.load(s, row, head * d + i, S::LANES.min(d - i));
                            let d_out = room.d_out.add(at);
                            let d_out = if PAIRS { s.load(d_out.cast::<bf16>().add(i)) } else { s.load(d_out.add(i)) };
                            delta = s.fma(d_out, out, delta);
                            i += S::LANES;
                        }
                        *room.delta.add(query) = s.reduce_add(delta);
                        *room.lse.add(query) = s.reduce_add(self.of.lse.load(s, row, head, 1));
                        query += 1;
                    }
                }
                let end = query + (segment.even_len() - segment.len) * self.of.group;
                self.clear_queries(s, room, query, end);
                query = end;
            }
            self.clear_queries(s, room, query, room.queries);
            zero(s, room.d_q, room.queries * padded(d));
            if PAIRS {
                turn_pairs(s, room.q, room.queries, padded(d), room.q_along);
                turn_pairs(s, room.d_out, room.queries, padded(d), room.d_out_along);
            }
        }
    }

    /// Sets to zero the queries that only fill up a tile or a pair.
    #[inline(always)]
    unsafe fn clear_queries<S: Simd>(&self, s: S, room: Room, from: usize, to: usize) {
        let words = padded(self.of.head_dim) / Self::DEPTH;
        for query in from..to {
            let mut i = 0;
            // SAFETY: the room holds them. A row may be only half a vector long.
            unsafe {
                while i < words {
                    let count = S::LANES.min(words - i);
                    s.store_partial(room.q.add(query * words + i), s.zero(), count);
                    s.store_partial(room.d_out.add(query * words + i), s.zero(), count);
                    i += S::LANES;
                }
                *room.delta.add(query) = 0.0;
                *room.lse.add(query) = 0.0;
            }
        }
    }

    /// Copies one head of a row, in words along D.
    #[inline(always)]
    unsafe fn copy<S: Simd>(&self, s: S, from: Rows, row: usize, head: usize, to: *mut f32) {
        let d = self.of.head_dim;
        // SAFETY: the row and head exist, and the room holds a row.
        unsafe {
            if PAIRS {
                from.copy(s, row, head * d, d, to.cast::<bf16>());
            } else {
                from.copy(s, row, head * d, d, to);
            }
        }
    }

    /// Copies a block of keys and values, and sets its gradients to zero.
    #[inline(always)]
    unsafe fn open_block<S: Simd>(&self, s: S, room: Room, row: usize, keys: usize) {
        let width = padded(self.of.head_dim);
        let words = width / Self::DEPTH;
        // SAFETY: the rows exist, and the room holds a block. Values, and later keys, are copied to `rows` and
        // transposed from there.
        unsafe {
            for j in 0..keys {
                self.of.v.expect(row + j + BLOCK, self.kv_head * self.of.head_dim, self.of.head_dim);
                self.of.k.expect(row + j + BLOCK, self.kv_head * self.of.head_dim, self.of.head_dim);
                self.copy(s, self.of.v, row + j, self.kv_head, room.rows.add(j * words));
            }
            transpose(room.rows, words, keys, words, room.v_columns, BLOCK);
            for j in 0..keys {
                self.copy(s, self.of.k, row + j, self.kv_head, room.rows.add(j * words));
            }
            transpose(room.rows, words, keys, words, room.k_columns, BLOCK);
            if PAIRS {
                // The key that fills up the last pair has a dS of zero. It must still be a finite number, so that the
                // product is zero.
                for i in 0..words * (keys % 2) {
                    *room.rows.add(keys * words + i) = 0.0;
                }
                turn_pairs(s, room.rows, keys.next_multiple_of(2), width, room.k_along);
            }
            zero(s, room.d_k, BLOCK * width);
            zero(s, room.d_v, BLOCK * width);
        }
    }

    /// Processes the queries of rows `from .. to` of the tree, in strips. When `causal`, the rows from `from + j` on
    /// see key j.
    #[inline(always)]
    unsafe fn strips<S: Simd>(&self, s: S, room: Room, from: usize, to: usize, keys: usize, causal: bool) {
        let group = self.of.group;
        let (start, end) = (from * group, to * group);
        let mut query = start;
        while query < end {
            let hidden = causal && query - start < keys * group;
            let most = if hidden { DIAGONAL_STRIP } else { STRIP };
            let count = most.min(end - query);
            // The number of keys that the strip's last query sees.
            let last = (query + count - 1) / group - from;
            let seen = if causal { keys.min(last + 1) } else { keys };
            // SAFETY: the room holds `count` queries from `query` on, and the block `seen` keys.
            unsafe {
                let mut i = 0;
                while i < count {
                    // The number of keys that each query of the tile sees; zero for a query that only fills up the
                    // tile.
                    let mut visible = [0; TILE];
                    for m in 0..TILE.min(count - i) {
                        let offset = (query + i + m - start) / group;
                        visible[m] = if causal { seen.min(offset + 1) } else { seen };
                    }
                    if S::LANES == 16 {
                        self.weights::<S, 3>(s, room, query + i, i, seen, visible);
                    } else {
                        self.weights::<S, 2>(s, room, query + i, i, seen, visible);
                    }
                    i += TILE;
                }
                self.accumulate(s, room, query, count, seen);
            }
            query += count;
        }
    }

    /// Computes P and dS of one tile, which begins at query `i` of the strip.
    #[inline(always)]
    unsafe fn weights<S: Simd, const W: usize>(
        &self,
        s: S,
        room: Room,
        query: usize,
        i: usize,
        seen: usize,
        visible: [usize; TILE],
    ) {
        let words = padded(self.of.head_dim) / Self::DEPTH;
        let scale = s.splat(self.of.scale);
        let mut at = 0;
        // The sums below read whole tiles of keys, so P and dS are computed for whole tiles.
        while at < seen.next_multiple_of(TILE) {
            let (mut score, mut d_p) = ([[s.zero(); W]; TILE], [[s.zero(); W]; TILE]);
            // SAFETY: blocks and strips have `BLOCK` columns, a multiple of W·LANES.
            unsafe {
                let (q, d_out) = (room.q.add(query * words), room.d_out.add(query * words));
                let (k, v) = (room.k_columns.add(at), room.v_columns.add(at));
                product::<S, PAIRS, TILE, W>(s, words, q, (words, 1), k, BLOCK, &mut score);
                product::<S, PAIRS, TILE, W>(s, words, d_out, (words, 1), v, BLOCK, &mut d_p);
                for m in 0..TILE {
                    let (lse, delta) = (s.splat(-*room.lse.add(query + m)), s.splat(*room.delta.add(query + m)));
                    for w in 0..W {
                        let column = at + w * S::LANES;
                        let mut p = exp(s, s.fma(score[m][w], scale, lse));
                        let mut d_s = s.mul(p, s.sub(d_p[m][w], delta));
                        if column + S::LANES > visible[m] {
                            let mask = s.first(visible[m].saturating_sub(column));
                            p = s.select(mask, p, s.zero());
                            d_s = s.select(mask, d_s, s.zero());
                        }
                        (score[m][w], d_p[m][w]) = (p, d_s);
                        if !PAIRS {
                            s.store(room.p.add((i + m) * BLOCK + column), p);
                            s.store(room.d_s.add((i + m) * BLOCK + column), d_s);
                        } else if m % 2 == 1 {
                            let word = (i + m) / 2 * BLOCK + column;
                            s.store_pairs(room.p.add(word).cast(), s.rounded_pairs(score[m - 1][w], p));
                            s.store_pairs(room.d_s.add(word).cast(), s.rounded_pairs(d_p[m - 1][w], d_s));
                            let along = room.d_s_along.cast::<bf16>().add((i + m) * BLOCK + column);
                            s.store(along.sub(BLOCK), d_p[m - 1][w]);
                            s.store(along, d_s);
                        }
                    }
                }
            }
            at += W * S::LANES;
        }
    }

    /// Adds the contribution of one strip to d_v, d_k and d_q.
    #[inline(always)]
    unsafe fn accumulate<S: Simd>(&self, s: S, room: Room, query: usize, count: usize, seen: usize) {
        let width = padded(self.of.head_dim);
        let at = query * width;
        let (queries, keys) = (count.div_ceil(Self::DEPTH), seen.div_ceil(Self::DEPTH));
        // SAFETY: whole tiles of rows lie inside the room.
        unsafe {
            let sums = [
                (seen, queries, room.p, (1, BLOCK), room.d_out_along.add(at / Self::DEPTH), room.d_v),
                (seen, queries, room.d_s, (1, BLOCK), room.q_along.add(at / Self::DEPTH), room.d_k),
                (count, keys, room.d_s_along, (BLOCK / Self::DEPTH, 1), room.k_along, room.d_q.add(at)),
            ];
            for sum in 0..sums.len() {
                let (rows, depth, a, a_strides, b, c) = sums[sum];
                let mut row = 0;
                while row < rows {
                    let (a, c) = (a.add(row * a_strides.0), c.add(row * width));
                    add_product::<S, PAIRS, TILE, 2>(s, depth, a, a_strides, (b, width), (c, width), width);
                    row += TILE;
                }
            }
        }
    }

    /// Writes the gradients of a block of keys and values to the output.
    #[inline(always)]
    unsafe fn close_block<S: Simd>(&self, s: S, room: Room, row: usize, keys: usize) {
        let (d, width) = (self.of.head_dim, padded(self.of.head_dim));
        for j in 0..keys {
            // SAFETY: the rows exist, and no other task writes this head of them.
            unsafe {
                write_row(s, room.d_k.add(j * width), d, self.of.scale, self.of.d_k, row + j, self.kv_head * d);
                write_row(s, room.d_v.add(j * width), d, 1.0, self.of.d_v, row + j, self.kv_head * d);
            }
        }
    }

    /// Writes the gradients of the queries to the output.
    #[inline(always)]
    unsafe fn scatter_queries<S: Simd>(&self, s: S, room: Room) {
        let d = self.of.head_dim;
        let mut from = room.d_q;
        for part in 0..self.tree.segments.len() {
            let segment = self.of.segments[self.tree.segments[part]];
            for row in segment.start..segment.start + segment.len {
                for head in self.kv_head * self.of.group..(self.kv_head + 1) * self.of.group {
                    // SAFETY: the row and head exist, and this task alone writes them.
                    unsafe {
                        write_row(s, from, d, self.of.scale, self.of.d_q, row, head * d);
                        from = from.add(padded(d));
                    }
                }
            }
            from = from.wrapping_add((segment.even_len() - segment.len) * self.of.group * padded(d));
        }
    }
}

/// Copies rows in words along `width` to words along the rows. The number of rows is even.
///
/// # Safety
/// The rows must be readable, and the destination writable.
#[inline(always)]
unsafe fn turn_pairs<S: Simd>(s: S, from: *const f32, rows: usize, width: usize, to: *mut f32) {
    for pair in 0..rows / 2 {
        let first = from.cast::<bf16>().wrapping_add(2 * pair * width);
        let mut i = 0;
        while i < width {
            // SAFETY: the caller's.
            unsafe {
                let pairs = s.pairs(s.load(first.add(i)), s.load(first.add(width + i)));
                s.store_pairs(to.add(pair * width + i).cast(), pairs);
            }
            i += S::LANES;
        }
    }
}

/// Writes `len` zeros; `len` is a multiple of `LANES`.
///
/// # Safety
/// They must be writable.
#[inline(always)]
unsafe fn zero<S: Simd>(s: S, to: *mut f32, len: usize) {
    let mut i = 0;
    while i < len {
        // SAFETY: the caller's.
        unsafe { s.store(to.add(i), s.zero()) };
        i += S::LANES;
    }
}

/// Writes `head_dim` elements, multiplied by `scale`.
///
/// # Safety
/// The padded number of elements must be readable, and `head_dim` elements writable.
#[inline(always)]
unsafe fn write_row<S: Simd>(s: S, from: *const f32, head_dim: usize, scale: f32, to: RowsMut, row: usize, col: usize) {
    let mut i = 0;
    while i < head_dim {
        // SAFETY: the caller's; the count stays within the head.
        unsafe {
            let x = s.mul(s.load(from.add(i)), s.splat(scale));
            to.store(s, row, col + i, x, S::LANES.min(head_dim - i));
        }
        i += S::LANES;
    }
}
