//! RMSNorm on vectors. Sums along a row use four accumulators in a fixed pattern.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store, sum4};
use crate::simd::{Kernel, Simd};
use crate::{Real, View, ViewMut};

/// The forward pass of a range of rows.
pub(super) struct Forward<'a, 'b, T: Real> {
    pub x: View<'a, f32>,
    pub weight: View<'a, f32>,
    pub eps: f32,
    pub out: &'a ViewMut<'b, T>,
    pub rstd: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Forward<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (c, weight) = (self.x.cols(), row(&self.weight, 0));
        for i in self.rows.start..self.rows.end {
            let (x, out) = (row(&self.x, i), row_mut(self.out, i));
            // SAFETY: rows have C columns, and no other task writes these rows.
            unsafe {
                let rstd = 1.0 / (squares(s, x, c) / c as f32 + self.eps).sqrt();
                *row_mut(self.rstd, 0).add(i) = rstd;
                let (scale, mut j) = (s.splat(rstd), 0);
                while j < c {
                    let normal = s.mul(load(s, x.add(j), c - j), scale);
                    store(s, out.add(j), s.mul(normal, load(s, weight.add(j), c - j)), c - j);
                    j += S::LANES;
                }
            }
        }
    }
}

/// Σ x² of a row.
///
/// # Safety
/// `c` elements must be readable.
#[inline(always)]
pub(in super::super) unsafe fn squares<S: Simd, T: Real>(s: S, x: *const T, c: usize) -> f32 {
    let mut sums = [s.zero(); 4];
    let mut j = 0;
    while j + 4 * S::LANES <= c {
        for lane in 0..4 {
            // SAFETY: the caller's.
            let x = unsafe { s.load(x.add(j + lane * S::LANES)) };
            sums[lane] = s.fma(x, x, sums[lane]);
        }
        j += 4 * S::LANES;
    }
    while j < c {
        // SAFETY: the caller's.
        let x = unsafe { load(s, x.add(j), c - j) };
        sums[0] = s.fma(x, x, sums[0]);
        j += S::LANES;
    }
    sum4(s, sums)
}

/// Σ d·w·x of a row.
///
/// # Safety
/// `c` elements of each must be readable.
#[inline(always)]
pub(in super::super) unsafe fn triple<S: Simd, T: Real>(
    s: S,
    d: *const f32,
    w: *const f32,
    x: *const T,
    c: usize,
) -> f32 {
    let mut sums = [s.zero(); 4];
    let mut j = 0;
    // SAFETY: the caller's.
    unsafe {
        while j + 4 * S::LANES <= c {
            for lane in 0..4 {
                let at = j + lane * S::LANES;
                sums[lane] = s.fma(s.mul(s.load(d.add(at)), s.load(w.add(at))), s.load(x.add(at)), sums[lane]);
            }
            j += 4 * S::LANES;
        }
        while j < c {
            let scaled = s.mul(load(s, d.add(j), c - j), load(s, w.add(j), c - j));
            sums[0] = s.fma(scaled, load(s, x.add(j), c - j), sums[0]);
            j += S::LANES;
        }
    }
    sum4(s, sums)
}

/// The gradient of x, for a range of rows.
pub(super) struct BackwardRows<'a, 'b> {
    pub x: View<'a, f32>,
    pub weight: View<'a, f32>,
    pub rstd: View<'a, f32>,
    pub d_out: View<'a, f32>,
    pub d_x: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl Kernel for BackwardRows<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (c, w) = (self.x.cols(), row(&self.weight, 0));
        for i in self.rows.start..self.rows.end {
            let (x, d, d_x) = (row(&self.x, i), row(&self.d_out, i), row_mut(self.d_x, i));
            // SAFETY: rows have C columns, and no other task writes these rows.
            unsafe {
                let rstd = *row(&self.rstd, 0).add(i);
                let along = triple(s, d, w, x, c) * rstd * rstd / c as f32;
                let (scale, along, mut j) = (s.splat(rstd), s.splat(along), 0);
                while j < c {
                    let scaled = s.mul(load(s, d.add(j), c - j), load(s, w.add(j), c - j));
                    let across = s.neg_fma(load(s, x.add(j), c - j), along, scaled);
                    store(s, d_x.add(j), s.fma(across, scale, load(s, d_x.add(j), c - j)), c - j);
                    j += S::LANES;
                }
            }
        }
    }
}

/// The gradient of the weight, for a range of columns, over all rows in order.
pub(super) struct BackwardColumns<'a, 'b> {
    pub x: View<'a, f32>,
    pub rstd: View<'a, f32>,
    pub d_out: View<'a, f32>,
    pub d_weight: &'a ViewMut<'b, f32>,
    pub cols: Range<usize>,
}

impl Kernel for BackwardColumns<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (rstd, mut j) = (row(&self.rstd, 0), self.cols.start);
        // SAFETY: rows have C columns, and no other task writes these columns.
        unsafe {
            while j + 4 * S::LANES <= self.cols.end {
                let to = row_mut(self.d_weight, 0).add(j);
                let mut sums = [s.zero(); 4];
                for lane in 0..4 {
                    sums[lane] = s.load(to.add(lane * S::LANES));
                }
                for i in 0..self.x.rows() {
                    let (x, d, scale) = (row(&self.x, i).add(j), row(&self.d_out, i).add(j), s.splat(*rstd.add(i)));
                    for lane in 0..4 {
                        let (x, d) = (s.load(x.add(lane * S::LANES)), s.load(d.add(lane * S::LANES)));
                        sums[lane] = s.fma(d, s.mul(x, scale), sums[lane]);
                    }
                }
                for lane in 0..4 {
                    s.store(to.add(lane * S::LANES), sums[lane]);
                }
                j += 4 * S::LANES;
            }
            while j < self.cols.end {
                let (to, left) = (row_mut(self.d_weight, 0).add(j), self.cols.end - j);
                let mut sum = load(s, to, left);
                for i in 0..self.x.rows() {
                    let (x, d) = (load(s, row(&self.x, i).add(j), left), load(s, row(&self.d_out, i).add(j), left));
                    sum = s.fma(d, s.mul(x, s.splat(*rstd.add(i))), sum);
                }
                store(s, to, sum, left);
                j += S::LANES;
            }
        }
    }
}
