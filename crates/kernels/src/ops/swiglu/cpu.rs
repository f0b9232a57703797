//! SwiGLU on vectors.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store};
use crate::simd::{Kernel, Simd, exp};
use crate::{Real, View, ViewMut};

/// 1 / (1 + e^−x).
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// The forward pass of a range of rows.
pub(super) struct Forward<'a, 'b, T: Real> {
    pub gate_up: View<'a, T>,
    pub out: &'a ViewMut<'b, T>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Forward<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let f = self.out.cols();
        for i in self.rows.start..self.rows.end {
            let (from, to) = (row(&self.gate_up, i), row_mut(self.out, i));
            let mut j = 0;
            while j < f {
                // SAFETY: rows have 2F and F columns, and no other task writes these rows.
                unsafe {
                    let (gate, up) = (load(s, from.add(j), f - j), load(s, from.add(f + j), f - j));
                    store(s, to.add(j), s.mul(s.mul(gate, sigmoid(s, gate)), up), f - j);
                }
                j += S::LANES;
            }
        }
    }
}

/// The backward pass of a range of rows.
pub(super) struct Backward<'a, 'b, T: Real> {
    pub d_out: View<'a, f32>,
    pub gate_up: &'a ViewMut<'b, T>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Backward<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (f, one) = (self.d_out.cols(), s.splat(1.0));
        for i in self.rows.start..self.rows.end {
            let (d_out, both) = (row(&self.d_out, i), row_mut(self.gate_up, i));
            let mut j = 0;
            while j < f {
                let left = f - j;
                // SAFETY: rows have 2F and F columns, and no other task uses these rows of gates and ups.
                unsafe {
                    let (gate, up) = (load(s, both.add(j), left), load(s, both.add(f + j), left));
                    let (d, sigmoid) = (load(s, d_out.add(j), left), sigmoid(s, gate));
                    let slope = s.mul(sigmoid, s.fma(gate, s.sub(one, sigmoid), one));
                    store(s, both.add(j), s.mul(s.mul(d, up), slope), left);
                    store(s, both.add(f + j), s.mul(d, s.mul(gate, sigmoid)), left);
                }
                j += S::LANES;
            }
        }
    }
}
