//! The paged cache of keys and values, and which sequence holds which page.
//!
//! A page is one key block of attention, in every layer: the unit that the softmax works through, in decode as in
//! training. Samples of one prompt share its full pages. The last page, which is partly filled, is copied by the first
//! of its holders that writes to it.
//!
//! **Invariants.** A page with more than one holder is never written. A page without a holder is free. Positions
//! `0 … cached` of a sequence are in its pages in order: position `p` is row `p % PAGE` of its page number `p / PAGE`.
//!
//! Source: Kwon et al. 2023, arXiv 2309.06180.

use kernels::ops::attention::{KEY_BLOCK, PagedCache, cache_copy_page};
use kernels::{Queue, Real};

use crate::config::Config;
use crate::layer::Layer;

/// Positions in a page.
pub const PAGE: usize = KEY_BLOCK;

/// Keys and values of every layer, in pages.
pub struct KvCache<T: Real> {
    pub(crate) layers: Vec<PagedCache<T>>,
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl<T: Real> KvCache<T> {
    /// A cache of `pages` pages, each with room for every layer.
    pub fn new(queue: &Queue, config: &Config, pages: usize) -> Self {
        let of_layer = |layer| Layer::cache(queue.device(), config, layer, pages);
        let layers = (0..config.num_hidden_layers).map(of_layer).collect();
        Self { layers, holders: vec![0; pages], free: (0..pages as u32).rev().collect() }
    }

    /// Bytes of one page, over all layers.
    pub fn page_bytes(config: &Config) -> usize {
        (0..config.num_hidden_layers).map(|layer| Layer::page_bytes::<T>(config, layer)).sum()
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.holders.len()
    }

    /// Pages without a holder.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Prepares `table` for writing positions `from … to`: adds pages for positions beyond its end, and replaces a shared
    /// page that would be written by a copy.
    ///
    /// Returns `false` when the cache is full; the table keeps the pages that it has gained.
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

    /// The same pages for another holder.
    pub(crate) fn share(&mut self, table: &[u32]) -> Vec<u32> {
        table.iter().for_each(|&page| self.holders[page as usize] += 1);
        table.to_vec()
    }

    /// Gives a holder's pages back, and empties its table.
    pub(crate) fn release(&mut self, table: &mut Vec<u32>) {
        for page in table.drain(..) {
            self.holders[page as usize] -= 1;
            if self.holders[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }
}
