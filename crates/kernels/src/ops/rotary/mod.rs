//! Rotary position embedding: each pair of a head's elements turned by an angle that grows with the position.
//!
//! The pairs are `(x[j], x[j + D/2])`, the half-split layout of Hugging Face's Llama and Qwen; GGUF's Llama files
//! interleave them and must be un-permuted on reading. The table of cosines and sines is made once, in f64. Positions are
//! given per row, since they restart in every sequence of a packed batch.
//!
//! Source: Su et al. 2021, arXiv 2104.09864; the scaling is Llama 3.1's. Read next: `ops/attention/mod.rs`.

use crate::{Buffer, Device, Queue, Real, View, ViewMut};

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
    let mut x = x;
    let _ = queue;
    let d = cos_sin.cols();
    assert_eq!(positions.cols(), x.rows(), "rotary: positions against rows of x");
    assert!(
        d.is_multiple_of(2) && x.cols().is_multiple_of(d),
        "rotary: {} columns are not whole heads of {d}",
        x.cols()
    );
    for i in 0..x.rows() {
        let (cos, sin) = cos_sin.row(positions.row(0)[i] as usize).split_at(d / 2);
        for head in x.row_mut(i).chunks_exact_mut(d) {
            let (first, second) = head.split_at_mut(d / 2);
            for j in 0..d / 2 {
                let (a, b, sin) = (first[j].to_f32(), second[j].to_f32(), sin[j] * direction);
                first[j] = T::from_f32(a * cos[j] - b * sin);
                second[j] = T::from_f32(b * cos[j] + a * sin);
            }
        }
    }
}
