//! Divergences on vectors.

use std::ops::Range;

use super::super::super::split::{load, row_mut, store};
use super::super::cpu::{Row, add_softmax, sum_softmax};
use super::kind::Divergence;
use crate::simd::{Kernel, Simd, exp};
use crate::{View, ViewMut};

/// The divergences of a range of rows; see `divergence_rows`.
pub(super) struct Dense<'a, 'b> {
    pub student: View<'a, f32>,
    pub teacher: View<'a, f32>,
    pub kind: Divergence,
    pub temperature: f32,
    pub weight: &'a [f32],
    pub value: &'a ViewMut<'b, f32>,
    pub d_logits: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl Kernel for Dense<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in self.rows.start..self.rows.end {
            let rows = [Row::of(&self.teacher, i, self.temperature), Row::of(&self.student, i, self.temperature)];
            // SAFETY: rows have V columns, and no other task writes these rows.
            unsafe {
                let shifts = [rows[0].normaliser(s).0.logsumexp(), rows[1].normaliser(s).0.logsumexp()];
                let (own, teachers) = self.value(s, rows, shifts);
                *row_mut(self.value, 0).add(i) = own + teachers;
                let scale = self.weight[i] * rows[1].inverse_temperature;
                if scale != 0.0 {
                    self.gradient(s, rows, shifts, own, scale, row_mut(self.d_logits, i));
                }
            }
        }
    }
}

impl Dense<'_, '_> {
    /// Log-probabilities of teacher and student from `j` on.
    ///
    /// # Safety
    /// The rows must exist. The same holds for the methods below.
    #[inline(always)]
    unsafe fn logprobs<S: Simd>(&self, s: S, rows: [Row; 2], shifts: [f32; 2], j: usize) -> (S::F, S::F) {
        // SAFETY: the caller's.
        unsafe { (rows[0].shifted(s, j, shifts[0]), rows[1].shifted(s, j, shifts[1])) }
    }

    /// The divergence in two parts, the student's and the teacher's. The gradient needs the student's part alone.
    #[inline(always)]
    unsafe fn value<S: Simd>(&self, s: S, rows: [Row; 2], shifts: [f32; 2]) -> (f32, f32) {
        let (mut students, mut teachers) = ([s.zero(); 2], [s.zero(); 2]);
        let mut j = 0;
        while j < rows[0].len {
            for lane in 0..2 {
                // SAFETY: the caller's.
                let (p, q) = unsafe { self.logprobs(s, rows, shifts, j + lane * S::LANES) };
                match self.kind {
                    Divergence::ForwardKl => teachers[lane] = s.add(teachers[lane], weighted(s, p, q)),
                    Divergence::ReverseKl => students[lane] = s.add(students[lane], weighted(s, q, p)),
                    Divergence::Jsd { beta } => {
                        let m = mixture(s, p, q, beta);
                        teachers[lane] = s.add(teachers[lane], weighted(s, p, m));
                        students[lane] = s.add(students[lane], weighted(s, q, m));
                    }
                }
            }
            j += 2 * S::LANES;
        }
        let (students, teachers) =
            (s.reduce_add(s.add(students[0], students[1])), s.reduce_add(s.add(teachers[0], teachers[1])));
        match self.kind {
            Divergence::Jsd { beta } => ((1.0 - beta) * students, beta * teachers),
            _ => (students, teachers),
        }
    }

    /// Adds `scale` times the gradient with respect to the divided logits. `own` is the student's part of the value.
    #[inline(always)]
    unsafe fn gradient<S: Simd>(
        &self,
        s: S,
        rows: [Row; 2],
        shifts: [f32; 2],
        own: f32,
        scale: f32,
        d_logits: *mut f32,
    ) {
        let len = rows[0].len;
        let mut j = 0;
        while j < len {
            // SAFETY: the caller's; the count stays within the row.
            unsafe {
                let (log_p, log_q) = self.logprobs(s, rows, shifts, j);
                let (p, q) = (exp(s, log_p), exp(s, log_q));
                let (compared, share) = match self.kind {
                    Divergence::ForwardKl => (log_p, 1.0),
                    Divergence::ReverseKl => (log_p, 1.0),
                    Divergence::Jsd { beta } => (mixture(s, log_p, log_q, beta), 1.0 - beta),
                };
                let d = if self.kind == Divergence::ForwardKl {
                    s.sub(q, p)
                } else {
                    let excess = s.fma(s.splat(share), s.sub(log_q, compared), s.splat(-own));
                    s.select(s.lt(s.zero(), q), s.mul(q, excess), s.zero())
                };
                let to = d_logits.add(j);
                store(s, to, s.fma(d, s.splat(scale), load(s, to, len - j)), len - j);
            }
            j += S::LANES;
        }
    }
}

