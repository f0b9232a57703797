//! Vector arithmetic for every instruction path: the trait [`Simd`], and [`Isa::run`], which chooses the path.
//!
//! An operation is written once, as a [`Kernel`] generic over `S: Simd`, and compiled once for each path. A value `s: S` is
//! a token without size. It exists only if the machine has the path's instructions; so arithmetic on
//! registers is safe, and only loads and stores, which take pointers, are `unsafe`.
//!
//! # What keeps a kernel fast
//! The compiler inlines a path's instructions only into functions that are compiled for the path. [`Isa::run`] enters such a function.
//! All that it calls, down to the innermost loop, must be `#[inline(always)]` to become a part of it. Closures do
//! not inherit this: keep vectors out of closures, and enter a kernel *inside* the task of a pool, not around it.
//!
//! # What it never does
//! It never approximates in silence: `exp` states its error, and every other operation is that of IEEE 754, correctly
//! rounded. Sums over lanes use one fixed tree. Lanes outside a mask are never read or written.
//!
//! Read next: [`portable`], which says in plain Rust what each method means; then `gemm/` or any `ops/*/cpu.rs`.

mod exp;
pub(crate) mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU8, Ordering};

use crate::device::Isa;
use crate::dtype::{DType, Real, bf16};

pub(crate) use exp::exp;

/// Vector arithmetic of one instruction path.
///
/// # Safety
/// Every `unsafe` method has this contract. The elements that the method names (`LANES`, or `count` of
/// them) must be valid for reads, or for writes, at the pointer. They need no alignment beyond that of an element.
/// Elements past them are not touched, and need not exist.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The path.
    const ISA: Isa;
    /// Elements in a vector.
    const LANES: usize;
    /// Whether [`Simd::dot_bf16`] is one instruction. Otherwise it is cheaper to widen an operand beforehand, once.
    const NATIVE_BF16: bool;
    /// A vector of `LANES` f32.
    type F: Copy;
    /// A vector of `LANES` pairs of bf16, the first of a pair in the lower half of a lane.
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
    /// `if a > b { a } else { b }`: where one is NaN, `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: where one is NaN, `b`.
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

    /// `a < b`; false where one is NaN.
    fn lt(self, a: Self::F, b: Self::F) -> Self::Mask;
    /// True in the first `count` lanes.
    fn first(self, count: usize) -> Self::Mask;
    /// `a` where the mask is true, otherwise `b`.
    fn select(self, mask: Self::Mask, a: Self::F, b: Self::F) -> Self::F;
    /// The mask as bits, lane 0 lowest.
    fn bits(self, mask: Self::Mask) -> u32;

    /// The sum of all lanes: the upper half is added to the lower until one lane is left.
    fn reduce_add(self, a: Self::F) -> f32;
    /// The greatest lane, by the same tree as [`Simd::reduce_add`].
    fn reduce_max(self, a: Self::F) -> f32;

    /// `LANES` pairs.
    unsafe fn load_pairs(self, from: *const bf16) -> Self::Pairs;
    /// The same pair in every lane: `low` is the first of the pair, and lies in the lower 16 bits.
    fn splat_pair(self, pair: u32) -> Self::Pairs;
    /// The firsts and the seconds of the pairs, widened.
    fn widen_pairs(self, pairs: Self::Pairs) -> (Self::F, Self::F);
    /// Pairs of two vectors whose lanes are bf16 values already (see [`Simd::round_to_bf16`]).
    fn pairs(self, first: Self::F, second: Self::F) -> Self::Pairs;
    /// Each lane rounded to the nearest bf16 value exactly as [`Real::from_f32`] does, and still an f32.
    fn round_to_bf16(self, a: Self::F) -> Self::F;
    /// Two vectors rounded to bf16, as pairs for [`Simd::dot_bf16`] and nothing else: subnormal numbers may become zero, where
    /// that takes them for zero anyway.
    #[inline(always)]
    fn rounded_pairs(self, first: Self::F, second: Self::F) -> Self::Pairs {
        self.pairs(self.round_to_bf16(first), self.round_to_bf16(second))
    }
    /// Writes `LANES` pairs.
    unsafe fn store_pairs(self, to: *mut bf16, pairs: Self::Pairs);
    /// `(acc + a₁·b₁) + a₀·b₀` in each lane, every `+` rounded once, as `vdpbf16ps` does. That instruction takes
    /// subnormal inputs and results for zero; the other paths do not.
    fn dot_bf16(self, acc: Self::F, a: Self::Pairs, b: Self::Pairs) -> Self::F;

    /// `LANES` elements.
    unsafe fn load_f32(self, from: *const f32) -> Self::F;
    /// The first `count <= LANES` elements; zero in the other lanes.
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> Self::F;
    /// Writes `LANES` elements.
    unsafe fn store_f32(self, to: *mut f32, a: Self::F);
    /// Writes the first `count <= LANES` elements.
    unsafe fn store_f32_partial(self, to: *mut f32, a: Self::F, count: usize);
    /// `LANES` elements, widened.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F;
    /// The first `count <= LANES` elements, widened; zero in the other lanes.
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

    /// `LANES` elements of either type, widened to f32.
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

    /// The first `count <= LANES` elements of either type; zero in the other lanes.
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

