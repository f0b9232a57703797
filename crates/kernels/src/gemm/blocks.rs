//! The loops around the tile: which task computes which part of the output, and in what order it reads the operands.
//!
//! ```text
//!     for each task: a row block by some panels            on all threads
//!         for each block of k                              between two blocks, the sums lie in memory as f32
//!             copy the block of A, if it must be copied    it stays in the L2 cache
//!             for each panel, or group of panels           its part of this depth stays in the nearest caches
//!                 for each tile of the row block           its sums are in registers
//!                     compute the tile; after the last block of k, finish it
//! ```
//!
//! A sum does not change when it is stored to memory as f32 and loaded again. So neither the blocks of k nor any other
//! cut in this file changes a result.
//!
//! Read next: `tests.rs`, which tests these equalities.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::pack::{BlockFromColumns, BlockFromRows};
use super::tile::{
    BLOCK_ROWS, BLOCK_WORDS, COLUMN_WORDS, Finish, PANEL, ROW_WORDS, TALLEST, Tile, panels_at_once, step_depth,
    step_words, tile_rows,
};
use crate::device::{Device, Isa, Queue};
use crate::dtype::{DType, Real};
use crate::scratch::Scratch;
use crate::simd::{prefetch, prefetch_to_write};

/// A product whose B is packed. It holds raw pointers, because its tasks write disjoint parts of one output.
pub(super) struct Product<T, O> {
    /// `[rows, depth]`; with `TRANSPOSED`, `[depth, rows]`.
    pub a: *const T,
    pub a_stride: usize,
    pub b: *const T,
    /// Number of elements from the start of one panel of B to the start of the next.
    pub panel_stride: usize,
    pub rows: usize,
    pub cols: usize,
    pub depth: usize,
    pub out: *mut O,
    pub out_stride: usize,
    /// Null, or `[cols]`.
    pub bias: *const f32,
    /// Null, or `[rows, cols]`.
    pub addend: *const f32,
    pub addend_stride: usize,
    /// Null, or the output itself: then the sums start from the values in the output.
    pub start: *const f32,
}

// SAFETY: the pointers are those of views, which are `Sync`, and each task writes its own part of the output.
unsafe impl<T, O> Sync for Product<T, O> {}

/// Memory of one thread, kept from one product to the next.
struct Workspace {
    /// A copied block of A.
    words: Scratch,
    /// The sums of a task, between blocks of k or before they are finished.
    sums: Scratch,
    /// The first row of each tile, and the end of the last one.
    tiles: Vec<usize>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace {
        words: Scratch::new(Device::Cpu),
        sums: Scratch::new(Device::Cpu),
        tiles: Vec::new(),
    });
}

/// Number of rows and of panels of one task.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    rows: usize,
    panels: usize,
}

/// Fewest rows of a row block, where there is a choice. With fewer rows, loading a panel of B into the L1 cache would
/// hardly pay.
const FEWEST_ROWS: usize = 48;
/// A task that takes less time than this costs more to hand out than it saves.
const SMALLEST_TASK_NS: usize = 2_000;
/// Number of 4-byte words in a page of memory.
const PAGE_WORDS: usize = 1024;

/// Chooses how to cut `rows × panels` into tasks. Each task takes some microseconds at least. There are several tasks
/// for each thread, so that a slow core does not delay the others. The choice never changes a result.
fn cut<T: Real>(isa: Isa, threads: usize, rows: usize, panels: usize, depth: usize) -> Cut {
    let tall = tile_rows(isa);
    // A deep product (more than one block of k) keeps its sums in memory between the blocks. The sums share the L2
    // cache with the block of A, so a task must not have too many panels. In other products, more panels per task only
    // mean that A is fetched less often.
    let deep = depth.div_ceil(step_depth::<T>()) * step_words::<T>(isa) > BLOCK_WORDS;
    let most = if rows <= 2 * tall || !deep { panels } else { 16 };
    let mut row_blocks = rows.div_ceil(BLOCK_ROWS / tall * tall);
    if deep || rows >= 4 * threads * FEWEST_ROWS {
        row_blocks = row_blocks.max((rows / FEWEST_ROWS).min(4 * threads));
    }
    if row_blocks >= 4 * threads {
        // There are enough rows for every thread. Use equal row blocks over as many panels as possible: this fetches A
        // least often.
        return Cut { rows: rows.div_ceil(row_blocks.next_multiple_of(threads)), panels: most };
    }
    // A conservative estimate of speed: 50 f32 multiply-adds per nanosecond, and 16 bytes of B per nanosecond.
    let operations_ns = rows * panels * PANEL * depth / 50;
    let bytes_ns = panels * PANEL * depth * size_of::<T>() / 16;
    let total_ns = operations_ns.max(bytes_ns);
    let wanted = if threads == 1 { 1 } else { (total_ns / SMALLEST_TASK_NS).clamp(1, 8 * threads) };
    let block_rows = rows.div_ceil(row_blocks).next_multiple_of(if rows > tall { tall } else { 1 }).min(rows);
    let at_once = panels_at_once(isa, block_rows);
    let block_panels = (panels * row_blocks).div_ceil(wanted).clamp(1, most).next_multiple_of(at_once);
    Cut { rows: block_rows, panels: block_panels }
}

