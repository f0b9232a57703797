//! The traits of vector arithmetic: [`Simd`], the operations of an instruction path, and [`Kernel`], a computation that
//! uses them.
//!
//! Read next: [`super::portable`], which defines each method in plain Rust.

use crate::device::Isa;
use crate::dtype::{DType, Real, bf16};

/// Vector arithmetic of one instruction path.
///
/// # Safety
/// Every `unsafe` method has this contract: the elements that the method names (`LANES`, or `count` of them) must be
/// valid for reads, or for writes, at the pointer. They need no alignment beyond that of an element. Elements past them
/// are not touched, and need not exist.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The instruction path.
    const ISA: Isa;
    /// Number of f32 in a vector.
    const LANES: usize;
    /// Whether [`Simd::dot_bf16`] is one instruction. If it is not, it is cheaper to widen an operand once, beforehand.
    const NATIVE_BF16: bool;
    /// A vector of `LANES` f32.
    type F: Copy;
    /// A vector of `LANES` pairs of bf16. The first of a pair is in the lower half of a lane.
    type Pairs: Copy;
    /// A truth value for each lane.
    type Mask: Copy;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a · b`, rounded once.
    fn neg_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`; so the result is `b` if one is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`; so the result is `b` if one is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2ⁿ` for integer-valued `n` in -126 ..= 127; any value elsewhere.
    fn pow2(self, n: Self::F) -> Self::F;
    /// `a · 2ⁿ` for integer-valued `n` in -252 ..= 254.
    #[inline(always)]
    fn scale_by_pow2(self, a: Self::F, n: Self::F) -> Self::F {
        let half = self.round(self.mul(n, self.splat(0.5)));
        self.mul(self.mul(a, self.pow2(half)), self.pow2(self.sub(n, half)))
    }

    /// `a < b`; false if one is NaN.
    fn lt(self, a: Self::F, b: Self::F) -> Self::Mask;
    /// True in the first `count` lanes.
    fn first(self, count: usize) -> Self::Mask;
    /// `a` where the mask is true, otherwise `b`.
    fn select(self, mask: Self::Mask, a: Self::F, b: Self::F) -> Self::F;
    /// The mask as bits; lane 0 is the lowest.
    fn bits(self, mask: Self::Mask) -> u32;

    /// The sum of all lanes. The upper half is added to the lower half until one lane is left.
    fn reduce_add(self, a: Self::F) -> f32;
    /// The greatest lane, by the same tree as [`Simd::reduce_add`].
    fn reduce_max(self, a: Self::F) -> f32;

    /// Loads `LANES` pairs.
    unsafe fn load_pairs(self, from: *const bf16) -> Self::Pairs;
    /// The same pair in every lane. The first of the pair is in the lower 16 bits.
    fn splat_pair(self, pair: u32) -> Self::Pairs;
    /// The first and the second elements of the pairs, widened.
    fn widen_pairs(self, pairs: Self::Pairs) -> (Self::F, Self::F);
    /// Pairs of two vectors whose lanes are bf16 values already (see [`Simd::round_to_bf16`]).
    fn pairs(self, first: Self::F, second: Self::F) -> Self::Pairs;
    /// Each lane rounded to the nearest bf16 value, exactly as [`Real::from_f32`] does; the result is still an f32.
    fn round_to_bf16(self, a: Self::F) -> Self::F;
    /// Two vectors rounded to bf16, as pairs for [`Simd::dot_bf16`] only. Subnormal numbers may become zero on the path
    /// where `dot_bf16` takes them as zero anyway.
    #[inline(always)]
    fn rounded_pairs(self, first: Self::F, second: Self::F) -> Self::Pairs {
        self.pairs(self.round_to_bf16(first), self.round_to_bf16(second))
    }
    /// Writes `LANES` pairs.
    unsafe fn store_pairs(self, to: *mut bf16, pairs: Self::Pairs);
    /// `(acc + a₁·b₁) + a₀·b₀` in each lane, every `+` rounded once, as `vdpbf16ps` computes it. That instruction takes
    /// subnormal inputs and results as zero; the other paths do not.
    fn dot_bf16(self, acc: Self::F, a: Self::Pairs, b: Self::Pairs) -> Self::F;

    /// Loads `LANES` elements.
    unsafe fn load_f32(self, from: *const f32) -> Self::F;
    /// Loads the first `count <= LANES` elements; the other lanes are zero.
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> Self::F;
    /// Writes `LANES` elements.
    unsafe fn store_f32(self, to: *mut f32, a: Self::F);
    /// Writes the first `count <= LANES` elements.
    unsafe fn store_f32_partial(self, to: *mut f32, a: Self::F, count: usize);
    /// Loads `LANES` elements, widened.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F;
    /// Loads the first `count <= LANES` elements, widened; the other lanes are zero.
    unsafe fn load_bf16_partial(self, from: *const bf16, count: usize) -> Self::F;
    /// Writes `LANES` elements, each rounded to nearest even exactly as [`Real::from_f32`] does.
    unsafe fn store_bf16(self, to: *mut bf16, a: Self::F);
    /// Writes the first `count <= LANES` elements, rounded as by [`Simd::store_bf16`].
    unsafe fn store_bf16_partial(self, to: *mut bf16, a: Self::F, count: usize);

    /// `0` in every lane.
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }

    /// Loads `LANES` elements of either type, widened to f32.
    ///
    /// # Safety
    /// The contract of [`Simd`].
    #[inline(always)]
    unsafe fn load<T: Real>(self, from: *const T) -> Self::F {
        // SAFETY: forwarded; `DTYPE` says which type `T` is.
        unsafe {
            match T::DTYPE {
                DType::F32 => self.load_f32(from.cast()),
                _ => self.load_bf16(from.cast()),
            }
        }
    }

    /// Loads the first `count <= LANES` elements of either type, widened to f32; the other lanes are zero.
    ///
    /// # Safety
    /// The contract of [`Simd`].
    #[inline(always)]
    unsafe fn load_partial<T: Real>(self, from: *const T, count: usize) -> Self::F {
        // SAFETY: forwarded; `DTYPE` says which type `T` is.
        unsafe {
            match T::DTYPE {
                DType::F32 => self.load_f32_partial(from.cast(), count),
                _ => self.load_bf16_partial(from.cast(), count),
            }
        }
    }

    /// Writes `LANES` elements of either type, rounded to nearest even.
    ///
    /// # Safety
    /// The contract of [`Simd`].
    #[inline(always)]
    unsafe fn store<T: Real>(self, to: *mut T, a: Self::F) {
        // SAFETY: forwarded; `DTYPE` says which type `T` is.
        unsafe {
            match T::DTYPE {
                DType::F32 => self.store_f32(to.cast(), a),
                _ => self.store_bf16(to.cast(), a),
            }
        }
    }

    /// Writes the first `count <= LANES` elements of either type, rounded to nearest even.
    ///
    /// # Safety
    /// The contract of [`Simd`].
    #[inline(always)]
    unsafe fn store_partial<T: Real>(self, to: *mut T, a: Self::F, count: usize) {
        // SAFETY: forwarded; `DTYPE` says which type `T` is.
        unsafe {
            match T::DTYPE {
                DType::F32 => self.store_f32_partial(to.cast(), a, count),
                _ => self.store_bf16_partial(to.cast(), a, count),
            }
        }
    }
}

/// A computation that is written once for every path.
///
/// A kernel is a struct of its arguments (views, pointers, scalars). The task that runs the kernel makes it:
/// ```text
/// struct Halve<'a> { x: &'a mut [f32] }
/// impl Kernel for Halve<'_> {
///     type Output = ();
///     #[inline(always)]
///     fn run<S: Simd>(self, s: S) { … }
/// }
/// queue.parallel(blocks, |block| queue.isa().run(Halve { x: … }));
/// ```
pub(crate) trait Kernel {
    /// The type of its result.
    type Output;
    /// The computation. Mark it, and everything that it calls with `s`, `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}
