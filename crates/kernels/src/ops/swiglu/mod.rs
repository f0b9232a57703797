//! SwiGLU: the gated activation between a decoder's two feed-forward products.
//!
//! `out = silu(gate) · up` with `silu(x) = x / (1 + e^−x)`. Gate and up lie side by side in one row, since one product
//! makes both. The backward pass recomputes the sigmoid rather than keep it.
//!
//! Source: Shazeer 2020, arXiv 2002.05202. Read next: `ops/head/mod.rs`.

use crate::{Queue, Real, View, ViewMut};

/// Gates rows.
///
/// # Shapes
/// * `gate_up`: `[N, 2F]`, F gates and then F ups; `out`: `[N, F]`, overwritten.
///
/// # Panics
/// When shapes disagree.
pub fn swiglu_forward<T: Real>(queue: &Queue, gate_up: View<T>, out: ViewMut<T>) {
    let mut out = out;
    let _ = queue;
    let f = out.cols();
    assert_eq!((gate_up.rows(), gate_up.cols()), (out.rows(), 2 * f), "swiglu_forward: gate_up against out");
    for i in 0..out.rows() {
        let (gate, up) = gate_up.row(i).split_at(f);
        for (j, out) in out.row_mut(i).iter_mut().enumerate() {
            let gate = gate[j].to_f32();
            *out = T::from_f32(gate / (1.0 + (-gate).exp()) * up[j].to_f32());
        }
    }
}

/// Gradient of [`swiglu_forward`].
///
/// # Shapes
/// * `gate_up`: `[N, 2F]` as in the forward pass; `d_out`: `[N, F]`; `d_gate_up`: `[N, 2F]`, overwritten.
///
/// # Panics
/// When shapes disagree.
pub fn swiglu_backward<T: Real>(queue: &Queue, gate_up: View<T>, d_out: View<f32>, d_gate_up: ViewMut<T>) {
    let mut d_gate_up = d_gate_up;
    let _ = queue;
    let (n, f) = (d_out.rows(), d_out.cols());
    assert_eq!((gate_up.rows(), gate_up.cols()), (n, 2 * f), "swiglu_backward: gate_up against d_out");
    assert_eq!((d_gate_up.rows(), d_gate_up.cols()), (n, 2 * f), "swiglu_backward: d_gate_up against d_out");
    for i in 0..n {
        let (gate, up) = gate_up.row(i).split_at(f);
        let (d_gate, d_up) = d_gate_up.row_mut(i).split_at_mut(f);
        for (j, &d) in d_out.row(i).iter().enumerate() {
            let (gate, up) = (gate[j].to_f32(), up[j].to_f32());
            let sigmoid = 1.0 / (1.0 + (-gate).exp());
            d_gate[j] = T::from_f32(d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
            d_up[j] = T::from_f32(d * gate * sigmoid);
        }
    }
}
