//! RMSNorm: every row divided by its root mean square, times a learned weight.
//!
//! `out = x · rstd · weight` with `rstd = 1 / √(mean(x²) + eps)`. The residual stream stays f32 and is added by the
//! product before (see the epilogue of `gemm`), so there is no fused addition here. It departs from the paper in
//! nothing; unlike transformers, the product with the weight is done in f32 before the one rounding to `T`.
//!
//! Source: Zhang and Sennrich 2019, arXiv 1910.07467. Read next: `ops/head_norm/mod.rs`, the same per head.

use crate::{Queue, Real, View, ViewMut};

/// Normalises rows.
///
/// # Shapes
/// * `x`: `[N, C]`; `weight`: `[1, C]`; `eps`: added to the mean square.
/// * `out`: `[N, C]`, overwritten; `rstd`: `[1, N]`, overwritten, kept for the backward pass.
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
    let (mut out, mut rstd) = (out, rstd);
    let _ = queue;
    let (n, c) = (x.rows(), x.cols());
    assert_eq!((out.rows(), out.cols()), (n, c), "rmsnorm_forward: out against x");
    assert_eq!((weight.cols(), rstd.cols()), (c, n), "rmsnorm_forward: weight and rstd against x");
    for i in 0..n {
        let squares: f32 = x.row(i).iter().map(|x| x * x).sum();
        let scale = 1.0 / (squares / c as f32 + eps).sqrt();
        rstd.row_mut(0)[i] = scale;
        for ((out, x), w) in out.row_mut(i).iter_mut().zip(x.row(i)).zip(weight.row(0)) {
            *out = T::from_f32(x * scale * w);
        }
    }
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
    let (mut d_x, mut d_weight) = (d_x, d_weight);
    let _ = queue;
    let (n, c) = (x.rows(), x.cols());
    assert_eq!((d_out.rows(), d_out.cols()), (n, c), "rmsnorm_backward: d_out against x");
    assert_eq!((d_x.rows(), d_x.cols()), (n, c), "rmsnorm_backward: d_x against x");
    assert_eq!((weight.cols(), d_weight.cols()), (c, c), "rmsnorm_backward: weight and d_weight against x");
    assert_eq!(rstd.cols(), n, "rmsnorm_backward: rstd against x");
    for i in 0..n {
        let (x, w, d, scale) = (x.row(i), weight.row(0), d_out.row(i), rstd.row(0)[i]);
        let dot: f32 = (0..c).map(|j| d[j] * w[j] * x[j]).sum();
        let along = dot * scale * scale / c as f32;
        for j in 0..c {
            d_x.row_mut(i)[j] += scale * (d[j] * w[j] - x[j] * along);
            d_weight.row_mut(0)[j] += d[j] * (x[j] * scale);
        }
    }
}