/// eᵃ·(a − b), and 0 if eᵃ is 0.
#[inline(always)]
fn weighted<S: Simd>(s: S, a: S::F, b: S::F) -> S::F {
    let weight = exp(s, a);
    s.select(s.lt(s.zero(), weight), s.mul(weight, s.sub(a, b)), s.zero())
}

/// ln(β·eᵖ + (1−β)·e^q).
#[inline(always)]
fn mixture<S: Simd>(s: S, p: S::F, q: S::F, beta: f32) -> S::F {
    let (p, q) = (s.add(p, s.splat(beta.ln())), s.add(q, s.splat((1.0 - beta).ln())));
    let high = s.max(p, q);
    s.add(high, ln_1p(s, exp(s, s.sub(s.min(p, q), high))))
}

/// ln(1 + t) for t in 0 ..= 1, computed as 2·artanh(t / (2 + t)). The argument is at most 1/3, where seven terms of the
/// series give a relative error below 1e-8.
#[inline(always)]
fn ln_1p<S: Simd>(s: S, t: S::F) -> S::F {
    let z = s.div(t, s.add(t, s.splat(2.0)));
    let square = s.mul(z, z);
    let mut series = s.splat(1.0 / 13.0);
    for power in [11.0, 9.0, 7.0, 5.0, 3.0, 1.0f32] {
        series = s.fma(series, square, s.splat(1.0 / power));
    }
    s.mul(s.add(z, z), series)
}

/// One row; see `sparse_forward_kl_rows`.
pub(super) struct Sparse<'a> {
    pub student: Row,
    /// The teacher's tokens in order of increasing id, with their log-probabilities.
    pub known: &'a [(u32, f32)],
    pub weight: f32,
    pub d_logits: *mut f32,
}

impl Kernel for Sparse<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (student, known) = (self.student, self.known);
        // SAFETY: the row has V columns, ids were checked, and no other task writes the row of gradients.
        unsafe {
            let (normaliser, _) = student.normaliser(s);
            let logsumexp = normaliser.logsumexp();
            let (mut value, mut mass, mut q_tail) = (0.0, 0.0, 0.0);
            for gap in 0..=known.len() {
                q_tail += sum_softmax(s, student, logsumexp, between(known, gap, student.len));
            }
            for i in 0..known.len() {
                let (id, log_p) = known[i];
                let p = scalar_exp(s, log_p);
                mass += p;
                if p > 0.0 {
                    value += p * (log_p - student.logprob(s, id as usize, normaliser));
                }
            }
            let p_tail = (1.0f32 - mass).max(0.0);
            let ratio = if p_tail > 0.0 && q_tail > 0.0 { p_tail / q_tail } else { 0.0 };
            if ratio > 0.0 {
                value += p_tail * ratio.ln();
            }
            let scale = self.weight * student.inverse_temperature;
            if scale != 0.0 {
                // The sum of the target probabilities of all tokens. It is 1, unless the tail was left out.
                let total = if ratio > 0.0 { mass + p_tail } else { mass };
                for gap in 0..=known.len() {
                    let range = between(known, gap, student.len);
                    add_softmax(s, student, logsumexp, scale * (total - ratio), self.d_logits, range);
                }
                for i in 0..known.len() {
                    let (id, log_p) = known[i];
                    let q = scalar_exp(s, student.logprob(s, id as usize, normaliser));
                    *self.d_logits.add(id as usize) += scale * (total * q - scalar_exp(s, log_p));
                }
            }
            value
        }
    }
}

/// The range of tokens in gap number `gap`: before the first known token, between two of them, or after the last.
fn between(known: &[(u32, f32)], gap: usize, len: usize) -> Range<usize> {
    let start = if gap == 0 { 0 } else { known[gap - 1].0 as usize + 1 };
    start..known.get(gap).map_or(len, |known| known.0 as usize)
}

#[inline(always)]
fn scalar_exp<S: Simd>(s: S, x: f32) -> f32 {
    s.reduce_max(exp(s, s.splat(x)))
}
