//! How operations on rows cut their work into tasks, and how they read and write up to a vector at the end of a row.
//!
//! Tasks own whole rows, or whole columns where a sum runs over rows; so cutting never changes a result.

use std::ops::Range;

use crate::simd::Simd;
use crate::{Element, Queue, Real, View, ViewMut};

/// Elements in one task, about: some microseconds of work, so that a fork is worth its cost.
pub(super) const TASK_ELEMENTS: usize = 16 * 1024;

/// Columns in one task of a sum over rows: a few vectors, whole cache lines.
const TASK_COLUMNS: usize = 64;

/// Runs `task` for ranges that cover `rows` rows of `cols` columns.
pub(super) fn by_rows(queue: &Queue, rows: usize, cols: usize, task: impl Fn(Range<usize>) + Sync) {
    let block = (TASK_ELEMENTS / cols.max(1)).max(1);
    queue.parallel(rows.div_ceil(block), |i| task(i * block..rows.min((i + 1) * block)));
}

/// Runs `task` for ranges that cover `cols` columns, for sums over rows in order.
pub(super) fn by_columns(queue: &Queue, cols: usize, task: impl Fn(Range<usize>) + Sync) {
    queue.parallel(cols.div_ceil(TASK_COLUMNS), |i| task(i * TASK_COLUMNS..cols.min((i + 1) * TASK_COLUMNS)));
}

/// Runs `task` for (row, columns) that cover a matrix, for operations that treat each element alike.
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

/// Where row `i` of a matrix begins, for writing: tasks write disjoint elements.
#[inline(always)]
pub(super) fn row_mut<T: Element>(view: &ViewMut<T>, i: usize) -> *mut T {
    view.as_mut_ptr().wrapping_add(i * view.stride())
}

/// The next `left` elements, at most a vector of them; zero in the other lanes.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, T: Real>(s: S, from: *const T, left: usize) -> S::F {
    // SAFETY: the caller's.
    unsafe { if left >= S::LANES { s.load(from) } else { s.load_partial(from, left) } }
}

/// Writes the next `left` elements, at most a vector of them.
///
/// # Safety
/// They must be writable.
#[inline(always)]
pub(super) unsafe fn store<S: Simd, T: Real>(s: S, to: *mut T, x: S::F, left: usize) {
    // SAFETY: the caller's.
    unsafe { if left >= S::LANES { s.store(to, x) } else { s.store_partial(to, x, left) } }
}

/// Four accumulators, so that a sum along a row does not wait for each addition: `sum(a)` is their tree.
#[inline(always)]
pub(super) fn sum4<S: Simd>(s: S, a: [S::F; 4]) -> f32 {
    s.reduce_add(s.add(s.add(a[0], a[1]), s.add(a[2], a[3])))
}
