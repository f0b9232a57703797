//! The backward pass: one task per tree of segments and kv head, one pass over its blocks of keys.
//!
//! For every block of keys and every strip of queries that see it, the scores S = q·k and dP = d_out·v are made
//! again, and from them P = exp(S − lse) and dS = P · (dP − δ) with δ = Σ d_out·out; then d_v += Pᵀ·d_out,
//! d_k += dSᵀ·q and d_q += dS·k. One task owns all the gradients it adds to and takes blocks and strips in order, so that
//! no sum depends on the number of threads.
//!
//! Rows are taken six at a time, also beyond the last: P and dS are zero there, and the scratch has room.
//!
//! Read next: `ops/attention/mod.rs`.

use super::super::segments::{Segment, Tree, descends};
use super::{Rows, RowsMut, add_product, padded, product, transpose};
use crate::simd::{Kernel, Simd, exp};

/// Rows of one tile.
const TILE: usize = 6;
/// Keys in one block: whole tiles, whole vectors, and all that belongs to a block stays in the first-level cache.
const BLOCK: usize = 48;
/// Queries in one strip: whole tiles.
const STRIP: usize = 24;

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
pub(in super::super) struct Differentiate<'a> {
    pub of: &'a Passes<'a>,
    pub tree: &'a Tree,
    pub kv_head: usize,
    /// At least [`scratch_elements`] for this tree.
    pub scratch: *mut f32,
}

/// Elements of scratch for a tree of `rows` rows.
pub(in super::super) fn scratch_elements(rows: usize, group: usize, head_dim: usize) -> usize {
    let room = Room::new(std::ptr::null_mut(), rows * group, head_dim);
    room.end.addr() / size_of::<f32>()
}

/// Where things lie in the scratch.
#[derive(Clone, Copy)]
struct Room {
    /// Scaled queries, gradients of outputs and of queries, `[queries, padded D]`.
    q: *mut f32,
    d_out: *mut f32,
    d_q: *mut f32,
    /// Log-sum-exp and δ of each query.
    lse: *mut f32,
    delta: *mut f32,
    /// Of one block: keys by rows, keys and values by columns, gradients by rows.
    k: *mut f32,
    k_columns: *mut f32,
    v_columns: *mut f32,
    d_k: *mut f32,
    d_v: *mut f32,
    /// Of one strip: P and dS, `[STRIP, BLOCK]`.
    p: *mut f32,
    d_s: *mut f32,
    end: *mut f32,
    /// Queries, with those of the last tile that do not exist.
    queries: usize,
}

impl Room {
    fn new(start: *mut f32, queries: usize, head_dim: usize) -> Room {
        let mut next = start;
        let mut take = |elements: usize| {
            let here = next;
            next = next.wrapping_add(elements.next_multiple_of(16));
            here
        };
        let queries = queries + TILE;
        let (rows, block) = (queries * padded(head_dim), BLOCK * padded(head_dim));
        Room {
            q: take(rows),
            d_out: take(rows),
            d_q: take(rows),
            lse: take(queries),
            delta: take(queries),
            k: take(block),
            k_columns: take(block),
            v_columns: take(block),
            d_k: take(block),
            d_v: take(block),
            p: take(STRIP * BLOCK),
            d_s: take(STRIP * BLOCK),
            end: take(0),
            queries,
        }
    }
}

impl Kernel for Differentiate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: whoever makes this task points at matrices that hold the tree's rows and the heads, and it is the only
        // one that writes these rows of this kv head's gradients and this scratch.
        unsafe {
            let room = Room::new(self.scratch, self.tree.rows * self.of.group, self.of.head_dim);
            self.gather_queries(s, room);
            let (parts, mut first) = (&self.tree.segments, 0);
            for order in 0..parts.len() {
                let segment = self.of.segments[parts[order]];
                let mut start = 0;
                while start < segment.len {
                    let keys = BLOCK.min(segment.len - start);
                    self.open_block(s, room, segment.start + start, keys);
                    // Its own rows first, causally, and then those of its descendants.
                    let mut begin = first;
                    for later in order..parts.len() {
                        let end = begin + self.of.segments[parts[later]].len;
                        if later == order {
                            self.strips(s, room, begin + start, end, keys, true);
                        } else if descends(self.of.segments, parts[later], parts[order]) {
                            self.strips(s, room, begin, end, keys, false);
                        }
                        begin = end;
                    }
                    self.close_block(s, room, segment.start + start, keys);
                    start += BLOCK;
                }
                first += segment.len;
            }
            self.scatter_queries(s, room);
        }
    }
}

