//! Operations on rows of logits: statistics, gradients, and divergences from a teacher, each over the whole vocabulary.
//!
//! The head works in two phases. First, [`head_statistics`] computes the log-probability of each row's target, the
//! log-sum-exp and the entropy. The caller's loss turns these into one coefficient per row. Second, [`head_gradient`]
//! computes the gradient of the logits from the coefficient. Divergences ([`divergence_rows`],
//! [`sparse_forward_kl_rows`]) are sums over the whole vocabulary. The N × V logits are never stored as a whole:
//! callers pass blocks of rows.
//!
//! `temperature` divides the logits everywhere. Divergences are not multiplied by the square of the temperature, as
//! some papers do; the caller can do this with the weight.
//!
//! Read next: `ops/head/divergence/mod.rs`.

mod cpu;
mod divergence;
mod top_k;

pub use divergence::{Divergence, divergence_rows, sparse_forward_kl_rows};
pub use top_k::top_k_rows;

#[cfg(test)]
pub(crate) use divergence::tests::{reference as divergence_reference, softmax};

use super::split::by_rows;
use crate::check::{expect, expect_below};
use crate::{Queue, Real, View, ViewMut};
use cpu::{Gradient, Statistics};

/// Log-softmax statistics of rows of logits.
///
/// # Shapes and units
/// * `logits`: `[R, V]`; `targets`: `[1, R]`; `temperature` > 0 divides the logits.
/// * `logprob` (of the target), `logsumexp` (of the divided logits), `entropy`: `[1, R]`, overwritten, in nats.
///
/// # Panics
/// When shapes disagree or a target is not below V.
pub fn head_statistics(
    queue: &Queue,
    logits: View<f32>,
    targets: View<u32>,
    temperature: f32,
    logprob: ViewMut<f32>,
    logsumexp: ViewMut<f32>,
    entropy: ViewMut<f32>,
) {
    let r = logits.rows();
    expect(queue, "head_statistics: logits", &logits, (r, logits.cols()));
    expect(queue, "head_statistics: targets", &targets, (1, r));
    expect(queue, "head_statistics: logprob", &logprob, (1, r));
    expect(queue, "head_statistics: logsumexp", &logsumexp, (1, r));
    expect(queue, "head_statistics: entropy", &entropy, (1, r));
    let targets = targets.row(0);
    expect_below("head_statistics: target", targets, logits.cols());
    by_rows(queue, r, logits.cols(), |rows| {
        let (logprob, logsumexp, entropy) = (&logprob, &logsumexp, &entropy);
        queue.isa().run_without_pairs(Statistics { logits, targets, temperature, logprob, logsumexp, entropy, rows });
    });
}

