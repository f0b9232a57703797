//! The backward pass: one task per tree of segments and kv head, one pass over its blocks of keys.
//!
//! For every block of keys and every strip of queries that see it, the scores S = q·k and dP = d_out·v are made
//! again, and from them P = exp(scale · S − lse) and dS = P · (dP − δ) with δ = Σ d_out·out; then d_v += Pᵀ·d_out,
//! d_k += dSᵀ·q and d_q += dS·k. One task owns all the gradients it adds to and takes blocks and strips in order, so that
//! no sum depends on the number of threads.
//!
//! Words are pairs for bf16 where `vdpbf16ps` exists (PAIRS). P, dS and d_out are then rounded to bf16, as FlashAttention does.
//! What is summed along the head and along rows exists in both orders.
//!
//! Rows are taken six at a time, also beyond the last: P and dS are zero there, and the scratch has room. Segments
//! begin at even rows of the scratch, so that pairs of rows stay together.
//!
//! Read next: `ops/attention/mod.rs`.

use super::super::segments::{Segment, Tree, descends};
use super::{Rows, RowsMut, add_product, padded, product, transpose};
use crate::bf16;
use crate::simd::{Kernel, Simd, exp};

/// Rows of one tile.
const TILE: usize = 6;
/// Keys in one block: whole tiles, whole vectors, and all that belongs to a block stays in the first-level cache.
const BLOCK: usize = 48;
/// Queries in one strip: whole tiles, and as many as make the sums over them long.
const STRIP: usize = 48;
/// The same where causality hides a part of the block: shorter, so that less is computed in vain.
const DIAGONAL_STRIP: usize = 24;
/// How many rows ahead of their copying rows are asked for.
const AHEAD: usize = 12;

/// What all tasks of one backward pass share; see `attention_backward`.
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

/// One tree and one kv head.
pub(in super::super) struct Differentiate<'a, const PAIRS: bool> {
    pub of: &'a Passes<'a>,
    pub tree: &'a Tree,
    pub kv_head: usize,
    /// At least [`scratch_elements`] for this tree.
    pub scratch: *mut f32,
}

/// Elements of scratch for a tree that takes `rows` rows.
pub(in super::super) fn scratch_elements(pairs: bool, rows: usize, group: usize, head_dim: usize) -> usize {
    let (start, queries) = (std::ptr::null_mut(), rows * group);
    let room =
        if pairs { Room::new::<true>(start, queries, head_dim) } else { Room::new::<false>(start, queries, head_dim) };
    room.end.addr() / size_of::<f32>()
}

/// Where things lie in the scratch. What is said to be in words along something has half as many there with PAIRS.
#[derive(Clone, Copy)]
struct Room {
    /// Queries and gradients of outputs, `[queries, padded D]`, in words along D.
    q: *mut f32,
    d_out: *mut f32,
    /// The same, in words along the queries.
    q_along: *mut f32,
    d_out_along: *mut f32,
    /// Gradients of queries, `[queries, padded D]`, f32.
    d_q: *mut f32,
    /// Log-sum-exp and δ of each query.
    lse: *mut f32,
    delta: *mut f32,
    /// Rows of keys or values, `[BLOCK, padded D]` in words along D, and keys in words along the keys.
    rows: *mut f32,
    k_along: *mut f32,
    /// Keys and values by columns, `[padded D, BLOCK]`, in words along D.
    k_columns: *mut f32,
    v_columns: *mut f32,
    /// Gradients of keys and values by rows, f32.
    d_k: *mut f32,
    d_v: *mut f32,
    /// Of one strip: P and dS, `[STRIP, BLOCK]`, in words along the queries, and dS in words along the keys.
    p: *mut f32,
    d_s: *mut f32,
    d_s_along: *mut f32,
    end: *mut f32,
    /// Queries, with those of the last tile that do not exist.
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
        // A word of one element is its neighbour's along any sum.
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
        // SAFETY: whoever makes this task points at matrices that hold the tree's rows and the heads, and it is the only
        // one that writes these rows of this kv head's gradients and this scratch.
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
                    // Its own rows first, causally, and then those of its descendants.
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
    /// Elements in a word.
    const DEPTH: usize = if PAIRS { 2 } else { 1 };

