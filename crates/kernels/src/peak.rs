//! What the chip can do at most: independent multiply-adds in registers, on all threads of a queue.
//!
//! Speeds are reported as a share of this, measured in the same run, since clocks differ from day to day.

use std::hint::black_box;
use std::time::Instant;

use crate::simd::{Kernel, Simd};
use crate::{DType, Queue, bf16};

/// Turns of the loop in one measurement, about 50 µs.
const TURNS: usize = 10_000;
/// Accumulators: more than latency times throughput of any path, and they fit in 16 registers.
const CHAINS: usize = 12;

/// The highest rate of multiply-adds over `dtype` with f32 accumulation, counted as two operations each, in GFLOP/s.
///
/// Takes about 20 ms: the best of many short runs.
///
/// # Panics
/// When `dtype` is neither f32 nor bf16.
pub fn peak_gflops(queue: &Queue, dtype: DType) -> f64 {
    assert!(matches!(dtype, DType::F32 | DType::Bf16), "peak_gflops: products are of f32 or bf16");
    let begin = Instant::now();
    let mut best: f64 = 0.0;
    while begin.elapsed().as_millis() < 20 {
        let start = Instant::now();
        let tasks = queue.threads();
        let flops_of_task = std::sync::atomic::AtomicUsize::new(0);
        queue.parallel(tasks, |_| {
            let flops = match dtype {
                DType::F32 => queue.isa().run(Chains::<false>),
                _ => queue.isa().run(Chains::<true>),
            };
            flops_of_task.store(flops, std::sync::atomic::Ordering::Relaxed);
        });
        let flops = flops_of_task.into_inner() * tasks;
        best = best.max(flops as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

struct Chains<const PAIRS: bool>;

impl<const PAIRS: bool> Kernel for Chains<PAIRS> {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let one = black_box(1.0f32);
        let mut acc = [s.splat(one); CHAINS];
        if PAIRS {
            let x = s.splat_pair(black_box(u32::from(bf16::from_f32(0.5).to_bits())));
            for _ in 0..TURNS {
                for acc in &mut acc {
                    *acc = s.dot_bf16(*acc, x, x);
                }
            }
        } else {
            let x = s.splat(black_box(0.5));
            for _ in 0..TURNS {
                for acc in &mut acc {
                    *acc = s.fma(x, x, *acc);
                }
            }
        }
        let mut sum = s.zero();
        for acc in acc {
            sum = s.add(sum, acc);
        }
        black_box(s.reduce_add(sum));
        TURNS * CHAINS * S::LANES * if PAIRS { 4 } else { 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn a_peak_is_a_positive_number() {
        let queue = Queue::cpu(1, Isa::available()[0]);
        assert!(peak_gflops(&queue, DType::F32) > 0.1 && peak_gflops(&queue, DType::Bf16) > 0.1);
    }
}
