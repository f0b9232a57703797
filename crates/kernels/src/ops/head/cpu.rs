//! Rows of logits on vectors. Sums along a row use four accumulators in a fixed pattern. Lanes past the end of a row
//! hold a logit of −∞, whose weight is zero.

use std::ops::Range;

use super::super::split::{load, row, row_mut, store, sum4};
use crate::simd::{Kernel, Simd, exp};
use crate::{Real, View, ViewMut};

/// Replaces −∞ where it is multiplied by a weight of zero, because 0 · −∞ would be NaN.
const FAR_BELOW: f32 = -1e30;

/// One row of logits, and the temperature that divides them.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub start: *const f32,
    pub len: usize,
    pub inverse_temperature: f32,
}

/// The two numbers that log-softmax subtracts from a divided logit: the greatest one, and the logarithm of the sum.
#[derive(Clone, Copy)]
pub(super) struct Normaliser {
    pub greatest: f32,
    pub log_sum: f32,
}

impl Row {
    pub fn of(logits: &View<f32>, i: usize, temperature: f32) -> Row {
        Row { start: row(logits, i), len: logits.cols(), inverse_temperature: 1.0 / temperature }
    }

    /// The logits from `at` on, not divided by the temperature.
    ///
    /// # Safety
    /// The row must be readable. The same holds for the methods below.
    #[inline(always)]
    pub unsafe fn raw<S: Simd>(self, s: S, at: usize) -> S::F {
        let left = self.len.saturating_sub(at);
        // SAFETY: it loads no more than is left of the row.
        unsafe {
            if left >= S::LANES {
                return s.load(self.start.add(at));
            }
            let x = s.load_partial(self.start.add(at.min(self.len)), left);
            s.select(s.first(left), x, s.splat(f32::NEG_INFINITY))
        }
    }

    /// The divided logits from `at` on, minus `shift`.
    #[inline(always)]
    pub unsafe fn shifted<S: Simd>(self, s: S, at: usize, shift: f32) -> S::F {
        // SAFETY: the caller's.
        unsafe { s.fma(self.raw(s, at), s.splat(self.inverse_temperature), s.splat(-shift)) }
    }

    /// The greatest divided logit.
    #[inline(always)]
    unsafe fn greatest<S: Simd>(self, s: S) -> f32 {
        let mut greatest = [s.splat(f32::NEG_INFINITY); 4];
        let mut j = 0;
        while j < self.len {
            for lane in 0..4 {
                // SAFETY: the caller's.
                greatest[lane] = s.max(greatest[lane], unsafe { self.raw(s, j + lane * S::LANES) });
            }
            j += 4 * S::LANES;
        }
        s.reduce_max(s.max(s.max(greatest[0], greatest[1]), s.max(greatest[2], greatest[3]))) * self.inverse_temperature
    }

    /// The normaliser, and Σ softmax · (logit − greatest).
    #[inline(always)]
    pub unsafe fn normaliser<S: Simd>(self, s: S) -> (Normaliser, f32) {
        // SAFETY: the caller's.
        let greatest = unsafe { self.greatest(s) };
        let (mut sums, mut moments, mut j) = ([s.zero(); 4], [s.zero(); 4], 0);
        while j < self.len {
            for lane in 0..4 {
                // SAFETY: the caller's.
                let x = unsafe { self.shifted(s, j + lane * S::LANES, greatest) };
                let x = s.max(s.splat(FAR_BELOW), x);
                let weight = exp(s, x);
                sums[lane] = s.add(sums[lane], weight);
                moments[lane] = s.fma(weight, x, moments[lane]);
            }
            j += 4 * S::LANES;
        }
        let sum = sum4(s, sums);
        (Normaliser { greatest, log_sum: sum.ln() }, sum4(s, moments) / sum)
    }

    /// The log-probability of one token.
    #[inline(always)]
    pub unsafe fn logprob<S: Simd>(self, s: S, id: usize, normaliser: Normaliser) -> f32 {
        // SAFETY: the caller's. `id` lies in the row.
        let x = unsafe { s.load_partial(self.start.add(id), 1) };
        let shifted = s.fma(x, s.splat(self.inverse_temperature), s.splat(-normaliser.greatest));
        s.reduce_add(s.select(s.first(1), shifted, s.zero())) - normaliser.log_sum
    }
}

impl Normaliser {
    pub fn logsumexp(self) -> f32 {
        self.greatest + self.log_sum
    }
}

/// The statistics of a range of rows.
pub(super) struct Statistics<'a, 'b> {
    pub logits: View<'a, f32>,
    pub targets: &'a [u32],
    pub temperature: f32,
    pub logprob: &'a ViewMut<'b, f32>,
    pub logsumexp: &'a ViewMut<'b, f32>,
    pub entropy: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl Kernel for Statistics<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for i in self.rows.start..self.rows.end {
            let logits = Row::of(&self.logits, i, self.temperature);
            // SAFETY: rows have V columns, targets were checked, and no other task writes these elements.
            unsafe {
                let (normaliser, moment) = logits.normaliser(s);
                *row_mut(self.logprob, 0).add(i) = logits.logprob(s, self.targets[i] as usize, normaliser);
                *row_mut(self.logsumexp, 0).add(i) = normaliser.logsumexp();
                *row_mut(self.entropy, 0).add(i) = normaliser.log_sum - moment;
            }
        }
    }
}

