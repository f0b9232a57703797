//! AdamW on vectors.

use super::super::split::{load, store, sum4};
use crate::simd::{Kernel, Simd};

/// The step of the optimiser over `len` consecutive elements.
pub(super) struct Update {
    pub weight: *mut f32,
    pub gradient: *const f32,
    pub m: *mut f32,
    pub v: *mut f32,
    pub len: usize,
    pub numbers: Numbers,
}

/// The numbers of a step. They include the corrections of the moments' bias.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub gradient_scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// `lr / (1 − beta1^step)`.
    pub step_size: f32,
    /// `1 / √(1 − beta2^step)`.
    pub inverse_root: f32,
    /// `1 − lr · weight_decay`.
    pub decay: f32,
}

impl Kernel for Update {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.numbers;
        let (rest1, rest2) = (s.splat(1.0 - n.beta1), s.splat(1.0 - n.beta2));
        let mut i = 0;
        while i < self.len {
            let left = self.len - i;
            // SAFETY: the creator of this task gives `len` elements of each, which no other task writes.
            unsafe {
                let g = s.mul(load(s, self.gradient.add(i), left), s.splat(n.gradient_scale));
                let m = load(s, self.m.add(i), left);
                let m = s.fma(rest1, s.sub(g, m), m);
                let v = s.fma(s.mul(rest2, g), g, s.mul(s.splat(n.beta2), load(s, self.v.add(i), left)));
                let denominator = s.fma(s.sqrt(v), s.splat(n.inverse_root), s.splat(n.eps));
                let w = s.mul(load(s, self.weight.add(i), left), s.splat(n.decay));
                store(s, self.weight.add(i), s.neg_fma(s.splat(n.step_size), s.div(m, denominator), w), left);
                store(s, self.m.add(i), m, left);
                store(s, self.v.add(i), v, left);
            }
            i += S::LANES;
        }
    }
}

/// Σ x² over consecutive elements, in f32. Callers add the chunks in f64.
pub(super) struct Squares<'a>(pub &'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.zero(); 4];
        let (x, len, mut i) = (self.0.as_ptr(), self.0.len(), 0);
        while i < len {
            for lane in 0..4 {
                let at = (i + lane * S::LANES).min(len);
                // SAFETY: inside the slice.
                let x = unsafe { load(s, x.add(at), len - at) };
                sums[lane] = s.fma(x, x, sums[lane]);
            }
            i += 4 * S::LANES;
        }
        sum4(s, sums)
    }
}
