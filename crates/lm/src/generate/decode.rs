//! One step of text generation: the decoder's forward pass over the cache.
//!
//! A row is one token at one position of one sequence. A prompt is many rows of one sequence; a decode step is one row
//! of each sequence. The pass is that of `forward.rs`, so a row's values equal those of a full forward pass, bit for
//! bit.

use kernels::ops::attention::PagedRow;
use kernels::{Queue, Real, Scratch};

use super::kv_cache::{KvCache, PAGE};
use crate::activations::Activations;
use crate::forward::{Rows, run};
use crate::layer::{Context, Paged};
use crate::model::Model;

/// The rows of one step.
#[derive(Default)]
pub(crate) struct StepRows {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    /// Sequence and position of each row, in the form that attention takes.
    places: Vec<PagedRow>,
}

impl StepRows {
    /// Appends a token of a sequence. `sequence` is an index into the page tables.
    pub fn push(&mut self, token: u32, sequence: usize, position: usize) {
        self.tokens.push(token);
        self.positions.push(position as u32);
        self.places.push(PagedRow { sequence, position });
    }
}

/// Runs the rows through the decoder, writes their keys and values to the cache, and leaves their hidden rows in
/// `activations`.
///
/// * `tables`: the pages of each sequence, in order of position.
///
/// # Panics
/// When the rows exceed the activations' capacity, or a sequence has too few pages.
pub(crate) fn step<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    rows: &StepRows,
    tables: &[&[u32]],
    cache: &mut KvCache<T>,
    activations: &mut Activations<T>,
    scratch: &mut Scratch,
) {
    let slot = |place: &PagedRow| (tables[place.sequence][place.position / PAGE], (place.position % PAGE) as u32);
    let slots: Vec<(u32, u32)> = rows.places.iter().map(slot).collect();
    let paged = Paged { rows: &rows.places, tables, slots: &slots, layers: &mut cache.layers };
    let rows = Rows { tokens: &rows.tokens, positions: &rows.positions };
    run(queue, model, rows, &mut Context::Paged(paged), activations, scratch);
}