/// A computation written once for every path.
///
/// A kernel is a struct of its arguments (views, pointers, scalars). The task that runs it makes it:
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
    /// What it returns.
    type Output;
    /// The computation. Mark it, and all that it calls with `s`, `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

impl Isa {
    /// Runs a kernel on this path. Costs a few nanoseconds.
    ///
    /// # Panics
    /// When the machine cannot run this path.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self.is_available(), "this machine cannot run {}", self.name());
        match self {
            // SAFETY: the path is available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => unsafe { avx512::run_with_bf16(kernel) },
            // SAFETY: the path is available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: the path is available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: the path is available.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::run(kernel) },
            _ => kernel.run(portable::Portable),
        }
    }

    /// As [`Isa::run`], for kernels whose operands or results are of type `T`. Those of f32 use no pairs and no rounding; so both
    /// paths of AVX-512 share them.
    ///
    /// # Panics
    /// When the machine cannot run this path.
    #[inline]
    pub(crate) fn run_on<T: Real, K: Kernel>(self, kernel: K) -> K::Output {
        if const { matches!(T::DTYPE, DType::F32) } { self.run_without_pairs(kernel) } else { self.run(kernel) }
    }

    /// As [`Isa::run`], for kernels without [`Simd::Pairs`]. The two paths of AVX-512 differ in pairs, and in how they store bf16,
    /// which matters little where few are stored. So these kernels are compiled once for both.
    ///
    /// # Panics
    /// When the machine cannot run this path.
    #[inline]
    pub(crate) fn run_without_pairs<K: Kernel>(self, kernel: K) -> K::Output {
        assert!(self.is_available(), "this machine cannot run {}", self.name());
        match self {
            // SAFETY: the path is available, and so is its part without `vdpbf16ps`.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: the path is available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: the path is available.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::run(kernel) },
            _ => kernel.run(portable::Portable),
        }
    }

    /// Whether the machine can run this path. The processor is asked once.
    #[inline]
    fn is_available(self) -> bool {
        static AVAILABLE: AtomicU8 = AtomicU8::new(0);
        let bit = |isa: Isa| 1u8 << isa as u8;
        let mut available = AVAILABLE.load(Ordering::Relaxed);
        if available == 0 {
            // `Portable` is always there, so that this is never 0 again.
            available = Isa::available().into_iter().map(bit).sum();
            AVAILABLE.store(available, Ordering::Relaxed);
        }
        available & bit(self) != 0
    }
}

/// Asks for the cache line at `address`, to read it. Any address is allowed.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86_64, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the cache line at `address`, to write it. Any address is allowed.
#[inline(always)]
pub(crate) fn prefetch_to_write<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86_64, and a prefetch never faults. A processor without PREFETCHW does nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
