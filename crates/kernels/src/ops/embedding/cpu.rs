//! Embedding on vectors.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store};
use crate::simd::{Kernel, Simd};
use crate::{Real, View, ViewMut};

/// The forward pass of a range of tokens.
pub(super) struct Forward<'a, 'b, T: Real> {
    pub tokens: &'a [u32],
    pub table: View<'a, T>,
    pub out: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Forward<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.table.cols();
        for i in self.rows.start..self.rows.end {
            let (from, to) = (row(&self.table, self.tokens[i] as usize), row_mut(self.out, i));
            let mut j = 0;
            while j < c {
                // SAFETY: tokens were checked, rows have C columns, and no other task writes these rows.
                unsafe { store(s, to.add(j), load(s, from.add(j), c - j), c - j) };
                j += S::LANES;
            }
        }
    }
}

/// The backward pass of a range of columns, over all tokens in order.
pub(super) struct Backward<'a, 'b> {
    pub tokens: &'a [u32],
    pub d_out: View<'a, f32>,
    pub d_table: &'a ViewMut<'b, f32>,
    pub cols: Range<usize>,
}

impl Kernel for Backward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let end = self.cols.end;
        for i in 0..self.tokens.len() {
            let (from, to) = (row(&self.d_out, i), row_mut(self.d_table, self.tokens[i] as usize));
            let mut j = self.cols.start;
            while j < end {
                // SAFETY: tokens were checked, rows have C columns, and no other task writes these columns.
                unsafe {
                    let sum = s.add(load(s, to.add(j), end - j), load(s, from.add(j), end - j));
                    store(s, to.add(j), sum, end - j);
                }
                j += S::LANES;
            }
        }
    }
}
