//! AdamW: one step of the optimiser over one tensor, and the squared norm that clipping needs.
//!
//! The weight decay is decoupled and multiplied by the learning rate, as in `torch.optim.AdamW`. The update equals
//! PyTorch's except for rounding. Clipping is a factor, `gradient_scale`, so that the gradient is read only once.
//!
//! Source: Loshchilov and Hutter 2019, arXiv 1711.05101, Algorithm 2. Read next: `ops/elementwise/mod.rs`.

mod cpu;

use std::sync::atomic::{AtomicU32, Ordering};

use super::split::{TASK_ELEMENTS, by_elements, row, row_mut};
use crate::check::expect;
use crate::{Queue, View, ViewMut};
use cpu::{Numbers, Squares, Update};

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay: each step subtracts `lr · weight_decay` times the weight.
    pub weight_decay: f32,
    /// Number of this step, counted from 1.
    pub step: u32,
}

/// Takes one step. It overwrites weight and moments.
///
/// # Shapes
/// * `weight`, `gradient`, `m`, `v`: the same shape. `gradient_scale` multiplies the gradient first (for clipping or
///   averaging).
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
    let shape = weight.shape();
    expect(queue, "adamw: weight", &weight, shape);
    expect(queue, "adamw: gradient", &gradient, shape);
    expect(queue, "adamw: m", &m, shape);
    expect(queue, "adamw: v", &v, shape);
    assert!(config.step > 0, "adamw: the first step is 1");
    let step = f64::from(config.step);
    let correction1 = 1.0 - f64::from(config.beta1).powf(step);
    let correction2 = 1.0 - f64::from(config.beta2).powf(step);
    let numbers = Numbers {
        gradient_scale,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        step_size: (f64::from(config.lr) / correction1) as f32,
        inverse_root: (1.0 / correction2.sqrt()) as f32,
        decay: (1.0 - f64::from(config.lr) * f64::from(config.weight_decay)) as f32,
    };
    let together = weight.is_contiguous() && gradient.is_contiguous() && m.is_contiguous() && v.is_contiguous();
    let (rows, cols) = if together { (1, shape.0 * shape.1) } else { shape };
    by_elements(queue, rows, cols, |i, range| {
        let (at, len) = (range.start, range.len());
        queue.isa().run_without_pairs(Update {
            weight: row_mut(&weight, i).wrapping_add(at),
            gradient: row(&gradient, i).wrapping_add(at),
            m: row_mut(&m, i).wrapping_add(at),
            v: row_mut(&v, i).wrapping_add(at),
            len,
            numbers,
        });
    });
}

/// Σ x². It is summed over fixed chunks, and then over the chunks in order. So it does not depend on the number of
/// threads.
///
/// # Shapes
/// * `x`: any shape.
pub fn squared_norm(queue: &Queue, x: View<f32>) -> f64 {
    expect(queue, "squared_norm: x", &x, x.shape());
    let x = if x.is_contiguous() { x.reshape(1, x.rows() * x.cols()) } else { x };
    let chunks = x.cols().div_ceil(TASK_ELEMENTS);
    let sums: Vec<AtomicU32> = (0..x.rows() * chunks).map(|_| AtomicU32::new(0)).collect();
    by_elements(queue, x.rows(), x.cols(), |row, range| {
        let chunk = row * chunks + range.start / TASK_ELEMENTS;
        let sum = queue.isa().run_without_pairs(Squares(&x.row(row)[range]));
        sums[chunk].store(sum.to_bits(), Ordering::Relaxed);
    });
    sums.into_iter().map(|sum| f64::from(f32::from_bits(sum.into_inner()))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, queues, random, wide};

    /// The update, as PyTorch's documentation of `torch.optim.AdamW` states it.
    fn reference(w: &mut f64, g: f64, m: &mut f64, v: &mut f64, c: &AdamW) {
        let (beta1, beta2, lr) = (f64::from(c.beta1), f64::from(c.beta2), f64::from(c.lr));
        *w -= lr * f64::from(c.weight_decay) * *w;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        let m_hat = *m / (1.0 - beta1.powi(c.step as i32));
        let v_hat = *v / (1.0 - beta2.powi(c.step as i32));
        *w -= lr * m_hat / (v_hat.sqrt() + f64::from(c.eps));
    }

    #[test]
    fn three_steps_equal_the_reference_and_do_not_depend_on_threads() {
        for (rows, cols) in [(0, 5), (1, 1), (3, 7), (1, 40_000)] {
            let n = rows * cols;
            let mut by_threads: Vec<Vec<f32>> = Vec::new();
            for queue in queues() {
                let mut state = [random::<f32>(1, n), vec![0.0; n], vec![0.0; n]];
                let mut state64 = [wide(&state[0]), vec![0.0; n], vec![0.0; n]];
                for step in 1..=3 {
                    let config = AdamW { lr: 0.05, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.3, step };
                    let g = random::<f32>(10 + u64::from(step), n);
                    let [w, m, v] = &mut state;
                    let (w, m, v) =
                        (ViewMut::of(w, rows, cols), ViewMut::of(m, rows, cols), ViewMut::of(v, rows, cols));
                    adamw(&queue, w, View::of(&g, rows, cols), m, v, &config, 0.25);
                    let [w, m, v] = &mut state64;
                    (0..n).for_each(|i| reference(&mut w[i], f64::from(g[i]) * 0.25, &mut m[i], &mut v[i], &config));
                }
                for (name, (got, wanted)) in ["w", "m", "v"].iter().zip(state.iter().zip(&state64)) {
                    assert_close(name, got, wanted, 2e-6);
                }
                by_threads.push(state.concat());
            }
            by_threads.chunks(2).for_each(|pair| assert_same_bits("by threads", &pair[0], &pair[1]));
        }
    }

    #[test]
    fn squared_norm_does_not_depend_on_threads() {
        let x = random::<f32>(1, 100_003);
        let wanted: f64 = wide(&x).iter().map(|x| x * x).sum();
        for pair in queues().chunks(2) {
            let [one, three] = [&pair[0], &pair[1]].map(|queue| squared_norm(queue, View::of(&x, 1, x.len())));
            assert!(one == three && (one / wanted - 1.0).abs() < 1e-6, "{one} and {three} instead of {wanted}");
            let narrow = View::of(&x[..100_000], 1000, 100).col_range(0..3);
            let wanted: f64 = (0..1000).flat_map(|i| wide(narrow.row(i))).map(|x| x * x).sum();
            assert!((squared_norm(one_of(pair), narrow) / wanted - 1.0).abs() < 1e-6);
            assert_eq!(squared_norm(one_of(pair), View::of(&[], 0, 4)), 0.0);
        }
    }

    fn one_of(pair: &[Queue]) -> &Queue {
        &pair[0]
    }
}