/// The gradient of a range of rows.
pub(super) struct Gradient<'a, 'b, T: Real> {
    pub logits: View<'a, f32>,
    pub targets: &'a [u32],
    pub logsumexp: &'a [f32],
    pub coefficient: &'a [f32],
    pub temperature: f32,
    pub d_logits: &'a ViewMut<'b, T>,
    pub rows: Range<usize>,
}

impl<T: Real> Kernel for Gradient<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let v = self.logits.cols();
        for i in self.rows.start..self.rows.end {
            let (logits, to) = (Row::of(&self.logits, i, self.temperature), row_mut(self.d_logits, i));
            let scale = self.coefficient[i] * logits.inverse_temperature;
            // SAFETY: rows have V columns, targets were checked, and no other task writes these rows.
            unsafe {
                if scale == 0.0 {
                    to.write_bytes(0, v);
                    continue;
                }
                let mut j = 0;
                while j < v {
                    let p = exp(s, logits.shifted(s, j, self.logsumexp[i]));
                    store(s, to.add(j), s.mul(p, s.splat(-scale)), v - j);
                    j += S::LANES;
                }
                let target = self.targets[i] as usize;
                let normaliser = Normaliser { greatest: self.logsumexp[i], log_sum: 0.0 };
                let p = exp(s, s.splat(logits.logprob(s, target, normaliser)));
                s.store_partial(to.add(target), s.neg_fma(p, s.splat(scale), s.splat(scale)), 1);
            }
        }
    }
}

/// The top k of a range of rows; see `top_k_rows`.
pub(super) struct TopK<'a, 'b> {
    pub logits: View<'a, f32>,
    pub temperature: f32,
    pub ids: &'a ViewMut<'b, u32>,
    pub logprobs: &'a ViewMut<'b, f32>,
    pub rows: Range<usize>,
}

impl Kernel for TopK<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.ids.cols();
        let mut best: Vec<u64> = Vec::with_capacity(k + CANDIDATES + S::LANES);
        for i in self.rows.start..self.rows.end {
            let logits = Row::of(&self.logits, i, self.temperature);
            best.clear();
            // Once k tokens are kept, a logit must exceed the least of theirs. A later token with an equal logit has a
            // higher id and so a lower rank.
            let mut threshold = None;
            let mut j = 0;
            // SAFETY: rows have V columns, and no other task writes these rows.
            unsafe {
                while j < logits.len && k > 0 {
                    let mut lanes = match threshold {
                        None => s.bits(s.first((logits.len - j).min(S::LANES))),
                        Some(logit) => s.bits(s.lt(s.splat(logit), logits.raw(s, j))),
                    };
                    while lanes != 0 {
                        let id = j + lanes.trailing_zeros() as usize;
                        best.push(rank(*logits.start.add(id), id as u32));
                        lanes &= lanes - 1;
                    }
                    if best.len() >= k + CANDIDATES {
                        let last = keep_greatest(&mut best, k);
                        threshold = Some(*logits.start.add(token(last) as usize));
                    }
                    j += S::LANES;
                }
                if k > 0 {
                    keep_greatest(&mut best, k);
                }
                best.sort_unstable_by(|a, b| b.cmp(a));
                let (normaliser, _) = logits.normaliser(s);
                for slot in 0..k {
                    let id = token(best[slot]);
                    *row_mut(self.ids, i).add(slot) = id;
                    *row_mut(self.logprobs, i).add(slot) = logits.logprob(s, id as usize, normaliser);
                }
            }
        }
    }
}

/// How many more than k tokens are collected before all but the k greatest are dropped.
const CANDIDATES: usize = 192;

/// A number that is higher for a greater logit, and, if logits are equal, for a lower id.
fn rank(logit: f32, id: u32) -> u64 {
    // Adding zero turns −0 into 0.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!id)
}

/// The token id in a rank.
fn token(rank: u64) -> u32 {
    !(rank as u32)
}

/// Keeps the k greatest ranks, in any order. Returns the least of them.
fn keep_greatest(ranks: &mut Vec<u64>, k: usize) -> u64 {
    let (_, &mut last, _) = ranks.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    ranks.truncate(k);
    last
}

/// Adds `scale · softmax` to the elements `from .. to` of a row of gradients.
///
/// # Safety
/// The row and its gradients must exist, and no other task may write these gradients.
#[inline(always)]
pub(super) unsafe fn add_softmax<S: Simd>(
    s: S,
    logits: Row,
    logsumexp: f32,
    scale: f32,
    d_logits: *mut f32,
    range: Range<usize>,
) {
    let mut j = range.start;
    while j < range.end {
        // SAFETY: the caller's. The count stays within the range.
        unsafe {
            let (to, left) = (d_logits.add(j), range.end - j);
            let p = exp(s, logits.shifted(s, j, logsumexp));
            store(s, to, s.fma(p, s.splat(scale), load(s, to, left)), left);
        }
        j += S::LANES;
    }
}

/// Σ softmax over the elements `from .. to` of a row.
///
/// # Safety
/// The row must exist.
#[inline(always)]
pub(super) unsafe fn sum_softmax<S: Simd>(s: S, logits: Row, logsumexp: f32, range: Range<usize>) -> f32 {
    let (mut sum, mut j) = (s.zero(), range.start);
    while j < range.end {
        // SAFETY: the caller's.
        let p = exp(s, unsafe { logits.shifted(s, j, logsumexp) });
        sum = s.add(sum, s.select(s.first((range.end - j).min(S::LANES)), p, s.zero()));
        j += S::LANES;
    }
    s.reduce_add(sum)
}