/// Gradient of the logits from one coefficient per row: `coefficient · (onehot(target) − softmax) / temperature`.
///
/// # Shapes and units
/// * `logits`: `[R, V]`; `targets`, `logsumexp` (from [`head_statistics`] at this temperature): `[1, R]`.
/// * `coefficient`: `[1, R]`, d loss / d logprob of the target. Rows whose coefficient is 0 get zeros.
/// * `d_logits`: `[R, V]`, overwritten.
///
/// # Panics
/// When shapes disagree or a target is not below V.
pub fn head_gradient<T: Real>(
    queue: &Queue,
    logits: View<f32>,
    targets: View<u32>,
    logsumexp: View<f32>,
    coefficient: View<f32>,
    temperature: f32,
    d_logits: ViewMut<T>,
) {
    let r = logits.rows();
    expect(queue, "head_gradient: logits", &logits, (r, logits.cols()));
    expect(queue, "head_gradient: targets", &targets, (1, r));
    expect(queue, "head_gradient: logsumexp", &logsumexp, (1, r));
    expect(queue, "head_gradient: coefficient", &coefficient, (1, r));
    expect(queue, "head_gradient: d_logits", &d_logits, (r, logits.cols()));
    let (targets, logsumexp, coefficient) = (targets.row(0), logsumexp.row(0), coefficient.row(0));
    expect_below("head_gradient: target", targets, logits.cols());
    by_rows(queue, r, logits.cols(), |rows| {
        let d_logits = &d_logits;
        queue.isa().run_on::<T, _>(Gradient { logits, targets, logsumexp, coefficient, temperature, d_logits, rows });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, assert_same_bits, central_differences, queues, random, tolerance, wide};

    /// Log-softmax of one row in f64.
    pub(super) fn log_softmax(row: &[f64], temperature: f64) -> Vec<f64> {
        let log = row.iter().map(|x| (x / temperature).exp()).sum::<f64>().ln();
        row.iter().map(|x| x / temperature - log).collect()
    }

    fn check_against_reference<T: Real>(r: usize, v: usize, temperature: f32) {
        let logits: Vec<f32> = random::<f32>(1, r * v).iter().map(|x| 5.0 * x).collect();
        let targets: Vec<u32> = (0..r).map(|i| ((i * 5 + 3) % v) as u32).collect();
        let mut coefficient = random::<f32>(2, r);
        coefficient.iter_mut().step_by(3).for_each(|c| *c = 0.0);
        let t64 = f64::from(temperature);
        let rows: Vec<Vec<f64>> = wide(&logits).chunks(v).map(|row| log_softmax(row, t64)).collect();
        let chosen: Vec<f64> = rows.iter().zip(&targets).map(|(row, t)| row[*t as usize]).collect();
        let spread: Vec<f64> = rows.iter().map(|row| -row.iter().map(|x| x.exp() * x).sum::<f64>()).collect();
        let logs: Vec<f64> = (0..r).map(|i| f64::from(logits[i * v]) / t64 - rows[i][0]).collect();
        let gradient = central_differences(&wide(&logits), |x| {
            let rows = x.chunks(v).map(|row| log_softmax(row, t64));
            rows.zip(&targets).zip(&coefficient).map(|((row, t), c)| f64::from(*c) * row[*t as usize]).sum()
        });
        for queue in queues() {
            let [mut logprob, mut logsumexp, mut entropy] = [(); 3].map(|()| vec![9.0; r]);
            let (x, targets) = (View::of(&logits, r, v), View::of(&targets, 1, r));
            let views = [&mut logprob, &mut logsumexp, &mut entropy].map(|values| ViewMut::of(values, 1, r));
            let [a, b, c] = views;
            head_statistics(&queue, x, targets, temperature, a, b, c);
            assert_close("logprob", &logprob, &chosen, 1e-6);
            assert_close("logsumexp", &logsumexp, &logs, 1e-6);
            assert_close("entropy", &entropy, &spread, 2e-6);
            let mut d = vec![T::from_f32(9.0); r * v];
            let (sums, factors) = (View::of(&logsumexp, 1, r), View::of(&coefficient, 1, r));
            head_gradient(&queue, x, targets, sums, factors, temperature, ViewMut::of(&mut d, r, v));
            assert_close(&format!("d_logits {} {r} {v}", queue.isa().name()), &d, &gradient, tolerance::<T>());
            for i in 0..r {
                let mut alone = [[9.0f32]; 3];
                let [a, b, c] = &mut alone;
                let views = [a, b, c].map(|value| ViewMut::of(&mut value[..], 1, 1));
                let [a, b, c] = views;
                head_statistics(&queue, x.row_range(i..i + 1), targets.col_range(i..i + 1), temperature, a, b, c);
                assert_same_bits("alone", &alone.concat(), &[logprob[i], logsumexp[i], entropy[i]]);
            }
        }
    }

    #[test]
    fn statistics_and_gradients_equal_the_reference() {
        for (r, v, temperature) in [(0, 5, 1.0), (1, 1, 1.0), (4, 5, 0.7), (3, 64, 1.3), (2, 150, 1.0)] {
            check_against_reference::<f32>(r, v, temperature);
            check_against_reference::<bf16>(r, v, temperature);
        }
    }

    #[test]
    fn forbidden_tokens_have_no_weight() {
        let (logits, v) = ([1.0, f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], 4);
        for queue in queues() {
            let mut out = [[9.0f32]; 3];
            let [a, b, c] = &mut out;
            let views = [a, b, c].map(|value| ViewMut::of(&mut value[..], 1, 1));
            let [a, b, c] = views;
            head_statistics(&queue, View::of(&logits, 1, v), View::of(&[2], 1, 1), 1.0, a, b, c);
            let half = 0.5f64.ln();
            assert_close("statistics", &out.concat(), &[half, 1.0 - half, -half], 1e-6);
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        for queue in queues() {
            let mut out = [[9.0f32]; 3];
            let [a, b, c] = &mut out;
            let views = [a, b, c].map(|value| ViewMut::of(&mut value[..], 1, 1));
            let [a, b, c] = views;
            head_statistics(&queue, View::of(&[1e5, 0.0], 1, 2), View::of(&[1], 1, 1), 1.0, a, b, c);
            assert_eq!(out.concat(), [-1e5, 1e5, 0.0]);
        }
    }
}
