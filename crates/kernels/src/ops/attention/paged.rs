//! [`PagedCache`]: the keys and values of one layer in pages, and attention over them.
//!
//! A page holds [`KEY_BLOCK`] positions of one sequence, for all kv heads. Which pages a sequence has, and when they are
//! shared or freed, is the caller's business. In a page each head's keys lie transposed (`[D, KEY_BLOCK]`), so that one
//! vector holds the same coordinate of consecutive keys; its values lie as `[KEY_BLOCK, D]`, D padded to 16.
//!
//! Read next: `ops/attention/mod.rs`.

use super::{KEY_BLOCK, attend_row};
use crate::{Buffer, Device, Queue, Real, Scratch, View, ViewMut};

/// Keys and values of one layer, stored in the dtype that training attends over.
pub struct PagedCache<T: Real> {
    memory: Buffer<T>,
    pages: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Columns of a row of values: D padded to a multiple of 16.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

impl<T: Real> PagedCache<T> {
    /// `pages` pages of zeros.
    pub fn new(device: Device, pages: usize, kv_heads: usize, head_dim: usize) -> Self {
        let elements = Self::page_elements(kv_heads, head_dim);
        Self { memory: Buffer::zeros(device, pages * elements), pages, kv_heads, head_dim }
    }

    fn page_elements(kv_heads: usize, head_dim: usize) -> usize {
        kv_heads * KEY_BLOCK * (head_dim + padded(head_dim))
    }

    /// Size of one page in memory.
    pub fn page_bytes(kv_heads: usize, head_dim: usize) -> usize {
        Self::page_elements(kv_heads, head_dim) * size_of::<T>()
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Number of kv heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// D.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Size in memory.
    pub fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// Where the keys and the values of one head of one page begin.
    fn head(&self, page: usize, kv_head: usize) -> (usize, usize) {
        let page = page * Self::page_elements(self.kv_heads, self.head_dim);
        let keys = page + kv_head * KEY_BLOCK * self.head_dim;
        let values = page + KEY_BLOCK * (self.kv_heads * self.head_dim + kv_head * padded(self.head_dim));
        (keys, values)
    }
}

/// Stores keys and values: row i goes to the page and the offset within it that `slots[i]` names.
///
/// # Shapes
/// * `k`, `v`: `[R, K·D]`, any stride; `slots`: R pairs (page, offset); `cache`: those places overwritten.
///
/// # Panics
/// When shapes disagree or a slot is outside the cache.
pub fn cache_write<T: Real>(queue: &Queue, k: View<T>, v: View<T>, slots: &[(u32, u32)], cache: &mut PagedCache<T>) {
    let _ = queue;
    let (kv_heads, d) = (cache.kv_heads, cache.head_dim);
    assert_eq!((k.rows(), k.cols()), (slots.len(), kv_heads * d), "cache_write: k against slots and cache");
    assert_eq!((v.rows(), v.cols()), (slots.len(), kv_heads * d), "cache_write: v against slots and cache");
    for (i, &(page, offset)) in slots.iter().enumerate() {
        let (page, offset) = (page as usize, offset as usize);
        assert!(page < cache.pages && offset < KEY_BLOCK, "cache_write: slot ({page}, {offset}) of {}", cache.pages);
        for head in 0..kv_heads {
            let (keys, values) = cache.head(page, head);
            for j in 0..d {
                cache.memory.host_mut()[keys + j * KEY_BLOCK + offset] = k.row(i)[head * d + j];
                cache.memory.host_mut()[values + offset * padded(d) + j] = v.row(i)[head * d + j];
            }
        }
    }
}

/// Copies a page: what a sequence does before it writes into a page that it shares with another.
///
/// # Panics
/// When a page is outside the cache.
pub fn cache_copy_page<T: Real>(queue: &Queue, cache: &mut PagedCache<T>, from: u32, to: u32) {
    let _ = queue;
    let (from, to) = (from as usize, to as usize);
    assert!(from < cache.pages && to < cache.pages, "cache_copy_page: {from} to {to} of {}", cache.pages);
    let elements = PagedCache::<T>::page_elements(cache.kv_heads, cache.head_dim);
    cache.memory.host_mut().copy_within(from * elements..(from + 1) * elements, to * elements);
}

/// A row of queries over the cache: it sees positions `0 ..= position` of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedRow {
    /// Index of its page table.
    pub sequence: usize,
    /// Its position; keys and values up to it are already in the cache.
    pub position: usize,
}

/// Attends over a paged cache: bit-equal to [`super::attention_forward`] over the same keys and values.
///
/// # Shapes
/// * `q`: `[R, H·D]`, any stride; `rows`: R; `tables`: for each sequence, its pages in order of position.
/// * `scale` as in the forward pass; `out`: `[R, H·D]`, overwritten.
///
/// Consecutive rows of one sequence share the pass over its pages, as do the query heads of one kv head.
///
/// # Panics
/// When shapes disagree, or a table is too short for a position or names a page outside the cache.
pub fn attention_paged<T: Real>(
    queue: &Queue,
    q: View<T>,
    rows: &[PagedRow],
    tables: &[&[u32]],
    cache: &PagedCache<T>,
    head_dim: usize,
    scale: f32,
    out: ViewMut<T>,
    scratch: &mut Scratch,
) {
    let mut out = out;
    let _ = (queue, scratch);
    assert_eq!(head_dim, cache.head_dim, "attention_paged: head_dim against the cache's");
    assert_eq!((q.rows(), q.cols()), (out.rows(), out.cols()), "attention_paged: q against out");
    assert_eq!(q.rows(), rows.len(), "attention_paged: rows of q against rows");
    let kv_heads = cache.kv_heads;
    assert!(q.cols().is_multiple_of(kv_heads * head_dim), "attention_paged: {} columns of q", q.cols());
    let group = q.cols() / (kv_heads * head_dim);
    let memory = cache.memory.host();
    for (i, row) in rows.iter().enumerate() {
        let table = tables[row.sequence];
        assert!(row.position < table.len() * KEY_BLOCK, "attention_paged: row {i} is beyond its pages");
        for head in 0..kv_heads * group {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for position in 0..=row.position {
                let (at_keys, at_values) = cache.head(table[position / KEY_BLOCK] as usize, head / group);
                let offset = position % KEY_BLOCK;
                keys.push((0..head_dim).map(|j| memory[at_keys + j * KEY_BLOCK + offset]).collect::<Vec<T>>());
                values.push(&memory[at_values + offset * padded(head_dim)..][..head_dim]);
            }
            let keys: Vec<&[T]> = keys.iter().map(|k| &k[..]).collect();
            let q = &q.row(i)[head * head_dim..][..head_dim];
            attend_row(q, &keys, &values, scale, &mut out.row_mut(i)[head * head_dim..][..head_dim]);
        }
    }
}
