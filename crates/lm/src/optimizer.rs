//! The AdamW optimiser over an arena, with gradients clipped by their global norm.
//!
//! The moments have the same layout as the weights. Weight decay is decoupled, and applies only to matrices, not to
//! norm scales and biases. The caller's schedule gives the learning rate.
//!
//! # Source
//! Loshchilov & Hutter 2019, arXiv 1711.05101, Algorithm 2. `torch.optim.AdamW` gives the same steps.

use kernels::ops::adamw::{AdamW, adamw, squared_norm};
use kernels::{Buffer, Device, Queue};

use crate::params::Arena;

/// Constants of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of matrices; it is multiplied by the learning rate.
    pub weight_decay: f32,
    /// If the gradients' global norm is larger than this, they are scaled down to it; infinite for no clipping.
    pub max_grad_norm: f32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 }
    }
}

/// The moments and the number of steps taken.
pub struct Optimizer {
    /// First moments, in the arena's layout.
    pub first: Buffer<f32>,
    /// Second moments, in the arena's layout.
    pub second: Buffer<f32>,
    /// Number of steps taken.
    pub steps: u32,
    /// Its constants.
    pub hyperparameters: Hyperparameters,
}

impl Optimizer {
    /// Zero moments for `elements` weights.
    pub fn new(device: Device, elements: usize, hyperparameters: Hyperparameters) -> Self {
        let (first, second) = (Buffer::zeros(device, elements), Buffer::zeros(device, elements));
        Self { first, second, steps: 0, hyperparameters }
    }

    /// Takes one step. Returns the gradients' global norm before clipping. A norm that is not finite changes nothing:
    /// clipping by it would turn weights into NaN.
    ///
    /// # Panics
    /// When the arenas differ in size.
    pub fn step(&mut self, queue: &Queue, weights: &mut Arena, gradients: &Arena, learning_rate: f32) -> f32 {
        let hyper = self.hyperparameters;
        let norm = squared_norm(queue, gradients.values().view()).sqrt() as f32;
        if !norm.is_finite() {
            return norm;
        }
        let scale = if norm > hyper.max_grad_norm { hyper.max_grad_norm / (norm + 1e-6) } else { 1.0 };
        self.steps += 1;
        for index in 0..weights.specs().len() {
            let spec = &weights.specs()[index];
            let range = weights.offset(index)..weights.offset(index) + spec.len();
            let rule = AdamW {
                lr: learning_rate,
                beta1: hyper.beta1,
                beta2: hyper.beta2,
                eps: hyper.eps,
                weight_decay: if spec.is_matrix() { hyper.weight_decay } else { 0.0 },
                step: self.steps,
            };
            adamw(
                queue,
                weights.values_mut().view_mut().col_range(range.clone()),
                gradients.values().view().col_range(range.clone()),
                self.first.view_mut().col_range(range.clone()),
                self.second.view_mut().col_range(range),
                &rule,
                scale,
            );
        }
        norm
    }
}
