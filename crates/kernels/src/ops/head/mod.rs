//! Rows of logits: statistics, gradients and divergences, each over one whole vocabulary row in scratch.
//!
//! The head works in two phases. First [`head_statistics`] gives each row's chosen log-probability, log-sum-exp and entropy;
//! then the caller's recipe turns them into one coefficient per row, and [`head_gradient`] makes the gradient of the
//! logits from it. Divergences from a teacher ([`divergence_rows`], [`sparse_forward_kl_rows`]) are exact, over the
//! whole vocabulary. The N × V logits are never held: callers pass blocks of rows.
//!
//! `temperature` divides logits everywhere; no factor of its square is applied, the weight is the caller's.
//!
//! Read next: `ops/head/divergence.rs`.

mod divergence;
mod top_k;

pub use divergence::{Divergence, divergence_rows, sparse_forward_kl_rows};
pub use top_k::top_k_rows;

use crate::{Queue, Real, View, ViewMut};

/// Log-softmax statistics of rows of logits.
///
/// # Shapes and units
/// * `logits`: `[R, V]`; `targets`: `[1, R]`; `temperature` > 0 divides the logits.
/// * `logprob` of the target, `logsumexp` of the divided logits, `entropy`: `[1, R]`, overwritten, in nats.
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
    let (mut logprob, mut logsumexp, mut entropy) = (logprob, logsumexp, entropy);
    let _ = queue;
    let r = logits.rows();
    check_targets(logits, targets);
    assert_eq!((logprob.cols(), logsumexp.cols(), entropy.cols()), (r, r, r), "head_statistics: outputs against rows");
    let inverse = 1.0 / temperature;
    for i in 0..r {
        let row = logits.row(i);
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) * inverse;
        let (mut sum, mut moment) = (0.0f32, 0.0f32);
        for x in row {
            let shifted = x * inverse - max;
            let e = shifted.exp();
            sum += e;
            moment += e * shifted;
        }
        let log = sum.ln();
        logsumexp.row_mut(0)[i] = max + log;
        logprob.row_mut(0)[i] = row[targets.row(0)[i] as usize] * inverse - max - log;
        entropy.row_mut(0)[i] = log - moment / sum;
    }
}

/// Gradient of the logits from one coefficient per row: `coefficient · (onehot(target) − softmax) / temperature`.
///
/// # Shapes and units
/// * `logits`: `[R, V]`; `targets`, `logsumexp` (from [`head_statistics`] at this temperature): `[1, R]`.
/// * `coefficient`: `[1, R]`, d loss / d logprob of the target; rows whose coefficient is 0 get zeros.
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
    let mut d_logits = d_logits;
    let _ = queue;
    let r = logits.rows();
    check_targets(logits, targets);
    assert_eq!((logsumexp.cols(), coefficient.cols()), (r, r), "head_gradient: logsumexp, coefficient against rows");
    assert_eq!((d_logits.rows(), d_logits.cols()), (r, logits.cols()), "head_gradient: d_logits against logits");
    let inverse = 1.0 / temperature;
    for i in 0..r {
        let scale = coefficient.row(0)[i] * inverse;
        let target = targets.row(0)[i] as usize;
        for (j, d) in d_logits.row_mut(i).iter_mut().enumerate() {
            let p = (logits.row(i)[j] * inverse - logsumexp.row(0)[i]).exp();
            *d = T::from_f32(if j == target { scale - scale * p } else { -scale * p });
        }
    }
}

fn check_targets(logits: View<f32>, targets: View<u32>) {
    assert_eq!(targets.cols(), logits.rows(), "head: targets against rows of logits");
    if logits.rows() > 0 {
        let largest = targets.row(0).iter().copied().max().unwrap_or(0) as usize;
        assert!(largest < logits.cols(), "head: target {largest} of a vocabulary of {}", logits.cols());
    }
}
