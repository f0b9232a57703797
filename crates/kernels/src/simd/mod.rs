//! Vector arithmetic for every instruction path: the trait [`Simd`], and [`Isa::run`], which selects the path.
//!
//! An operation is written once, as a [`Kernel`] that is generic over `S: Simd`, and compiled once for each path. A
//! value `s: S` is a zero-sized token. It exists only if the machine has the path's instructions. So arithmetic on
//! registers is safe, and only loads and stores, which take pointers, are `unsafe`.
//!
//! # What keeps a kernel fast
//! The compiler inlines a path's instructions only into functions that are compiled for the path. [`Isa::run`] calls
//! such a function. Everything that this function calls, down to the innermost loop, must be `#[inline(always)]` to
//! become part of it. Closures do not inherit this. So keep vectors out of closures, and start a kernel *inside* the
//! task of a pool, not around it.
//!
//! # What it never does
//! It never approximates silently: `exp` states its error, and every other operation is that of IEEE 754, correctly
//! rounded. Sums over lanes use one fixed tree. Lanes outside a mask are never read or written.
//!
//! Read next: [`vector`], the traits; [`portable`], which defines each method in plain Rust; then `gemm/` or any
//! `ops/*/cpu.rs`.

mod exp;
pub(crate) mod portable;
mod vector;

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
use crate::dtype::{DType, Real};

pub(crate) use exp::exp;
pub(crate) use vector::{Kernel, Simd};

impl Isa {
    /// Runs a kernel on this path. The call costs a few nanoseconds.
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

    /// As [`Isa::run`], for kernels whose operands or results are of type `T`. Kernels of f32 use no pairs and no
    /// rounding, so both paths of AVX-512 share them.
    ///
    /// # Panics
    /// When the machine cannot run this path.
    #[inline]
    pub(crate) fn run_on<T: Real, K: Kernel>(self, kernel: K) -> K::Output {
        if const { matches!(T::DTYPE, DType::F32) } { self.run_without_pairs(kernel) } else { self.run(kernel) }
    }

    /// As [`Isa::run`], for kernels without [`Simd::Pairs`]. The two paths of AVX-512 differ in pairs and in how they
    /// store bf16; the latter matters little where few values are stored. So these kernels are compiled once for both
    /// paths.
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

    /// Whether the machine can run this path. The processor is asked only once.
    #[inline]
    fn is_available(self) -> bool {
        static AVAILABLE: AtomicU8 = AtomicU8::new(0);
        let bit = |isa: Isa| 1u8 << isa as u8;
        let mut available = AVAILABLE.load(Ordering::Relaxed);
        if available == 0 {
            // `Portable` is always available, so the value is never 0 after this.
            available = Isa::available().into_iter().map(bit).sum();
            AVAILABLE.store(available, Ordering::Relaxed);
        }
        available & bit(self) != 0
    }
}

/// Prefetches the cache line at `address` for reading. Any address is allowed.
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

/// Prefetches the cache line at `address` for writing. Any address is allowed.
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
