//! Tools that the tests of operations share: queues of every instruction path, made-up numbers, and comparisons.

use crate::{Isa, Queue, Real};

/// Queues of every instruction path of this machine, each with one and with three threads.
pub(crate) fn queues() -> Vec<Queue> {
    Isa::available().into_iter().flat_map(|isa| [1, 3].map(|threads| Queue::cpu(threads, isa))).collect()
}

/// `len` made-up numbers in (−1, 1). They are the same for the same seed, and exactly representable in `T`.
pub(crate) fn random<T: Real>(seed: u64, len: usize) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for _ in 0..8 {
        next();
    }
    (0..len).map(|_| T::from_f32(next())).collect()
}

/// Widened to f64.
pub(crate) fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// Checks that the largest difference is at most `tolerance` times the largest wanted magnitude, or times 0.1 if that
/// is more (inputs are of order 1). Panics with `what`.
pub(crate) fn assert_close<T: Real>(what: &str, got: &[T], wanted: &[f64], tolerance: f64) {
    assert_eq!(got.len(), wanted.len(), "{what}: length");
    let size = wanted.iter().fold(0.1f64, |size, x| size.max(x.abs()));
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let got = f64::from(got.to_f32());
        let error = (got - wanted).abs() / size;
        assert!(error <= tolerance, "{what}[{i}]: {got} instead of {wanted}, off by {error:.1e} of {size:.1e}");
    }
}

/// Checks that all bits are equal.
pub(crate) fn assert_same_bits<T: Real>(what: &str, got: &[T], wanted: &[T]) {
    assert_eq!(got.len(), wanted.len(), "{what}: length");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let (got, wanted) = (got.to_f32(), wanted.to_f32());
        assert!(got.to_bits() == wanted.to_bits(), "{what}[{i}]: {got:e} and {wanted:e} differ in bits");
    }
}

/// The tolerance for rounding: one and a half units in the last place for bf16, and the error of long sums for f32.
pub(crate) fn tolerance<T: Real>() -> f64 {
    match T::DTYPE {
        crate::DType::Bf16 => 6e-3,
        _ => 5e-6,
    }
}

/// Central differences of `loss` in each element of `x`, in f64.
pub(crate) fn central_differences(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    (0..x.len())
        .map(|i| {
            let mut moved = x.to_vec();
            moved[i] = x[i] + step;
            let above = loss(&moved);
            moved[i] = x[i] - step;
            (above - loss(&moved)) / (2.0 * step)
        })
        .collect()
}
