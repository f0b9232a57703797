//! The two paths of AVX-512, with and without `vdpbf16ps`: vectors of 16 f32. Mask registers handle tails.

use std::arch::x86_64::*;

use super::vector::{Kernel, Simd};
use crate::device::Isa;
use crate::dtype::bf16;

/// The token of [`Isa::Avx512Bf16`] (`NATIVE_BF16`) and of [`Isa::Avx512`]. Only the two functions below make one;
/// their callers have checked that the machine has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const NATIVE_BF16: bool>(());

/// # Safety
/// [`Isa::Avx512Bf16`] must be available.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn run_with_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

/// # Safety
/// [`Isa::Avx512`] must be available.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

macro_rules! on_avx512 {
    ($body:expr) => {
        // SAFETY: the token exists, and so do the instructions. Pointers fulfil the contract of `Simd`.
        unsafe { $body }
    };
}

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

impl<const NATIVE_BF16: bool> Avx512<NATIVE_BF16> {
    /// Each lane rounded to bf16: the value in the upper 16 bits, zeros in the lower ones.
    #[inline(always)]
    fn rounded(self, a: __m512) -> __m512i {
        on_avx512!({
            let bits = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            let quiet = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
            _mm512_and_si512(quiet, _mm512_set1_epi32(0xffff_0000u32 as i32))
        })
    }

    #[inline(always)]
    fn narrow(self, a: __m512) -> __m256i {
        const SUBNORMAL: i32 = 0x20;
        // `vcvtneps2bf16` rounds as `Real::from_f32` does, except that it turns subnormal numbers into zero.
        if NATIVE_BF16 && on_avx512!(_mm512_fpclass_ps_mask::<SUBNORMAL>(a)) == 0 {
            return on_avx512!(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(a)));
        }
        on_avx512!(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(self.rounded(a))))
    }

    #[inline(always)]
    fn widen(self, a: __m256i) -> __m512 {
        on_avx512!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(a))))
    }
}

impl<const NATIVE_BF16: bool> Simd for Avx512<NATIVE_BF16> {
    const ISA: Isa = if NATIVE_BF16 { Isa::Avx512Bf16 } else { Isa::Avx512 };
    const LANES: usize = 16;
    const NATIVE_BF16: bool = NATIVE_BF16;
    type F = __m512;
    type Pairs = __m512i;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        on_avx512!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        on_avx512!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        on_avx512!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        on_avx512!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        on_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m512) -> __m512 {
        on_avx512!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn scale_by_pow2(self, a: __m512, n: __m512) -> __m512 {
        on_avx512!(_mm512_scalef_ps(a, n))
    }

    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        on_avx512!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __mmask16 {
        mask(count.min(16))
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        on_avx512!(_mm512_mask_blend_ps(mask, b, a))
    }
    #[inline(always)]
    fn bits(self, mask: __mmask16) -> u32 {
        mask as u32
    }

    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        on_avx512!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        on_avx512!({
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const bf16) -> __m512i {
        on_avx512!(_mm512_loadu_si512(from.cast()))
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> __m512i {
        on_avx512!(_mm512_set1_epi32(pair as i32))
    }
    #[inline(always)]
    fn widen_pairs(self, pairs: __m512i) -> (__m512, __m512) {
        on_avx512!({
            let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
            let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
            (first, _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)))
        })
    }
    #[inline(always)]
    fn pairs(self, first: __m512, second: __m512) -> __m512i {
        on_avx512!({
            let first = _mm512_srli_epi32::<16>(_mm512_castps_si512(first));
            _mm512_or_si512(first, _mm512_castps_si512(second))
        })
    }
    #[inline(always)]
    fn round_to_bf16(self, a: __m512) -> __m512 {
        on_avx512!(_mm512_castsi512_ps(self.rounded(a)))
    }
    #[inline(always)]
    fn rounded_pairs(self, first: __m512, second: __m512) -> __m512i {
        /// The first element of each pair comes from the lower half, the second from the upper half.
        const INTERLEAVED: [u16; 32] = {
            let mut order = [0; 32];
            let mut lane = 0;
            while lane < 32 {
                order[lane] = (lane / 2 + lane % 2 * 16) as u16;
                lane += 1;
            }
            order
        };
        if !NATIVE_BF16 {
            return self.pairs(self.round_to_bf16(first), self.round_to_bf16(second));
        }
        on_avx512!({
            let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_permutexvar_epi16(_mm512_loadu_si512(INTERLEAVED.as_ptr().cast()), halves)
        })
    }
    #[inline(always)]
    unsafe fn store_pairs(self, to: *mut bf16, pairs: __m512i) {
        on_avx512!(_mm512_storeu_si512(to.cast(), pairs))
    }
    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        on_avx512!({
            if NATIVE_BF16 {
                use std::mem::transmute;
                return _mm512_dpbf16_ps(acc, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b));
            }
            let ((a0, a1), (b0, b1)) = (self.widen_pairs(a), self.widen_pairs(b));
            _mm512_fmadd_ps(a0, b0, _mm512_fmadd_ps(a1, b1, acc))
        })
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> __m512 {
        on_avx512!(_mm512_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> __m512 {
        on_avx512!(_mm512_maskz_loadu_ps(mask(count), from))
    }
    #[inline(always)]
    unsafe fn store_f32(self, to: *mut f32, a: __m512) {
        on_avx512!(_mm512_storeu_ps(to, a))
    }
    #[inline(always)]
    unsafe fn store_f32_partial(self, to: *mut f32, a: __m512, count: usize) {
        on_avx512!(_mm512_mask_storeu_ps(to, mask(count), a))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        self.widen(on_avx512!(_mm256_loadu_si256(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, from: *const bf16, count: usize) -> __m512 {
        self.widen(on_avx512!(_mm256_maskz_loadu_epi16(mask(count), from.cast())))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, a: __m512) {
        on_avx512!(_mm256_storeu_si256(to.cast(), self.narrow(a)))
    }
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut bf16, a: __m512, count: usize) {
        // The mask is hidden from the compiler. If LLVM 22 knows that the count is one, it emits a store of 32 bits,
        // which writes two elements.
        let mask = std::hint::black_box(mask(count));
        on_avx512!(_mm256_mask_storeu_epi16(to.cast(), mask, self.narrow(a)))
    }
}
