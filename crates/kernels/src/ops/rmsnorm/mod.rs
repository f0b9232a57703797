//! RMSNorm: every row is divided by its root mean square, and multiplied by a learned weight.
//!
//! `out = x · rstd · weight` with `rstd = 1 / √(mean(x²) + eps)`, as in the paper (equation 4), and with `eps` added.
//! Other libraries fuse the norm with the addition to the residual stream. Here, the product before it makes that
//! addition (see the epilogue of `gemm`). In transformers, `x · rstd` is rounded before it is multiplied by the weight.
//! Here, the product is in f32 and is rounded once, to `T`.
//!
//! Source: Zhang and Sennrich 2019, arXiv 1910.07467. Read next: `ops/head_norm/mod.rs`, the same for each head.

mod cpu;

use super::split::{by_columns, by_rows};
use crate::check::expect;
use crate::{Queue, Real, View, ViewMut};
use cpu::{BackwardColumns, BackwardRows, Forward};

pub(super) use cpu::{squares, triple};

/// Normalises each row.
///
/// # Shapes
/// * `x`: `[N, C]`; `weight`: `[1, C]`; `eps`: added to the mean square.
/// * `out`: `[N, C]`, overwritten. `rstd`: `[1, N]`, overwritten; the backward pass needs it.
///
/// # Panics
/// When shapes disagree.
pub fn rmsnorm_forward<T: Real>(
    queue: &Queue,
    x: View<f32>,
    weight: View<f32>,
    eps: f32,
    out: ViewMut<T>,
    rstd: ViewMut<f32>,
) {
    let (n, c) = (x.rows(), x.cols());
    expect(queue, "rmsnorm_forward: x", &x, (n, c));
    expect(queue, "rmsnorm_forward: weight", &weight, (1, c));
    expect(queue, "rmsnorm_forward: out", &out, (n, c));
    expect(queue, "rmsnorm_forward: rstd", &rstd, (1, n));
    by_rows(queue, n, c, |rows| {
        queue.isa().run_on::<T, _>(Forward { x, weight, eps, out: &out, rstd: &rstd, rows });
    });
}

/// Gradient of [`rmsnorm_forward`].
///
/// `d_x += rstd · (d_out·weight − x̂ · mean(d_out·weight·x̂))` and `d_weight += Σ_rows d_out · x̂`, with `x̂ = x · rstd`.
///
/// # Shapes
/// * `x`, `d_out`: `[N, C]`; `weight`: `[1, C]`; `rstd`: `[1, N]` from the forward pass.
/// * `d_x`: `[N, C]`, accumulated; `d_weight`: `[1, C]`, accumulated in row order.
///
/// # Panics
/// When shapes disagree.
pub fn rmsnorm_backward(
    queue: &Queue,
    x: View<f32>,
    weight: View<f32>,
    rstd: View<f32>,
    d_out: View<f32>,
    d_x: ViewMut<f32>,
    d_weight: ViewMut<f32>,
) {
    let (n, c) = (x.rows(), x.cols());
    expect(queue, "rmsnorm_backward: x", &x, (n, c));
    expect(queue, "rmsnorm_backward: weight", &weight, (1, c));
    expect(queue, "rmsnorm_backward: rstd", &rstd, (1, n));
    expect(queue, "rmsnorm_backward: d_out", &d_out, (n, c));
    expect(queue, "rmsnorm_backward: d_x", &d_x, (n, c));
    expect(queue, "rmsnorm_backward: d_weight", &d_weight, (1, c));
    by_rows(queue, n, c, |rows| {
        queue.isa().run_without_pairs(BackwardRows { x, weight, rstd, d_out, d_x: &d_x, rows });
    });
    by_columns(queue, c, |cols| {
        queue.isa().run_without_pairs(BackwardColumns { x, rstd, d_out, d_weight: &d_weight, cols });
    });
}

/// One row in f64: the output, and 1 / √(mean(x²) + eps).
#[cfg(test)]
pub(crate) fn reference(x: &[f64], weight: &[f64], eps: f64) -> (Vec<f64>, f64) {
    let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    (x.iter().zip(weight).map(|(x, w)| x * rstd * w).collect(), rstd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, assert_same_bits, central_differences, queues, random, tolerance, wide};

    const EPS: f32 = 1e-3;

    fn check_against_reference<T: Real>(n: usize, c: usize) {
        let (x, weight, d_out) = (random::<f32>(1, n * c), random::<f32>(2, c), random::<f32>(3, n * c));
        let (x64, weight64) = (wide(&x), wide(&weight));
        let rows: Vec<_> = x64.chunks(c).map(|row| reference(row, &weight64, EPS.into())).collect();
        let out64: Vec<f64> = rows.iter().flat_map(|row| row.0.clone()).collect();
        let rstd64: Vec<f64> = rows.iter().map(|row| row.1).collect();
        let start = random::<f32>(4, n * c);
        let loss = |x: &[f64], w: &[f64]| -> f64 {
            let rows = x.chunks(c).flat_map(|row| reference(row, w, EPS.into()).0);
            rows.zip(&d_out).map(|(out, d)| out * f64::from(*d)).sum()
        };
        let mut d_x64 = central_differences(&x64, |x| loss(x, &weight64));
        d_x64.iter_mut().zip(&start).for_each(|(d, start)| *d += f64::from(*start));
        let mut d_weight64 = central_differences(&weight64, |w| loss(&x64, w));
        d_weight64.iter_mut().zip(&start).for_each(|(d, start)| *d += f64::from(*start));
        for queue in queues() {
            let (mut out, mut rstd) = (vec![T::from_f32(9.0); n * c], vec![9.0; n]);
            let (x, w, d) = (View::of(&x, n, c), View::of(&weight, 1, c), View::of(&d_out, n, c));
            rmsnorm_forward(&queue, x, w, EPS, ViewMut::of(&mut out, n, c), ViewMut::of(&mut rstd, 1, n));
            assert_close("out", &out, &out64, tolerance::<T>());
            assert_close("rstd", &rstd, &rstd64, 1e-6);
            let (mut d_x, mut d_weight) = (start.clone(), start[..c].to_vec());
            let (d_x_view, d_weight_view) = (ViewMut::of(&mut d_x, n, c), ViewMut::of(&mut d_weight, 1, c));
            rmsnorm_backward(&queue, x, w, View::of(&rstd, 1, n), d, d_x_view, d_weight_view);
            assert_close("d_x", &d_x, &d_x64, 3e-6);
            assert_close("d_weight", &d_weight, &d_weight64, 3e-6);
        }
    }

    #[test]
    fn values_and_gradients_equal_the_reference() {
        for (n, c) in [(1, 1), (3, 5), (2, 64), (7, 83), (33, 36)] {
            check_against_reference::<f32>(n, c);
            check_against_reference::<bf16>(n, c);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_batch() {
        let (n, c) = (500, 100);
        let (x, weight) = (random::<f32>(1, n * c), random::<f32>(2, c));
        for queue in queues() {
            let normal = |rows: std::ops::Range<usize>| {
                let (mut out, mut rstd) = (vec![0f32; rows.len() * c], vec![0f32; rows.len()]);
                let (view, rstd) = (ViewMut::of(&mut out, rows.len(), c), ViewMut::of(&mut rstd, 1, rows.len()));
                let x = View::of(&x, n, c).row_range(rows);
                rmsnorm_forward(&queue, x, View::of(&weight, 1, c), EPS, view, rstd);
                out
            };
            assert_same_bits("row", &normal(321..322), &normal(0..n)[321 * c..322 * c]);
        }
    }
}
