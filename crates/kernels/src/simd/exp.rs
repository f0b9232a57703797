//! The exponential function on vectors.

use super::vector::Simd;

/// Results below the smallest normal number, 2⁻¹²⁶, become zero. This is ln 2⁻¹²⁶, rounded up.
const UNDERFLOW: f32 = -87.336_54;
/// Above ln(f32::MAX) = 88.722_84, where the scaling overflows to infinity without a special case.
const OVERFLOW: f32 = 89.0;
/// ln 2 in two parts. The upper part has few enough bits that its products with |n| ≤ 128 are exact.
const LN_2_UPPER: f32 = 0.693_359_4;
const LN_2_LOWER: f32 = -2.121_944_4e-4;
/// Coefficients of (eʳ - 1 - r) / r² on |r| ≤ ln 2 / 2, by increasing powers. The relative error of eʳ is at most
/// 3.1e-9 (weighted least squares, iterated to the minimax polynomial).
const TAIL: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_454];

/// `eˣ` in each lane, within 2 units in the last place.
///
/// `exp(-inf)` is exactly 0, and so is every result below 2⁻¹²⁶. `exp(0)` is exactly 1. Results beyond the greatest f32
/// are infinite. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let under = s.lt(x, s.splat(UNDERFLOW));
    // `max` and `min` return their second argument if one is NaN. So the constant comes first, and NaN passes through.
    let x = s.min(s.splat(OVERFLOW), s.max(s.splat(UNDERFLOW), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.neg_fma(n, s.splat(LN_2_UPPER), x);
    let r = s.neg_fma(n, s.splat(LN_2_LOWER), r);
    let mut q = s.splat(TAIL[4]);
    q = s.fma(q, r, s.splat(TAIL[3]));
    q = s.fma(q, r, s.splat(TAIL[2]));
    q = s.fma(q, r, s.splat(TAIL[1]));
    q = s.fma(q, r, s.splat(TAIL[0]));
    let p = s.add(s.fma(s.mul(q, r), r, r), s.splat(1.0));
    s.select(under, s.zero(), s.scale_by_pow2(p, n))
}
