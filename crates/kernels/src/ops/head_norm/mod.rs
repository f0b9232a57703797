//! RMSNorm over each head of a row, with one weight for all heads: the q/k norm of Qwen3.
//!
//! `x` is `[N, heads·D]`; each run of D elements is normalised by itself. The backward pass works in place: it reads
//! the gradient of the output and leaves the gradient of the input.
//!
//! Source: Henry et al. 2020, arXiv 2010.04245, with RMSNorm in place of the l2 norm. Read next: `ops/rotary/mod.rs`.

use crate::{Queue, Real, View, ViewMut};

/// Normalises each head of each row.
///
/// # Shapes
/// * `x`: `[N, heads·D]`, any stride; `weight`: `[1, D]`; `eps`: added to the mean square.
/// * `out`: `[N, heads·D]`, any stride, overwritten; `rstd`: `[N, heads]`, overwritten.
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
    let (mut out, mut rstd) = (out, rstd);
    let _ = queue;
    let (n, d) = (x.rows(), weight.cols());
    assert_eq!((out.rows(), out.cols()), (n, x.cols()), "head_norm_forward: out against x");
    assert_eq!((rstd.rows(), rstd.cols() * d), (n, x.cols()), "head_norm_forward: rstd against x");
    for i in 0..n {
        for head in 0..rstd.cols() {
            let x = &x.row(i)[head * d..][..d];
            let squares: f32 = x.iter().map(|x| x.to_f32() * x.to_f32()).sum();
            let scale = 1.0 / (squares / d as f32 + eps).sqrt();
            rstd.row_mut(i)[head] = scale;
            for ((out, x), w) in out.row_mut(i)[head * d..][..d].iter_mut().zip(x).zip(weight.row(0)) {
                *out = T::from_f32(x.to_f32() * scale * w);
            }
        }
    }
}

/// Gradient of [`head_norm_forward`], in place: `d` holds the gradient of the output, and then that of the input.
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
    let (mut d_x, mut d_weight) = (d, d_weight);
    let _ = queue;
    let (n, d) = (x.rows(), weight.cols());
    assert_eq!((d_x.rows(), d_x.cols()), (n, x.cols()), "head_norm_backward: d against x");
    assert_eq!((rstd.rows(), rstd.cols() * d), (n, x.cols()), "head_norm_backward: rstd against x");
    assert_eq!(d_weight.cols(), d, "head_norm_backward: d_weight against weight");
    for i in 0..n {
        for head in 0..rstd.cols() {
            let (x, scale, w) = (&x.row(i)[head * d..][..d], rstd.row(i)[head], weight.row(0));
            let d_out = &mut d_x.row_mut(i)[head * d..][..d];
            let dot: f32 = (0..d).map(|j| d_out[j] * w[j] * x[j].to_f32()).sum();
            let along = dot * scale * scale / d as f32;
            for j in 0..d {
                d_weight.row_mut(0)[j] += d_out[j] * (x[j].to_f32() * scale);
                d_out[j] = scale * (d_out[j] * w[j] - x[j].to_f32() * along);
            }
        }
    }
}
