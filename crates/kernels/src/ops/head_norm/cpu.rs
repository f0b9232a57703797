//! RMSNorm of heads on vectors.

use std::ops::Range;

use super::super::rmsnorm::{squares, triple};
use super::super::split::{load, row, row_mut, store};
use crate::simd::{Kernel, Simd};
use crate::{Real, View, ViewMut};

/// The forward pass of a range of rows.
pub(super) struct Forward<'a, 'b, T: Real> {
    pub x: View<'a, T>,
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
        let (d, weight) = (self.weight.cols(), row(&self.weight, 0));
        for i in self.rows.start..self.rows.end {
            for head in 0..self.rstd.cols() {
                // SAFETY: rows have heads·D columns, and no other task writes these rows.
                unsafe {
                    let (x, out) = (row(&self.x, i).add(head * d), row_mut(self.out, i).add(head * d));
                    let rstd = 1.0 / (squares(s, x, d) / d as f32 + self.eps).sqrt();
                    *row_mut(self.rstd, i).add(head) = rstd;
                    let (scale, mut j) = (s.splat(rstd), 0);
                    while j < d {
                        let normal = s.mul(load(s, x.add(j), d - j), scale);
                        store(s, out.add(j), s.mul(normal, load(s, weight.add(j), d - j)), d - j);
                        j += S::LANES;
                    }
                }
            }
        }
    }
}

/// Replaces the gradient of the output with that of x, for a range of rows.
pub(super) struct BackwardRows<'a, 'b, T: Real> {
    pub x: View<'a, T>,
    pub weight: View<'a, f32>,
    pub rstd: View<'a, f32>,
    pub d: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for BackwardRows<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, w) = (self.weight.cols(), row(&self.weight, 0));
        for i in self.rows.start..self.rows.end {
            for head in 0..self.rstd.cols() {
                // SAFETY: rows have heads·D columns, and no other task writes these rows.
                unsafe {
                    let (x, d) = (row(&self.x, i).add(head * width), row_mut(self.d, i).add(head * width));
                    let rstd = *row(&self.rstd, i).add(head);
                    let along = triple(s, d, w, x, width) * rstd * rstd / width as f32;
                    let (scale, along, mut j) = (s.splat(rstd), s.splat(along), 0);
                    while j < width {
                        let left = width - j;
                        let scaled = s.mul(load(s, d.add(j), left), load(s, w.add(j), left));
                        let across = s.neg_fma(load(s, x.add(j), left), along, scaled);
                        store(s, d.add(j), s.mul(across, scale), left);
                        j += S::LANES;
                    }
                }
            }
        }
    }
}

/// The gradient of the weight, for a range of its columns, over all rows and heads in order.
pub(super) struct BackwardColumns<'a, 'b, T: Real> {
    pub x: View<'a, T>,
    pub rstd: View<'a, f32>,
    pub d: View<'a, f32>,
    pub d_weight: &'a ViewMut<'b, f32>,
    pub cols: Range<usize>,
}

impl<T: Real> Kernel for BackwardColumns<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, mut j) = (self.d_weight.cols(), self.cols.start);
        while j < self.cols.end {
            // SAFETY: rows have heads·D columns, and no other task writes these columns.
            unsafe {
                let (to, left) = (row_mut(self.d_weight, 0).add(j), self.cols.end - j);
                let mut sum = load(s, to, left);
                for i in 0..self.x.rows() {
                    for head in 0..self.rstd.cols() {
                        let at = head * width + j;
                        let x = load(s, row(&self.x, i).add(at), left);
                        let scale = s.splat(*row(&self.rstd, i).add(head));
                        sum = s.fma(load(s, row(&self.d, i).add(at), left), s.mul(x, scale), sum);
                    }
                }
                store(s, to, sum, left);
            }
            j += S::LANES;
        }
    }
}
