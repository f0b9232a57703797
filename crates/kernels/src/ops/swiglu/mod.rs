//! SwiGLU: the gated activation between the two feed-forward products of a decoder.
//!
//! `out = silu(gate) · up` with `silu(x) = x / (1 + e^−x)`. Gates and ups lie side by side in one row, because one
//! product computes both. The backward pass computes the sigmoid again, so the forward pass keeps nothing for it.
//!
//! Source: Shazeer 2020, arXiv 2002.05202. Read next: `ops/head/mod.rs`.

mod cpu;

use super::split::by_rows;
use crate::check::expect;
use crate::view::area;
use crate::{Queue, Real, View, ViewMut};
use cpu::{Backward, Forward};

/// Computes `silu(gate) · up` for each row.
///
/// # Shapes
/// * `gate_up`: `[N, 2F]`, F gates and then F ups; `out`: `[N, F]`, overwritten.
///
/// # Panics
/// When shapes disagree.
pub fn swiglu_forward<T: Real>(queue: &Queue, gate_up: View<T>, out: ViewMut<T>) {
    let f = out.cols();
    expect(queue, "swiglu_forward: gate_up", &gate_up, (out.rows(), area(2, f)));
    expect(queue, "swiglu_forward: out", &out, (out.rows(), f));
    by_rows(queue, out.rows(), f, |rows| {
        queue.isa().run_on::<T, _>(Forward { gate_up, out: &out, rows });
    });
}

/// Gradient of [`swiglu_forward`], in place, because gates and ups are a model's widest rows and nothing reads them
/// later.
///
/// # Shapes
/// * `d_out`: `[N, F]`. `gate_up`: `[N, 2F]`, as in the forward pass; overwritten with its gradient.
///
/// # Panics
/// When shapes disagree.
pub fn swiglu_backward<T: Real>(queue: &Queue, d_out: View<f32>, gate_up: ViewMut<T>) {
    let (n, f) = (d_out.rows(), d_out.cols());
    expect(queue, "swiglu_backward: d_out", &d_out, (n, f));
    expect(queue, "swiglu_backward: gate_up", &gate_up, (n, area(2, f)));
    by_rows(queue, n, f, |rows| {
        queue.isa().run_on::<T, _>(Backward { d_out, gate_up: &gate_up, rows });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, central_differences, queues, random, tolerance, wide};

    fn reference(gate_up: &[f64], f: usize) -> Vec<f64> {
        let rows = gate_up.chunks(2 * f);
        rows.flat_map(|row| (0..f).map(|j| row[j] / (1.0 + (-row[j]).exp()) * row[f + j])).collect()
    }

    fn check_against_reference<T: Real>(n: usize, f: usize) {
        // The factor 8 makes the sigmoid saturate, so that it is far from linear.
        let gate_up: Vec<T> = random::<f32>(1, n * 2 * f).iter().map(|x| T::from_f32(8.0 * x)).collect();
        let d_out = random::<f32>(2, n * f);
        let wanted = reference(&wide(&gate_up), f);
        let d_wanted = central_differences(&wide(&gate_up), |x| {
            reference(x, f).iter().zip(&d_out).map(|(out, d)| out * f64::from(*d)).sum()
        });
        for queue in queues() {
            let mut out = vec![T::from_f32(9.0); n * f];
            let view = View::of(&gate_up, n, 2 * f);
            swiglu_forward(&queue, view, ViewMut::of(&mut out, n, f));
            assert_close("out", &out, &wanted, tolerance::<T>());
            let mut d_gate_up = gate_up.clone();
            swiglu_backward(&queue, View::of(&d_out, n, f), ViewMut::of(&mut d_gate_up, n, 2 * f));
            assert_close("d_gate_up", &d_gate_up, &d_wanted, tolerance::<T>());
        }
    }

    #[test]
    fn values_and_gradients_equal_the_reference() {
        for (n, f) in [(1, 1), (3, 5), (2, 64), (9, 37)] {
            check_against_reference::<f32>(n, f);
            check_against_reference::<bf16>(n, f);
        }
    }

    #[test]
    fn large_gates_do_not_overflow() {
        for queue in queues() {
            let mut out = [9.0; 2];
            swiglu_forward(&queue, View::of(&[-1e4f32, 1e4, 1.0, 1.0], 1, 4), ViewMut::of(&mut out, 1, 2));
            assert_eq!(out, [0.0, 1e4]);
        }
    }
}
