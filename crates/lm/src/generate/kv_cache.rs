//! The paged cache of keys and values, and the count of holders of each page.
//!
//! A page holds the keys and values of one block of [`PAGE`] positions, in every layer. Such a block is also the unit
//! of attention's online softmax, in decoding as in training. Samples of one prompt share its full pages. They also
//! share the last page, which is partly filled, until one of them writes to it: that one gets a copy first.
//!
//! ```text
//!     two samples of a prompt of 100 tokens, after sample 0 has written position 100
//!
//!     sample 0: table [5, 12]     page 5:  positions 0 … 63, two holders
//!     sample 1: table [5, 9]      page 9:  positions 64 … 99
//!                                 page 12: a copy of page 9, and position 100 of sample 0
//! ```
//!
//! **Invariants.** A page with more than one holder is never written. A page without a holder is free. The first
//! `cached` positions of a sequence are in its pages in order: position `p` is row `p % PAGE` of page
//! `table[p / PAGE]`.
//!
//! Source: Kwon et al. 2023, arXiv 2309.06180 (PagedAttention).

use kernels::ops::attention::{KEY_BLOCK, PagedCache, cache_copy_page};
use kernels::{Queue, Real};

use crate::config::Config;
use crate::layer::Layer;

/// Number of positions in a page.
pub const PAGE: usize = KEY_BLOCK;

/// Keys and values of every layer, in pages.
pub struct KvCache<T: Real> {
    pub(crate) layers: Vec<PagedCache<T>>,
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl<T: Real> KvCache<T> {
    /// A cache of `pages` pages. Each page has memory in every layer.
    pub fn new(queue: &Queue, config: &Config, pages: usize) -> Self {
        let of_layer = |layer| Layer::cache(queue.device(), config, layer, pages);
        let layers = (0..config.num_hidden_layers).map(of_layer).collect();
        Self { layers, holders: vec![0; pages], free: (0..pages as u32).rev().collect() }
    }

    /// Size of one page over all layers, in bytes.
    pub fn page_bytes(config: &Config) -> usize {
        (0..config.num_hidden_layers).map(|layer| Layer::page_bytes::<T>(config, layer)).sum()
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.holders.len()
    }

    /// Number of pages without a holder.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Prepares `table` for writing positions `from … to`. It adds pages for positions beyond the table's end. If the
    /// first page to be written is shared, it is replaced by a copy.
    ///
    /// Returns `false` when the cache is full. The table then keeps the pages that it has gained so far.
    pub(crate) fn reserve(&mut self, queue: &Queue, table: &mut Vec<u32>, from: usize, to: usize) -> bool {
        if let Some(&page) = table.get(from / PAGE).filter(|&&page| self.holders[page as usize] > 1) {
            let Some(own) = self.take() else { return false };
            for layer in &mut self.layers {
                cache_copy_page(queue, layer, page, own);
            }
            self.holders[page as usize] -= 1;
            table[from / PAGE] = own;
        }
        while table.len() < to.div_ceil(PAGE) {
            let Some(page) = self.take() else { return false };
            table.push(page);
        }
        true
    }

    fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// Adds a holder to every page of `table`. Returns the new holder's table.
    pub(crate) fn share(&mut self, table: &[u32]) -> Vec<u32> {
        table.iter().for_each(|&page| self.holders[page as usize] += 1);
        table.to_vec()
    }

    /// Releases a holder's pages, and empties its table.
    pub(crate) fn release(&mut self, table: &mut Vec<u32>) {
        for page in table.drain(..) {
            self.holders[page as usize] -= 1;
            if self.holders[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }
}
