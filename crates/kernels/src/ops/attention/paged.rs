//! [`PagedCache`]: the keys and values of one layer in pages, and attention over them.
//!
//! A page holds [`KEY_BLOCK`] positions of one sequence, for all kv heads. The caller decides which pages a sequence
//! has, and when pages are shared or freed. It names them in page tables.
//!
//! # A page on the CPU
//! A page consists of one part per kv head, one after the other. Each part holds the keys, transposed, and then the
//! values. D' is D rounded up to a multiple of 16.
//!
//! ```text
//!     keys [D, 64]                       values [64, D']
//!     k0[0] k1[0] k2[0] …                v0[0] v0[1] v0[2] …      kp[i], vp[i]: coordinate i of the key or the
//!     k0[1] k1[1] k2[1] …                v1[0] v1[1] v1[2] …                    value of position p
//!     …                                  …
//! ```
//!
//! So a vector loaded from the keys holds one coordinate of consecutive positions. A vector loaded from the values
//! holds consecutive coordinates of one position.
//!
//! In bf16 each place in the figure holds a 4-byte word of two elements. A word of the keys holds two neighbouring
//! coordinates of one position. A word of the values holds one coordinate of two neighbouring positions:
//!
//! ```text
//!     keys [D / 2, 64] words                             values [32, D'] words
//!     k0[0] k0[1] │ k1[0] k1[1] │ k2[0] k2[1] │ …        v0[0] v1[0] │ v0[1] v1[1] │ v0[2] v1[2] │ …
//!     k0[2] k0[3] │ k1[2] k1[3] │ k2[2] k2[3] │ …        v2[0] v3[0] │ v2[1] v3[1] │ v2[2] v3[2] │ …
//!     …                                                  …
//! ```
//!
//! Read next: `cpu/mod.rs`.

use std::ops::Range;

use super::cpu::forward::Attention;
use super::cpu::{Pages, Rows, RowsMut, padded};
use super::limits::{KEY_BLOCK, MAX_HEAD_DIM};
use super::runs::{Run, attend, push_runs};
use crate::check::{expect, expect_below};
use crate::view::area;
use crate::{Buffer, Device, Queue, Real, View, ViewMut};

/// [`cache_write`] runs on all threads if it has at least this many elements of keys to write.
const WORTH_A_FORK: usize = 2048;

/// Keys and values of one layer, stored in the dtype in which training computes attention.
pub struct PagedCache<T: Real> {
    memory: Buffer<T>,
    pages: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl<T: Real> PagedCache<T> {
    /// A cache of `pages` pages of zeros.
    ///
    /// # Panics
    /// When `kv_heads` is 0, heads are longer than [`MAX_HEAD_DIM`], or the cache exceeds the address space.
    pub fn new(device: Device, pages: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!((1..=MAX_HEAD_DIM).contains(&head_dim), "a cache for heads of {head_dim}, not of 1 to {MAX_HEAD_DIM}");
        assert!(kv_heads > 0, "a cache without heads");
        let elements = area(pages, Self::page_bytes(kv_heads, head_dim) / size_of::<T>());
        Self { memory: Buffer::zeros(device, elements), pages, kv_heads, head_dim }
    }

    /// Size of one page, in bytes.
    pub fn page_bytes(kv_heads: usize, head_dim: usize) -> usize {
        area(Pages::of(std::ptr::null_mut::<T>(), kv_heads, head_dim).words(), size_of::<f32>())
    }

    /// Where the pages lie in memory. A caller that writes to them must hold the cache exclusively.
    fn layout(&self) -> Pages {
        Pages::of(self.memory.host().as_ptr().cast_mut(), self.kv_heads, self.head_dim)
    }
}

/// Stores keys and values in the cache. Row i goes to the page and the offset within the page that `slots[i]` names.
///
/// # Shapes
/// * `k`, `v`: `[R, K·D]`, any stride. `slots`: R pairs (page, offset). The slots of one page follow one another, in
///   order of increasing offset.
/// * `cache`: these places are overwritten.
///
/// In bf16 the values of offsets 2i and 2i + 1 share words. Writing offset 2i sets the other half to zero, so that a
/// page that is used again contains no old values. Therefore offset 2i + 1 must be written after offset 2i.
///
/// # Panics
/// When shapes disagree, a slot lies outside the cache, slots of one page do not follow one another, or their offsets
/// do not increase.
pub fn cache_write<T: Real>(queue: &Queue, k: View<T>, v: View<T>, slots: &[(u32, u32)], cache: &mut PagedCache<T>) {
    let (kv_heads, d) = (cache.kv_heads, cache.head_dim);
    expect(queue, "cache_write: k", &k, (slots.len(), kv_heads * d));
    expect(queue, "cache_write: v", &v, (slots.len(), kv_heads * d));
    for &(page, offset) in slots {
        let inside = (page as usize) < cache.pages && (offset as usize) < KEY_BLOCK;
        assert!(inside, "cache_write: slot ({page}, {offset}) of {} pages", cache.pages);
    }
    let in_order = slots.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1);
    assert!(in_order, "cache_write: offsets of one page in another order");
    let mut next = 0;
    let rows_of_page = |slots: &[(u32, u32)]| {
        next += slots.len();
        next - slots.len()..next
    };
    let groups: Vec<Range<usize>> = slots.chunk_by(|a, b| a.0 == b.0).map(rows_of_page).collect();
    let mut named: Vec<u32> = groups.iter().map(|rows| slots[rows.start].0).collect();
    named.sort_unstable();
    assert!(named.windows(2).all(|pair| pair[0] < pair[1]), "cache_write: rows of one page apart from each other");
    let pages = Pages::of(cache.memory.host_mut().as_mut_ptr(), kv_heads, d);
    let write = |group: usize| {
        for row in groups[group].clone() {
            let (page, offset) = slots[row];
            for head in 0..kv_heads {
                let (k, v) = (&k.row(row)[head * d..][..d], &v.row(row)[head * d..][..d]);
                // SAFETY: the slot lies inside the cache, which is borrowed exclusively. No other task writes to this
                // page.
                unsafe { write_key_and_value(k, v, pages.head(page as usize, head), offset as usize) };
            }
        }
    };
    // Few rows are not worth a job for all threads. With more rows, pages are divided among threads as attention
    // divides them when it reads them next.
    match slots.len() * kv_heads * d < WORTH_A_FORK {
        true => (0..groups.len()).for_each(write),
        false => queue.parallel(groups.len(), write),
    }
}