impl<T: Real, O: Real> Product<T, O> {
    /// Computes the output.
    pub(super) fn run<const TRANSPOSED: bool>(&self, queue: &Queue) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let panels = self.cols.div_ceil(PANEL);
        let cut = cut::<T>(queue.isa(), queue.threads(), self.rows, panels, self.depth);
        let (across, down) = (panels.div_ceil(cut.panels), self.rows.div_ceil(cut.rows));
        queue.parallel(across * down, |task| {
            let (row, panel) = (task / across * cut.rows, task % across * cut.panels);
            let rows = row..(row + cut.rows).min(self.rows);
            let block = panel..(panel + cut.panels).min(panels);
            WORKSPACE.with_borrow_mut(|workspace| self.block::<TRANSPOSED>(queue.isa(), rows, block, workspace));
        });
    }

    fn block<const TRANSPOSED: bool>(
        &self,
        isa: Isa,
        rows: Range<usize>,
        panels: Range<usize>,
        workspace: &mut Workspace,
    ) {
        let (step, words) = (step_depth::<T>(), step_words::<T>(isa));
        let steps = self.depth.div_ceil(step);
        let blocks = steps.div_ceil(BLOCK_WORDS / words).max(1);
        let block_steps = steps.div_ceil(blocks);
        let tall = tile_rows(isa);
        let Workspace { words: block, sums, tiles } = workspace;

        // All tiles get nearly equal heights, because a last tile of one row would be slow.
        let count = rows.len().div_ceil(tall);
        tiles.clear();
        tiles.extend((0..=count).map(|t| t * rows.len() / count));

        let words_of_block = if TRANSPOSED { BLOCK_WORDS * COLUMN_WORDS } else { rows.len() * ROW_WORDS };
        let block = block.elements::<f32>(words_of_block).as_mut_ptr();
        let at_once = panels_at_once(isa, rows.len());
        // With one block of k, the sums need no memory of their own. If nothing is added or rounded, tiles write
        // directly to the output. Otherwise each tile is finished at once, while it is in the cache, and the next tile
        // uses the same memory.
        let plain = blocks == 1 && O::DTYPE == DType::F32 && self.bias.is_null() && self.addend.is_null();
        let room = if blocks == 1 { TALLEST * PANEL } else { rows.len() * PANEL };
        let places = if blocks == 1 { at_once } else { panels.len().next_multiple_of(at_once) };
        let sums = sums.elements::<f32>(places * room).as_mut_ptr();

        for b in 0..blocks {
            let first_step = b * block_steps;
            let depth = (block_steps * step).min(self.depth.saturating_sub(first_step * step));
            let steps = depth.div_ceil(step);
            let (a, a_stride) = self.block_of_a::<TRANSPOSED>(isa, &rows, first_step * step, depth, block);
            let mut panel = panels.start;
            while panel < panels.end {
                let group = if at_once <= panels.end - panel { at_once } else { 1 };
                let direct = plain && (panel + group) * PANEL <= self.cols;
                for (t, tile) in tiles.windows(2).enumerate() {
                    let offset = if TRANSPOSED { tile[0] } else { tile[0] * a_stride };
                    let part = Part { row: rows.start + tile[0], rows: tile[1] - tile[0], panel };
                    let from_zero = b == 0 && self.start.is_null();
                    let (c, c_row, c_panel) = if direct {
                        (self.output(&part).cast::<f32>(), self.out_stride, PANEL)
                    } else if blocks == 1 {
                        (sums, PANEL, room)
                    } else {
                        (sums.wrapping_add((panel - panels.start) * room + tile[0] * PANEL), PANEL, room)
                    };
                    if b + 1 == blocks && rows.len() > 2 * tall {
                        self.expect_output(&part);
                    }
                    if b == 0 && !from_zero && !direct {
                        for g in 0..group {
                            self.load_sums(&Part { panel: panel + g, ..part }, c.wrapping_add(g * c_panel));
                        }
                    }
                    if b + 1 < blocks {
                        let tile = (panel - panels.start) / at_once * count + t;
                        let parts = panels.len().div_ceil(at_once) * count;
                        self.expect_block::<TRANSPOSED>(&rows, (b + 1) * block_steps * step, depth, tile, parts);
                    }
                    let from = self.b.wrapping_add(panel * self.panel_stride + first_step * step * PANEL);
                    // A task of one tile prefetches its own panel, two kilobytes ahead. In a task of several tiles, the
                    // first two tiles prefetch one half each of the next panel; their own panel is in the cache
                    // already.
                    let (line, next) = (64 / size_of::<T>(), from.wrapping_add(self.panel_stride));
                    let (ahead, ahead_line, ahead_step) = match (tiles.len(), t) {
                        (2, _) => (from.wrapping_add(32 * line), line, 2 * line),
                        (_, 0) => (next, 0, line),
                        (_, 1) => (next.wrapping_add(steps * line), 0, line),
                        _ => (from, 0, line),
                    };
                    isa.run_on::<T, _>(Tile::<T, TRANSPOSED> {
                        a: a.wrapping_add(offset),
                        a_stride,
                        b: from,
                        ahead,
                        ahead_line,
                        ahead_step,
                        panel_stride: self.panel_stride,
                        panels: group,
                        steps,
                        rows: part.rows,
                        c,
                        c_row,
                        c_panel,
                        from_zero,
                    });
                    if b + 1 == blocks && !direct {
                        for g in 0..group {
                            self.finish(isa, &Part { panel: panel + g, ..part }, c.wrapping_add(g * c_panel));
                        }
                    }
                }
                panel += group;
            }
        }
    }

    /// Returns where tiles find a block of A as words, and how many words lie between two rows (with `TRANSPOSED`,
    /// between two steps). The block is read in A itself if A consists of such words and its rows do not lie a whole
    /// number of pages apart. Otherwise it is first copied to `to`.
    fn block_of_a<const TRANSPOSED: bool>(
        &self,
        isa: Isa,
        rows: &Range<usize>,
        k: usize,
        depth: usize,
        to: *mut f32,
    ) -> (*const f32, usize) {
        let (stride, step, rows, first) = (self.a_stride, step_depth::<T>(), rows.len(), rows.start);
        // Rows that lie a whole number of pages apart would compete for the same cache sets.
        let spread = !(stride / step).is_multiple_of(PAGE_WORDS);
        if TRANSPOSED {
            let from = self.a.wrapping_add(k * stride + first);
            if T::DTYPE == DType::F32 && spread {
                return (from.cast(), stride);
            }
            isa.run_on::<T, _>(BlockFromColumns { from, stride, rows, k: depth, to });
            return (to, COLUMN_WORDS);
        }
        let from = self.a.wrapping_add(first * stride + k);
        let whole_steps = depth.is_multiple_of(step) && stride.is_multiple_of(step);
        if step_words::<T>(isa) == 1 && whole_steps && spread && from.cast::<f32>().is_aligned() {
            return (from.cast(), stride / step);
        }
        isa.run_on::<T, _>(BlockFromRows { from, stride, rows, k: depth, to });
        (to, ROW_WORDS)
    }

    /// Prefetches part `part` of `parts` of the next block of A, so that it is in the cache when it is used.
    fn expect_block<const TRANSPOSED: bool>(
        &self,
        rows: &Range<usize>,
        k: usize,
        depth: usize,
        part: usize,
        parts: usize,
    ) {
        let depth = depth.min(self.depth - k);
        let (first, lines, len) = if TRANSPOSED {
            (k * self.a_stride + rows.start, depth, rows.len())
        } else {
            (rows.start * self.a_stride + k, rows.len(), depth)
        };
        for line in part * lines / parts..(part + 1) * lines / parts {
            let line = self.a.wrapping_add(first + line * self.a_stride);
            for at in (0..len).step_by(64 / size_of::<T>()) {
                prefetch(line.wrapping_add(at));
            }
        }
    }

    /// Where a part begins in the output.
    fn output(&self, part: &Part) -> *mut O {
        self.out.wrapping_add(part.row * self.out_stride + part.panel * PANEL)
    }

    /// Prefetches the cache lines of the output and of the addend that a tile will need. They arrive while it is
    /// computed.
    fn expect_output(&self, part: &Part) {
        for row in 0..part.rows {
            let line = self.output(part).wrapping_add(row * self.out_stride);
            for at in (0..PANEL).step_by(64 / size_of::<O>()) {
                prefetch_to_write(line.wrapping_add(at));
            }
            if !self.addend.is_null() {
                let line = self.addend.wrapping_add((part.row + row) * self.addend_stride + part.panel * PANEL);
                (0..PANEL).step_by(64 / size_of::<f32>()).for_each(|at| prefetch(line.wrapping_add(at)));
            }
        }
    }

    /// Loads the initial values of the sums from the output.
    fn load_sums(&self, part: &Part, c: *mut f32) {
        let cols = PANEL.min(self.cols - part.panel * PANEL);
        for i in 0..part.rows {
            // SAFETY: the part lies inside the output, and the sums have `part.rows` rows of `PANEL`.
            unsafe {
                let from = self.start.add((part.row + i) * self.out_stride + part.panel * PANEL);
                std::ptr::copy_nonoverlapping(from, c.add(i * PANEL), cols);
                std::ptr::write_bytes(c.add(i * PANEL + cols), 0, PANEL - cols);
            }
        }
    }

    fn finish(&self, isa: Isa, part: &Part, c: *const f32) {
        let column = part.panel * PANEL;
        let at = |x: *const f32, offset: usize| if x.is_null() { x } else { x.wrapping_add(offset) };
        isa.run_on::<O, _>(Finish {
            c,
            rows: part.rows,
            cols: PANEL.min(self.cols - column),
            out: self.output(part),
            out_stride: self.out_stride,
            bias: at(self.bias, column),
            addend: at(self.addend, part.row * self.addend_stride + column),
            addend_stride: self.addend_stride,
            life: PhantomData,
        });
    }
}

/// The output of one tile in one panel.
struct Part {
    row: usize,
    rows: usize,
    panel: usize,
}
