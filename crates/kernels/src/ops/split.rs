//! How operations on rows cut their work into tasks, and how they load and store the last elements of a row.
//!
//! A task takes whole rows. If a sum runs over rows, it takes whole columns. So the cut never changes a result.

use std::ops::Range;

use crate::simd::Simd;
use crate::{Element, Queue, Real, View, ViewMut};

/// About how many elements a task has: some microseconds of work, so that it is worth the cost of handing it out.
pub(super) const TASK_ELEMENTS: usize = 16 * 1024;

/// Columns in one task of a sum over rows: a few vectors, which fill whole cache lines.
const TASK_COLUMNS: usize = 64;

/// Runs `task` for ranges of rows that cover `rows` rows of `cols` columns.
pub(super) fn by_rows(queue: &Queue, rows: usize, cols: usize, task: impl Fn(Range<usize>) + Sync) {
    let block = (TASK_ELEMENTS / cols.max(1)).max(1);
    queue.parallel(rows.div_ceil(block), |i| task(i * block..rows.min((i + 1) * block)));
}

/// Runs `task` for ranges of columns that cover `cols` columns. Such a task can sum over rows in order.
pub(super) fn by_columns(queue: &Queue, cols: usize, task: impl Fn(Range<usize>) + Sync) {
    queue.parallel(cols.div_ceil(TASK_COLUMNS), |i| task(i * TASK_COLUMNS..cols.min((i + 1) * TASK_COLUMNS)));
}

/// Runs `task` for pairs (row, columns) that cover a matrix. It is for operations that treat all elements alike.
pub(super) fn by_elements(queue: &Queue, rows: usize, cols: usize, task: impl Fn(usize, Range<usize>) + Sync) {
    let blocks = cols.div_ceil(TASK_ELEMENTS);
    queue.parallel(rows * blocks, |i| {
        let (row, block) = (i / blocks, i % blocks);
        task(row, block * TASK_ELEMENTS..cols.min((block + 1) * TASK_ELEMENTS));
    });
}

/// Where row `i` of a matrix begins.
#[inline(always)]
pub(super) fn row<T: Element>(view: &View<T>, i: usize) -> *const T {
    view.as_ptr().wrapping_add(i * view.stride())
}

/// Where row `i` of a matrix begins, for writing. Tasks write disjoint elements.
#[inline(always)]
pub(super) fn row_mut<T: Element>(view: &ViewMut<T>, i: usize) -> *mut T {
    view.as_mut_ptr().wrapping_add(i * view.stride())
}

/// Loads a vector, or only `left` elements if fewer are left than a vector holds; the other lanes are then zero.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, T: Real>(s: S, from: *const T, left: usize) -> S::F {
    // SAFETY: the caller's.
    unsafe { if left >= S::LANES { s.load(from) } else { s.load_partial(from, left) } }
}

/// Stores a vector, or only its first `left` lanes if fewer are left than a vector holds.
///
/// # Safety
/// They must be writable.
#[inline(always)]
pub(super) unsafe fn store<S: Simd, T: Real>(s: S, to: *mut T, x: S::F, left: usize) {
    // SAFETY: the caller's.
    unsafe { if left >= S::LANES { s.store(to, x) } else { s.store_partial(to, x, left) } }
}

/// The total of four accumulators, added as a tree. A sum along a row uses four accumulators, so that an addition need
/// not wait for the one before it.
#[inline(always)]
pub(super) fn sum4<S: Simd>(s: S, a: [S::F; 4]) -> f32 {
    s.reduce_add(s.add(s.add(a[0], a[1]), s.add(a[2], a[3])))
}