impl Differentiate<'_> {
    /// Copies the tree's queries and output gradients together, computes δ, zeros d_q.
    ///
    /// # Safety
    /// As in `run`; so below.
    #[inline(always)]
    unsafe fn gather_queries<S: Simd>(&self, s: S, room: Room) {
        let (d, width) = (self.of.head_dim, padded(self.of.head_dim));
        let mut query = 0;
        // SAFETY: rows and heads exist; the room holds every query of the tree and a tile more.
        unsafe {
            for part in 0..self.tree.segments.len() {
                let segment = self.of.segments[self.tree.segments[part]];
                for row in segment.start..segment.start + segment.len {
                    for head in self.kv_head * self.of.group..(self.kv_head + 1) * self.of.group {
                        let at = query * width;
                        self.of.q.widen(s, row, head * d, d, self.of.scale, room.q.add(at));
                        self.of.d_out.widen(s, row, head * d, d, 1.0, room.d_out.add(at));
                        let (mut delta, mut i) = (s.zero(), 0);
                        while i < d {
                            let out = self.of.out.load(s, row, head * d + i, S::LANES.min(d - i));
                            delta = s.fma(s.load(room.d_out.add(at + i)), out, delta);
                            i += S::LANES;
                        }
                        *room.delta.add(query) = s.reduce_add(delta);
                        *room.lse.add(query) = s.reduce_add(self.of.lse.load(s, row, head, 1));
                        query += 1;
                    }
                }
            }
            zero(s, room.d_q, query * width);
            zero(s, room.q.add(query * width), TILE * width);
            zero(s, room.d_out.add(query * width), TILE * width);
            zero(s, room.d_q.add(query * width), TILE * width);
            for i in query..room.queries {
                *room.delta.add(i) = 0.0;
                *room.lse.add(i) = 0.0;
            }
        }
    }

    /// Copies a block of keys and values, zeros its gradients.
    #[inline(always)]
    unsafe fn open_block<S: Simd>(&self, s: S, room: Room, row: usize, keys: usize) {
        let (d, width) = (self.of.head_dim, padded(self.of.head_dim));
        // SAFETY: the rows exist; the room holds a block. The keys' place serves the values first.
        unsafe {
            for j in 0..keys {
                self.of.v.widen(s, row + j, self.kv_head * d, d, 1.0, room.k.add(j * width));
            }
            transpose(room.k, width, keys, d, room.v_columns, BLOCK);
            for j in 0..keys {
                self.of.k.widen(s, row + j, self.kv_head * d, d, 1.0, room.k.add(j * width));
            }
            transpose(room.k, width, keys, d, room.k_columns, BLOCK);
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
            let count = STRIP.min(end - query);
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
        let (d, width) = (self.of.head_dim, padded(self.of.head_dim));
        let mut at = 0;
        // Whole tiles of keys are read below.
        while at < seen.next_multiple_of(TILE) {
            let (mut score, mut d_p) = ([[s.zero(); W]; TILE], [[s.zero(); W]; TILE]);
            // SAFETY: blocks and strips have `BLOCK` columns, a multiple of W·LANES.
            unsafe {
                product(s, d, room.q.add(query * width), (width, 1), room.k_columns.add(at), BLOCK, &mut score);
                product(s, d, room.d_out.add(query * width), (width, 1), room.v_columns.add(at), BLOCK, &mut d_p);
                for m in 0..TILE {
                    let (lse, delta) = (s.splat(*room.lse.add(query + m)), s.splat(*room.delta.add(query + m)));
                    for w in 0..W {
                        let column = at + w * S::LANES;
                        let mut p = exp(s, s.sub(score[m][w], lse));
                        let mut d_s = s.mul(p, s.sub(d_p[m][w], delta));
                        if column + S::LANES > visible[m] {
                            let mask = s.first(visible[m].saturating_sub(column));
                            p = s.select(mask, p, s.zero());
                            d_s = s.select(mask, d_s, s.zero());
                        }
                        s.store(room.p.add((i + m) * BLOCK + column), p);
                        s.store(room.d_s.add((i + m) * BLOCK + column), d_s);
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
        // SAFETY: whole tiles of rows lie in the room.
        unsafe {
            let sums = [
                (seen, count, room.p, (1, BLOCK), room.d_out.add(at), room.d_v),
                (seen, count, room.d_s, (1, BLOCK), room.q.add(at), room.d_k),
                (count, seen, room.d_s, (BLOCK, 1), room.k, room.d_q.add(at)),
            ];
            for sum in 0..sums.len() {
                let (rows, depth, a, a_strides, b, c) = sums[sum];
                let mut row = 0;
                while row < rows {
                    let (a, c) = (a.add(row * a_strides.0), c.add(row * width));
                    add_product::<S, f32, TILE, 2>(s, depth, a, a_strides, (b, width), (c, width), width);
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
            // SAFETY: the rows exist, and this task alone writes this head of them. The queries were scaled, so that
            // d_k already is.
            unsafe {
                write_row(s, room.d_k.add(j * width), d, 1.0, self.of.d_k, row + j, self.kv_head * d);
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
