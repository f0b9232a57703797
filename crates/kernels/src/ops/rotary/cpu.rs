//! Rotary embedding on vectors. Each lane holds one pair.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store};
use crate::simd::{Kernel, Simd};
use crate::{Real, View, ViewMut};

/// Rotates a range of rows. `direction` is 1, or −1 for the inverse rotation.
pub(super) struct Rotate<'a, 'b, T: Real> {
    pub x: &'a ViewMut<'b, T>,
    pub positions: &'a [u32],
    pub cos_sin: View<'a, f32>,
    pub direction: f32,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Rotate<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.cos_sin.cols() / 2;
        let heads = self.x.cols() / self.cos_sin.cols();
        for i in self.rows.start..self.rows.end {
            let table = row(&self.cos_sin, self.positions[i] as usize);
            for head in 0..heads {
                let mut j = 0;
                while j < half {
                    let left = half - j;
                    // SAFETY: positions were checked, rows have heads·D columns, and no other task writes these rows.
                    unsafe {
                        let first = row_mut(self.x, i).add(head * 2 * half + j);
                        let second = first.add(half);
                        let (a, b) = (load(s, first, left), load(s, second, left));
                        let cos = load(s, table.add(j), left);
                        let sin = s.mul(load(s, table.add(half + j), left), s.splat(self.direction));
                        store(s, first, s.neg_fma(b, sin, s.mul(a, cos)), left);
                        store(s, second, s.fma(a, sin, s.mul(b, cos)), left);
                    }
                    j += S::LANES;
                }
            }
        }
    }
}
