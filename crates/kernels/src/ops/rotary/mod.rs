//! Rotary position embedding: each pair of a head's elements is rotated by an angle that grows with the position.
//!
//! The pairs are `(x[j], x[j + D/2])`, as in Hugging Face's Llama and Qwen. GGUF's Llama files interleave the two
//! elements of a pair; code that reads such a file must undo this. The table of cosines and sines is computed once, in
//! f64. Every row has its own position, because positions start again in every one of the packed sequences of a batch.
//!
//! Source: Su et al. 2021, arXiv 2104.09864 (equation 34). Read next: `ops/attention/mod.rs`.

mod cpu;

use super::split::by_rows;
use crate::check::{expect, expect_below};
use crate::{Buffer, Device, Queue, Real, View, ViewMut};
use cpu::Rotate;

/// Cosines and sines of the angles at positions `0 .. positions`: row p holds D/2 cosines, then D/2 sines.
///
/// # Shapes and units
/// * `frequencies`: `[D/2]`, in radians per position. The crate `lm` computes them for each model family.
/// * returns `[positions, D]`, computed in f64 and rounded once to f32.
pub fn rotary_table(device: Device, frequencies: &[f64], positions: usize) -> Buffer<f32> {
    let angles = |position: usize| frequencies.iter().map(move |frequency| position as f64 * frequency);
    let row = |position| angles(position).map(f64::cos).chain(angles(position).map(f64::sin));
    let table: Vec<f32> = (0..positions).flat_map(row).map(|x| x as f32).collect();
    Buffer::from_host(device, &table)
}

/// Rotates every head of every row, in place.
///
/// # Shapes
/// * `x`: `[N, heads·D]`, any stride, overwritten; `positions`: `[1, N]`; `cos_sin`: `[P, D]` from [`rotary_table`].
///
/// # Panics
/// When shapes disagree or a position is not below P.
pub fn rotary_forward<T: Real>(queue: &Queue, x: ViewMut<T>, positions: View<u32>, cos_sin: View<f32>) {
    rotate(queue, x, positions, cos_sin, 1.0);
}

/// Gradient of [`rotary_forward`], in place: the inverse rotation.
///
/// # Shapes
/// * `d`: `[N, heads·D]`, any stride; the gradient of the output, which is overwritten with that of the input.
///
/// # Panics
/// When shapes disagree or a position is not below P.
pub fn rotary_backward(queue: &Queue, d: ViewMut<f32>, positions: View<u32>, cos_sin: View<f32>) {
    rotate(queue, d, positions, cos_sin, -1.0);
}

fn rotate<T: Real>(queue: &Queue, x: ViewMut<T>, positions: View<u32>, cos_sin: View<f32>, direction: f32) {
    let (d, cols) = (cos_sin.cols(), x.cols());
    let whole = d > 0 && d.is_multiple_of(2) && cols > 0 && cols.is_multiple_of(d);
    assert!(whole, "rotary: {cols} columns are not whole heads of {d}, an even number");
    expect(queue, "rotary: x", &x, (x.rows(), cols));
    expect(queue, "rotary: positions", &positions, (1, x.rows()));
    expect(queue, "rotary: cos_sin", &cos_sin, (cos_sin.rows(), d));
    let positions = positions.row(0);
    expect_below("rotary: position", positions, cos_sin.rows());
    by_rows(queue, x.rows(), x.cols(), |rows| {
        queue.isa().run_on::<T, _>(Rotate { x: &x, positions, cos_sin, direction, rows });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, queues, random, tolerance, wide};

    fn check_against_reference<T: Real>(n: usize, heads: usize, d: usize) {
        let (theta, width) = (1e4f64, heads * d);
        let frequencies: Vec<f64> = (0..d / 2).map(|j| theta.powf(-2.0 * j as f64 / d as f64)).collect();
        let table = rotary_table(Device::Cpu, &frequencies, 50);
        let positions: Vec<u32> = (0..n).map(|i| ((i * 13) % 50) as u32).collect();
        let x = random::<T>(1, n * (width + 1));
        let turned = |x: &[f64], direction: f64| -> Vec<f64> {
            let mut out = x.to_vec();
            for (i, &position) in positions.iter().enumerate() {
                for head in 0..heads {
                    for j in 0..d / 2 {
                        let angle = direction * f64::from(position) * theta.powf(-2.0 * j as f64 / d as f64);
                        let (a, b) = (i * (width + 1) + head * d + j, i * (width + 1) + head * d + d / 2 + j);
                        out[a] = x[a] * angle.cos() - x[b] * angle.sin();
                        out[b] = x[b] * angle.cos() + x[a] * angle.sin();
                    }
                }
            }
            out
        };
        for queue in queues() {
            let (positions, table) = (View::of(&positions, 1, n), table.matrix(50, d));
            let mut out = x.clone();
            let (view, _) = ViewMut::of(&mut out, n, width + 1).split_cols(width);
            rotary_forward(&queue, view, positions, table);
            assert_close("turned", &out, &turned(&wide(&x), 1.0), tolerance::<T>());
            // The rotation is linear and keeps lengths, so its gradient is its inverse.
            let mut d_x: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            let (view, _) = ViewMut::of(&mut d_x, n, width + 1).split_cols(width);
            rotary_backward(&queue, view, positions, table);
            assert_close("turned back", &d_x, &turned(&wide(&x), -1.0), 1e-6);
        }
    }

    #[test]
    fn pairs_are_turned_forwards_and_backwards() {
        for (n, heads, d) in [(0, 1, 4), (1, 1, 2), (5, 3, 12), (7, 2, 64), (400, 2, 80)] {
            check_against_reference::<f32>(n, heads, d);
            check_against_reference::<bf16>(n, heads, d);
        }
    }
}
