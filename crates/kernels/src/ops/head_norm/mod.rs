//! RMSNorm over each head of a row, with one weight for all heads: the q/k norm of Qwen3.
//!
//! `x` is `[N, heads·D]`. Each head of D elements is normalised separately. The backward pass works in place: it
//! replaces the gradient of the output with that of the input.
//!
//! Source: Henry et al. 2020, arXiv 2010.04245, with RMSNorm instead of the l2 norm. Read next: `ops/rotary/mod.rs`.

mod cpu;

use super::split::{by_columns, by_rows};
use crate::check::expect;
use crate::{Queue, Real, View, ViewMut};
use cpu::{BackwardColumns, BackwardRows, Forward};

/// Normalises each head of each row.
///
/// # Shapes
/// * `x`: `[N, heads·D]`, any stride; `weight`: `[1, D]`; `eps`: added to the mean square.
/// * `out`: `[N, heads·D]`, any stride, overwritten. `rstd`: `[N, heads]`, overwritten with `1 / √(mean(x²) + eps)`.
///
/// # Panics
/// When shapes disagree.
pub fn head_norm_forward<T: Real>(
    queue: &Queue,
    x: View<T>,
    weight: View<f32>,
    eps: f32,
    out: ViewMut<T>,
    rstd: ViewMut<f32>,
) {
    let (n, d) = (x.rows(), weight.cols());
    let heads = heads(x.cols(), d);
    expect(queue, "head_norm_forward: x", &x, (n, x.cols()));
    expect(queue, "head_norm_forward: weight", &weight, (1, d));
    expect(queue, "head_norm_forward: out", &out, (n, x.cols()));
    expect(queue, "head_norm_forward: rstd", &rstd, (n, heads));
    by_rows(queue, n, x.cols(), |rows| {
        queue.isa().run_on::<T, _>(Forward { x, weight, eps, out: &out, rstd: &rstd, rows });
    });
}

/// Gradient of [`head_norm_forward`], in place: `d` is the gradient of the output before the call, and of the input
/// after it.
///
/// # Shapes
/// * `x`: `[N, heads·D]`, the forward pass's input; `weight`: `[1, D]`; `rstd`: `[N, heads]` from the forward pass.
/// * `d`: `[N, heads·D]`, any stride, overwritten in place; `d_weight`: `[1, D]`, accumulated in row order.
///
/// # Panics
/// When shapes disagree.
pub fn head_norm_backward<T: Real>(
    queue: &Queue,
    x: View<T>,
    weight: View<f32>,
    rstd: View<f32>,
    d: ViewMut<f32>,
    d_weight: ViewMut<f32>,
) {
    let (n, width) = (x.rows(), weight.cols());
    let heads = heads(x.cols(), width);
    expect(queue, "head_norm_backward: x", &x, (n, x.cols()));
    expect(queue, "head_norm_backward: weight", &weight, (1, width));
    expect(queue, "head_norm_backward: rstd", &rstd, (n, heads));
    expect(queue, "head_norm_backward: d", &d, (n, x.cols()));
    expect(queue, "head_norm_backward: d_weight", &d_weight, (1, width));
    // Compute the weight's gradient first: it reads `d`, which the second step overwrites.
    by_columns(queue, width, |cols| {
        queue.isa().run_without_pairs(BackwardColumns { x, rstd, d: d.as_view(), d_weight: &d_weight, cols });
    });
    by_rows(queue, n, x.cols(), |rows| {
        queue.isa().run_without_pairs(BackwardRows { x, weight, rstd, d: &d, rows });
    });
}

fn heads(cols: usize, head_dim: usize) -> usize {
    let whole = head_dim > 0 && cols.is_multiple_of(head_dim);
    assert!(whole, "head_norm: {cols} columns are not whole heads of {head_dim}");
    cols / head_dim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::ops::rmsnorm::reference;
    use crate::testing::{assert_close, central_differences, queues, random, tolerance, wide};

    const EPS: f32 = 1e-3;

    fn check_against_reference<T: Real>(n: usize, heads: usize, d: usize) {
        // The heads are the middle columns of a wider matrix.
        let (width, stride) = (heads * d, heads * d + 3);
        let (all, weight, d_out) = (random::<T>(1, n * stride), random::<f32>(2, d), random::<f32>(3, n * width));
        let view = View::of(&all, n, stride).col_range(2..2 + width);
        let x64: Vec<f64> = (0..n).flat_map(|i| wide(view.row(i))).collect();
        let weight64 = wide(&weight);
        let out64 = |x: &[f64], w: &[f64]| -> Vec<f64> {
            x.chunks(d).flat_map(|head| reference(head, w, EPS.into()).0).collect()
        };
        let loss =
            |x: &[f64], w: &[f64]| -> f64 { out64(x, w).iter().zip(&d_out).map(|(out, d)| out * f64::from(*d)).sum() };
        let d_x64 = central_differences(&x64, |x| loss(x, &weight64));
        let d_weight64: Vec<f64> = central_differences(&weight64, |w| loss(&x64, w)).iter().map(|d| d + 0.5).collect();
        for queue in queues() {
            let (mut out, mut rstd) = (vec![T::from_f32(9.0); n * width], vec![9.0; n * heads]);
            let (out_view, rstd_view) = (ViewMut::of(&mut out, n, width), ViewMut::of(&mut rstd, n, heads));
            let w = View::of(&weight, 1, d);
            head_norm_forward(&queue, view, w, EPS, out_view, rstd_view);
            assert_close("out", &out, &out64(&x64, &weight64), tolerance::<T>());
            let (mut d_x, mut d_weight) = (d_out.clone(), vec![0.5; d]);
            let (d_view, d_weight_view) = (ViewMut::of(&mut d_x, n, width), ViewMut::of(&mut d_weight, 1, d));
            head_norm_backward(&queue, view, w, View::of(&rstd, n, heads), d_view, d_weight_view);
            assert_close("d_x", &d_x, &d_x64, 3e-6);
            assert_close("d_weight", &d_weight, &d_weight64, 3e-6);
        }
    }

    #[test]
    fn values_and_gradients_equal_the_reference() {
        for (n, heads, d) in [(1, 1, 1), (3, 2, 20), (2, 3, 64), (40, 2, 12)] {
            check_against_reference::<f32>(n, heads, d);
            check_against_reference::<bf16>(n, heads, d);
        }
    }
}
