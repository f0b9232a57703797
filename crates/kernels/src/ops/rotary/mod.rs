//! Rotary position embedding: each pair of a head's elements turned by an angle that grows with the position.
//!
//! The pairs are `(x[j], x[j + D/2])`, the half-split layout of Hugging Face's Llama and Qwen; GGUF's Llama files
//! interleave them and must be un-permuted on reading. The table of cosines and sines is made once, in f64. Positions are
//! given per row, since they restart in every sequence of a packed batch.
//!
//! Source: Su et al. 2021, arXiv 2104.09864; the scaling is Llama 3.1's. Read next: `ops/attention/mod.rs`.

mod cpu;

use super::split::by_rows;
use crate::{Buffer, Device, Queue, Real, View, ViewMut};
use cpu::Rotate;

/// Llama 3.1's stretching of low frequencies, with the names of `rope_scaling` in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// By how much the lowest frequencies are divided.
    pub factor: f64,
    /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// The context length the model was trained for before stretching, in tokens.
    pub original_max_position_embeddings: f64,
}

/// Cosines and sines for positions `0 .. positions`: row p holds D/2 cosines, then D/2 sines.
///
/// # Shapes and units
/// * `theta`: base of the wavelengths (`rope_theta`); `head_dim`: D, even; returns `[positions, D]`.
///
/// # Panics
/// When `head_dim` is odd.
pub fn rotary_table(theta: f64, head_dim: usize, positions: usize, scaling: Option<Llama3Scaling>) -> Buffer<f32> {
    assert!(head_dim.is_multiple_of(2), "rotary_table: head_dim {head_dim} is odd");
    let half = head_dim / 2;
    let mut table = Buffer::zeros(Device::Cpu, positions * head_dim);
    let host = table.host_mut();
    for j in 0..half {
        let frequency = stretched(theta.powf(-(2.0 * j as f64) / head_dim as f64), scaling);
        for position in 0..positions {
            let angle = position as f64 * frequency;
            host[position * head_dim + j] = angle.cos() as f32;
            host[position * head_dim + half + j] = angle.sin() as f32;
        }
    }
    table
}

fn stretched(frequency: f64, scaling: Option<Llama3Scaling>) -> f64 {
    let Some(s) = scaling else { return frequency };
    let wavelength = 2.0 * std::f64::consts::PI / frequency;
    let context = s.original_max_position_embeddings;
    if wavelength < context / s.high_freq_factor {
        frequency
    } else if wavelength > context / s.low_freq_factor {
        frequency / s.factor
    } else {
        let kept = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        (1.0 - kept) * frequency / s.factor + kept * frequency
    }
}

/// Turns every head of every row, in place.
///
/// # Shapes
/// * `x`: `[N, heads·D]`, any stride, overwritten; `positions`: `[1, N]`; `cos_sin`: `[P, D]` from [`rotary_table`].
///
/// # Panics
/// When shapes disagree or a position is not below P.
pub fn rotary_forward<T: Real>(queue: &Queue, x: ViewMut<T>, positions: View<u32>, cos_sin: View<f32>) {
    rotate(queue, x, positions, cos_sin, 1.0);
}

/// Gradient of [`rotary_forward`], in place: the inverse turn.
///
/// # Shapes
/// * `d`: `[N, heads·D]`, any stride: the gradient of the output, overwritten by that of the input.
///
/// # Panics
/// When shapes disagree or a position is not below P.
pub fn rotary_backward(queue: &Queue, d: ViewMut<f32>, positions: View<u32>, cos_sin: View<f32>) {
    rotate(queue, d, positions, cos_sin, -1.0);
}

fn rotate<T: Real>(queue: &Queue, x: ViewMut<T>, positions: View<u32>, cos_sin: View<f32>, direction: f32) {
    let d = cos_sin.cols();
    assert_eq!(positions.cols(), x.rows(), "rotary: positions against rows of x");
    assert!(
        d.is_multiple_of(2) && x.cols().is_multiple_of(d),
        "rotary: {} columns are not whole heads of {d}",
        x.cols()
    );
    if x.rows() == 0 {
        return;
    }
    let positions = positions.row(0);
    let last = positions.iter().copied().max().unwrap_or(0) as usize;
    assert!(last < cos_sin.rows(), "rotary: position {last} of a table of {}", cos_sin.rows());
    by_rows(queue, x.rows(), x.cols(), |rows| {
        queue.isa().run_without_pairs(Rotate { x: &x, positions, cos_sin, direction, rows });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::ops::check::{assert_close, queues, random, tolerance, wide};

    fn check_against_reference<T: Real>(n: usize, heads: usize, d: usize) {
        let (theta, width) = (1e4, heads * d);
        let table = rotary_table(theta, d, 50, None);
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
            // The turn is linear and keeps lengths: its gradient is its inverse.
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

    #[test]
    fn scaling_stretches_long_waves_only() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        // transformers' `_compute_llama3_parameters` for rope_theta 500000 and head_dim 8.
        let frequencies = [1.0f64, 0.037_606_03, 0.001_414_213_6, 0.000_053_182_96];
        let wanted = [frequencies[0], frequencies[1], stretched_by_hand(frequencies[2]), frequencies[3] / 8.0];
        let table = rotary_table(500_000.0, 8, 2, Some(scaling));
        for (j, wanted) in wanted.into_iter().enumerate() {
            let got = f64::from(table.host()[8 + 4 + j]).asin();
            assert!((got - wanted).abs() < 1e-6 * wanted + 1e-9, "frequency {j}: {got} instead of {wanted}");
        }
    }

    /// Between the two limits: a wave of 4,443 positions, of 8,192 that the model was trained for.
    fn stretched_by_hand(frequency: f64) -> f64 {
        let kept = (8192.0 * frequency / (2.0 * std::f64::consts::PI) - 1.0) / 3.0;
        frequency * ((1.0 - kept) / 8.0 + kept)
    }
}