    /// Copies the tree's queries and output gradients together, computes δ, zeros d_q.
    ///
    /// # Safety
    /// As in `run`; so below.
    #[inline(always)]
    unsafe fn gather_queries<S: Simd>(&self, s: S, room: Room) {
        let (d, words) = (self.of.head_dim, padded(self.of.head_dim) / Self::DEPTH);
        let mut query = 0;
        // SAFETY: rows and heads exist; the room holds every query of the tree and a tile more.
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

    /// Makes queries that do not exist zero.
    #[inline(always)]
    unsafe fn clear_queries<S: Simd>(&self, s: S, room: Room, from: usize, to: usize) {
        let words = padded(self.of.head_dim) / Self::DEPTH;
        for query in from..to {
            let mut i = 0;
            // SAFETY: the room holds them. Words of a row may be half a vector.
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

    /// Copies a row of one head, in words along D.
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

    /// Copies a block of keys and values, zeros its gradients.
    #[inline(always)]
    unsafe fn open_block<S: Simd>(&self, s: S, room: Room, row: usize, keys: usize) {
        let width = padded(self.of.head_dim);
        let words = width / Self::DEPTH;
        // SAFETY: the rows exist; the room holds a block. The keys' place serves the values first.
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
                // The last key's neighbour, whose dS is zero, must be a number.
                for i in 0..words * (keys % 2) {
                    *room.rows.add(keys * words + i) = 0.0;
                }
                turn_pairs(s, room.rows, keys.next_multiple_of(2), width, room.k_along);
            }
            zero(s, room.d_k, BLOCK * width);
            zero(s, room.d_v, BLOCK * width);
        }
    }

    /// Goes through the queries of rows `from .. to` of the tree, in strips. When `causal`, key j is seen from row
    /// `from + j` on.
    #[inline(always)]
    unsafe fn strips<S: Simd>(&self, s: S, room: Room, from: usize, to: usize, keys: usize, causal: bool) {
        let group = self.of.group;
        let (start, end) = (from * group, to * group);
        let mut query = start;
        while query < end {
            let hidden = causal && query - start < keys * group;
            let most = if hidden { DIAGONAL_STRIP } else { STRIP };
            let count = most.min(end - query);
            // The keys that the strip's last query sees.
            let last = (query + count - 1) / group - from;
            let seen = if causal { keys.min(last + 1) } else { keys };
            // SAFETY: `count` queries from `query` lie in the room, `seen` keys in the block.
            unsafe {
                let mut i = 0;
                while i < count {
                    // How many keys each query of the tile sees; none, if it does not exist.
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

    /// P and dS of one tile, `i` queries into the strip.
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
        // Whole tiles of keys are read below.
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

    /// Adds one strip's part to d_v, d_k and d_q.
    #[inline(always)]
    unsafe fn accumulate<S: Simd>(&self, s: S, room: Room, query: usize, count: usize, seen: usize) {
        let width = padded(self.of.head_dim);
        let at = query * width;
        let (queries, keys) = (count.div_ceil(Self::DEPTH), seen.div_ceil(Self::DEPTH));
        // SAFETY: whole tiles of rows lie in the room.
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

    /// Writes a block's gradients out.
    #[inline(always)]
    unsafe fn close_block<S: Simd>(&self, s: S, room: Room, row: usize, keys: usize) {
        let (d, width) = (self.of.head_dim, padded(self.of.head_dim));
        for j in 0..keys {
            // SAFETY: the rows exist, and this task alone writes this head of them.
            unsafe {
                write_row(s, room.d_k.add(j * width), d, self.of.scale, self.of.d_k, row + j, self.kv_head * d);
                write_row(s, room.d_v.add(j * width), d, 1.0, self.of.d_v, row + j, self.kv_head * d);
            }
        }
    }

    /// Writes the gradients of queries out.
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

/// From rows in words along `width` to words along the rows, an even number of them.
///
/// # Safety
/// They must be readable, and their places writable.
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

/// Zeros, a multiple of `LANES` of them.
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

/// Writes `head_dim` elements, times `scale`.
///
/// # Safety
/// The padded number must be readable, and `head_dim` elements writable.
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
