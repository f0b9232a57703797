//! AdamW: one step of the optimiser over one tensor, and the squared norm that clipping needs.
//!
//! The weight decay is decoupled and scaled by the learning rate, as in `torch.optim.AdamW`; the update equals
//! PyTorch's to rounding. Clipping enters as `gradient_scale`, so that the gradient is read once.
//!
//! Source: Loshchilov and Hutter 2017, arXiv 1711.05101. Read next: `ops/elementwise/mod.rs`.

use crate::{Queue, View, ViewMut};

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay, times `lr` a step.
    pub weight_decay: f32,
    /// Number of this step, the first being 1.
    pub step: u32,
}

/// One step: moments and weight overwritten.
///
/// # Shapes
/// * `weight`, `gradient`, `m`, `v`: the same shape; `gradient_scale` multiplies the gradient first (clipping, averaging).
///
/// # Panics
/// When shapes disagree or `step` is 0.
pub fn adamw(
    queue: &Queue,
    weight: ViewMut<f32>,
    gradient: View<f32>,
    m: ViewMut<f32>,
    v: ViewMut<f32>,
    config: &AdamW,
    gradient_scale: f32,
) {
    let (mut weight, mut m, mut v) = (weight, m, v);
    let _ = queue;
    let shape = (weight.rows(), weight.cols());
    assert_eq!(shape, (gradient.rows(), gradient.cols()), "adamw: weight against gradient");
    assert_eq!(shape, (m.rows(), m.cols()), "adamw: weight against m");
    assert_eq!(shape, (v.rows(), v.cols()), "adamw: weight against v");
    assert!(config.step > 0, "adamw: the first step is 1");
    let step = f64::from(config.step);
    let correction1 = 1.0 - f64::from(config.beta1).powf(step);
    let correction2 = 1.0 - f64::from(config.beta2).powf(step);
    let step_size = (f64::from(config.lr) / correction1) as f32;
    let inverse_root2 = (1.0 / correction2.sqrt()) as f32;
    let decay = 1.0 - config.lr * config.weight_decay;
    for i in 0..shape.0 {
        let (w, g, m, v) = (weight.row_mut(i), gradient.row(i), m.row_mut(i), v.row_mut(i));
        for j in 0..shape.1 {
            let g = g[j] * gradient_scale;
            m[j] += (1.0 - config.beta1) * (g - m[j]);
            v[j] = config.beta2 * v[j] + (1.0 - config.beta2) * g * g;
            let denominator = v[j].sqrt() * inverse_root2 + config.eps;
            w[j] = w[j] * decay - step_size * (m[j] / denominator);
        }
    }
}

/// Σ x², summed over fixed chunks in order, so that it does not depend on the number of threads.
///
/// # Shapes
/// * `x`: any shape.
pub fn squared_norm(queue: &Queue, x: View<f32>) -> f64 {
    let _ = queue;
    (0..x.rows()).flat_map(|i| x.row(i)).map(|&x| f64::from(x) * f64::from(x)).sum()
}