/// Writes the key and value of one head to position `offset` of the page part that begins at `keys` and `values`.
///
/// # Safety
/// `keys` and `values` must point to one head of a page of T that nobody else uses.
unsafe fn write_key_and_value<T: Real>(k: &[T], v: &[T], (keys, values): (*mut f32, *mut f32), offset: usize) {
    let depth = size_of::<f32>() / size_of::<T>();
    let (keys, values) = (keys.cast::<T>(), values.cast::<T>());
    for (i, word) in k.chunks(depth).enumerate() {
        for (j, k) in word.iter().enumerate() {
            // SAFETY: the caller's. The keys have room for D coordinates.
            unsafe { *keys.add((i * KEY_BLOCK + offset) * depth + j) = *k };
        }
    }
    let row = offset / depth * padded(v.len());
    for (i, v) in v.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            if offset.is_multiple_of(depth) {
                (1..depth).for_each(|next| *values.add((row + i) * depth + next) = T::default());
            }
            *values.add((row + i) * depth + offset % depth) = *v;
        }
    }
}

/// Copies a page. The caller does this before a sequence writes to a page that it shares with another sequence.
///
/// # Panics
/// When a page is outside the cache.
pub fn cache_copy_page<T: Real>(queue: &Queue, cache: &mut PagedCache<T>, from: u32, to: u32) {
    expect(queue, "cache_copy_page: cache", &cache.memory.view(), (1, cache.memory.len()));
    let (from, to) = (from as usize, to as usize);
    assert!(from < cache.pages && to < cache.pages, "cache_copy_page: {from} to {to} of {}", cache.pages);
    let elements = PagedCache::<T>::page_bytes(cache.kv_heads, cache.head_dim) / size_of::<T>();
    cache.memory.host_mut().copy_within(from * elements..(from + 1) * elements, to * elements);
}

/// One query of attention over the cache. It sees positions `0 ..= position` of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedRow {
    /// Index of its sequence's page table.
    pub sequence: usize,
    /// Its position. Keys and values up to and including this position are in the cache already.
    pub position: usize,
}

/// Attention over a paged cache. The results are equal, bit for bit, to those of [`super::attention_forward`] over the
/// same keys and values.
///
/// # Shapes
/// * `q`: `[R, H·D]`, any stride. `rows`: R. `tables`: for each sequence, its pages in order of position.
/// * `scale`: as in the forward pass. `out`: `[R, H·D]`, overwritten.
///
/// Consecutive rows of one sequence share one pass over its pages, and so do the query heads of one kv head.
///
/// # Panics
/// When shapes disagree, the scale is not positive, a table is too short for a position, or a table names a page
/// outside the cache.
pub fn attention_paged<T: Real>(
    queue: &Queue,
    q: View<T>,
    rows: &[PagedRow],
    tables: &[&[u32]],
    cache: &PagedCache<T>,
    head_dim: usize,
    scale: f32,
    out: ViewMut<T>,
) {
    assert_eq!(head_dim, cache.head_dim, "attention_paged: head_dim against the cache's");
    let width = cache.kv_heads * head_dim;
    let whole = q.cols() > 0 && q.cols().is_multiple_of(width);
    assert!(whole, "attention_paged: {} columns of q, {width} of k", q.cols());
    expect(queue, "attention_paged: q", &q, (rows.len(), q.cols()));
    expect(queue, "attention_paged: out", &out, q.shape());
    for (i, &PagedRow { sequence, position }) in rows.iter().enumerate() {
        assert!(sequence < tables.len(), "attention_paged: row {i} of sequence {sequence} of {}", tables.len());
        let pages = tables[sequence].len();
        let inside = position / KEY_BLOCK < pages && u32::try_from(position).is_ok();
        assert!(inside, "attention_paged: row {i} at position {position} of {pages} pages");
    }
    expect_below("attention_paged: page", tables.iter().copied().flatten(), cache.pages);
    let positions: Vec<u32> = rows.iter().map(|row| row.position as u32).collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    while start < rows.len() {
        let sequence = rows[start].sequence;
        let len = rows[start..].iter().take_while(|row| row.sequence == sequence).count();
        push_runs(&mut runs, start..start + len, tables[sequence]);
        start += len;
    }
    let (group, pages) = (q.cols() / width, cache.layout());
    let out = RowsMut::of(&out);
    attend::<T>(
        queue,
        &Attention { q: Rows::of(q), out, lse: None, positions: &positions, pages, group, scale },
        &runs,
    );
}
