//! Elementwise operations on vectors.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store};
use crate::simd::{Kernel, Simd};
use crate::{Real, View, ViewMut};

/// Converts part of a row, with rounding.
pub(super) struct Convert<'a, T> {
    pub x: &'a [f32],
    pub out: *mut T,
}

impl<T: Real> Kernel for Convert<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, len, mut i) = (self.x.as_ptr(), self.x.len(), 0);
        while i < len {
            // SAFETY: `out` has as many elements, which no other task writes.
            unsafe { store(s, self.out.add(i), load(s, x.add(i), len - i), len - i) };
            i += S::LANES;
        }
    }
}

/// Adds part of a row.
pub(super) struct Add<'a> {
    pub x: &'a [f32],
    pub y: *mut f32,
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, len, mut i) = (self.x.as_ptr(), self.x.len(), 0);
        while i < len {
            // SAFETY: `y` has as many elements, which no other task writes.
            unsafe {
                let sum = s.add(load(s, self.y.add(i), len - i), load(s, x.add(i), len - i));
                store(s, self.y.add(i), sum, len - i);
            }
            i += S::LANES;
        }
    }
}

/// The squared error of a range of rows.
pub(super) struct SquaredError<'a, 'b> {
    pub x: View<'a, f32>,
    pub target: View<'a, f32>,
    pub weight: &'a [f32],
    pub value: &'a ViewMut<'b, f32>,
    pub d_x: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl Kernel for SquaredError<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.x.cols();
        for i in self.rows.start..self.rows.end {
            let (x, target, d_x) = (row(&self.x, i), row(&self.target, i), row_mut(self.d_x, i));
            let scale = s.splat(self.weight[i] * 2.0 / c as f32);
            let (mut sum, mut j) = (s.zero(), 0);
            // SAFETY: rows have C columns, and no other task writes these rows.
            unsafe {
                while j < c {
                    let error = s.sub(load(s, x.add(j), c - j), load(s, target.add(j), c - j));
                    sum = s.fma(error, error, sum);
                    store(s, d_x.add(j), s.fma(error, scale, load(s, d_x.add(j), c - j)), c - j);
                    j += S::LANES;
                }
                *row_mut(self.value, 0).add(i) = s.reduce_add(sum) / c as f32;
            }
        }
    }
}
