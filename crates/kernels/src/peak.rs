//! Measures the peak of this machine: the rate of fused multiply-adds on registers, and the rate of reading memory.
//!
//! `ferule bench` and `bench/LOG.md` give the speed of products as a share of these rates. The rates are measured and
//! not taken from a data sheet, because the clock rate depends on the instructions and on other work. Every figure is
//! the best of many short runs: other work on the machine can only make a run slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::device::Queue;
use crate::dtype::{DType, bf16};
use crate::simd::{Kernel, Simd};

/// How long the rate of multiply-adds is measured. The system may keep a new thread for a while on the core of the
/// thread that made it; this time is longer.
const SEARCH: Duration = Duration::from_millis(200);
/// Number of passes over memory.
const PASSES: usize = 20;
/// Number of independent sums. A core that starts two multiply-adds per cycle, and finishes each after four or five
/// cycles, needs ten.
const SUMS: usize = 12;
const ITERATIONS: usize = 20_000;

/// Multiply-adds on registers. It returns the number of floating-point operations.
struct MultiplyAdd<const BF16: bool>;

impl<const BF16: bool> Kernel for MultiplyAdd<BF16> {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let mut sums = [s.zero(); SUMS];
        let factor = s.splat(black_box(0.999));
        let pair = s.splat_pair(black_box(0x3f80_3f80));
        for _ in 0..ITERATIONS {
            for sum in sums.iter_mut() {
                // A path without `vdpbf16ps` widens an operand once for many products, so f32 multiply-adds limit its
                // rate.
                *sum = if BF16 && S::NATIVE_BF16 { s.dot_bf16(*sum, pair, pair) } else { s.fma(*sum, factor, factor) };
            }
        }
        let mut total = s.zero();
        for sum in sums {
            total = s.add(total, sum);
        }
        black_box(s.reduce_add(total));
        let operations = if BF16 && S::NATIVE_BF16 { 4 } else { 2 };
        ITERATIONS * SUMS * S::LANES * operations
    }
}

/// The peak rate of multiply-adds on the queue's threads, in GFLOP/s. A multiply-add counts as two operations.
///
/// For `bf16` it is the rate of products of pairs with f32 sums, as [`crate::gemm`] computes them.
///
/// # Panics
/// For types that products cannot have.
pub fn measure(queue: &Queue, dtype: DType) -> f64 {
    let isa = queue.isa();
    match dtype {
        DType::F32 => best_rate(queue, || isa.run(MultiplyAdd::<false>)),
        DType::Bf16 => best_rate(queue, || isa.run(MultiplyAdd::<true>)),
        other => panic!("products are made of f32 or bf16, not of {}", other.name()),
    }
}

/// The peak rate of reading `bytes` of memory on the queue's threads, in GB/s. If the last-level cache is smaller than
/// `bytes`, it is the rate of main memory; otherwise that of a cache.
pub fn bandwidth(queue: &Queue, bytes: usize) -> f64 {
    let mut buffer = Buffer::<bf16>::zeros(queue.device(), bytes.div_ceil(READ_BYTES) * READ_BYTES / 2);
    // Write all pages first: pages that were never written are all the same physical page of zeros.
    buffer.host_mut().fill(bf16::ONE);
    let parts = buffer.len() * 2 / READ_BYTES;
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        queue.parallel(parts, |part| {
            let from = buffer.host()[part * READ_BYTES / 2..][..READ_BYTES / 2].as_ptr();
            queue.isa().run(Read { from });
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    buffer.size_bytes() as f64 / best / 1e9
}

/// Number of bytes that one task reads.
const READ_BYTES: usize = 256 << 10;

struct Read {
    from: *const bf16,
}

impl Kernel for Read {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [s.zero(); SUMS];
        let mut at = 0;
        let whole = READ_BYTES / (S::LANES * 4 * SUMS) * SUMS * S::LANES;
        while at < whole {
            for sum in sums.iter_mut() {
                // SAFETY: `READ_BYTES` bytes may be read. All bit patterns are valid f32.
                *sum = s.add(*sum, unsafe { s.load_f32(self.from.cast::<f32>().add(at)) });
                at += S::LANES;
            }
        }
        for sum in sums {
            black_box(s.reduce_add(sum));
        }
    }
}

/// Runs `work` on every thread at once. Returns the best rate of the operations that it counts, in 10⁹ per second.
fn best_rate(queue: &Queue, work: impl Fn() -> usize + Sync) -> f64 {
    let mut best = 0.0f64;
    let begin = Instant::now();
    while begin.elapsed() < SEARCH {
        let start = Instant::now();
        let operations = std::sync::atomic::AtomicUsize::new(0);
        queue.parallel(queue.threads(), |_| {
            operations.fetch_add(work(), std::sync::atomic::Ordering::Relaxed);
        });
        best = best.max(operations.into_inner() as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Isa;

    #[test]
    fn every_path_has_a_peak_and_a_bandwidth() {
        // The portable path may call a function for every multiply-add; it would take a minute.
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Portable) {
            let queue = Queue::cpu(1, isa);
            for dtype in [DType::F32, DType::Bf16] {
                assert!(measure(&queue, dtype) > 0.1, "{} {}", isa.name(), dtype.name());
            }
            assert!(bandwidth(&queue, 1 << 20) > 0.1);
        }
    }
}
