//! The path of AVX2 with FMA: vectors of 8 f32. It handles tails of f32 with `vmaskmov`, and tails of bf16 with a small
//! copy.

use std::arch::x86_64::*;

use super::vector::{Kernel, Simd};
use crate::device::Isa;
use crate::dtype::bf16;

/// The token of [`Isa::Avx2`]. Only the function below makes one; its caller has checked that the machine has the
/// instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// [`Isa::Avx2`] must be available.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

macro_rules! on_avx2 {
    ($body:expr) => {
        // SAFETY: the token exists, and so do the instructions. Pointers fulfil the contract of `Simd`.
        unsafe { $body }
    };
}

const LANES: usize = 8;

/// Eight words of ones, then eight of zeros. A window of eight words is a mask of the first lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    #[inline(always)]
    fn mask(self, count: usize) -> __m256i {
        let start = LANES - count.min(LANES);
        // The window starts at 0 ..= 8, so it lies inside the table.
        on_avx2!(_mm256_loadu_si256(MASKS.as_ptr().add(start).cast()))
    }

    /// Each lane rounded to bf16: the value in the upper 16 bits, zeros in the lower ones.
    #[inline(always)]
    fn rounded(self, a: __m256) -> __m256i {
        on_avx2!({
            let bits = _mm256_castps_si256(a);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let chosen = _mm256_blendv_epi8(rounded, quiet, nan);
            _mm256_and_si256(chosen, _mm256_set1_epi32(0xffff_0000u32 as i32))
        })
    }

    #[inline(always)]
    fn narrow(self, a: __m256) -> __m128i {
        on_avx2!({
            let words = _mm256_srli_epi32::<16>(self.rounded(a));
            let packed = _mm256_packus_epi32(words, words);
            _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
        })
    }

    #[inline(always)]
    fn widen(self, a: __m128i) -> __m256 {
        on_avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(a))))
    }
}

impl Simd for Avx2 {
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = LANES;
    const NATIVE_BF16: bool = false;
    type F = __m256;
    type Pairs = __m256i;
    type Mask = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        on_avx2!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        on_avx2!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        on_avx2!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        on_avx2!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        on_avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m256) -> __m256 {
        on_avx2!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> __m256 {
        on_avx2!(_mm256_castsi256_ps(self.mask(count)))
    }
    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        on_avx2!(_mm256_blendv_ps(b, a, mask))
    }
    #[inline(always)]
    fn bits(self, mask: __m256) -> u32 {
        on_avx2!(_mm256_movemask_ps(mask) as u32)
    }

    #[inline(always)]
    fn reduce_add(self, a: __m256) -> f32 {
        on_avx2!({
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        on_avx2!({
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const bf16) -> __m256i {
        on_avx2!(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> __m256i {
        on_avx2!(_mm256_set1_epi32(pair as i32))
    }
    #[inline(always)]
    fn widen_pairs(self, pairs: __m256i) -> (__m256, __m256) {
        on_avx2!({
            let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            (first, _mm256_castsi256_ps(_mm256_and_si256(pairs, upper)))
        })
    }
    #[inline(always)]
    fn pairs(self, first: __m256, second: __m256) -> __m256i {
        on_avx2!({
            let first = _mm256_srli_epi32::<16>(_mm256_castps_si256(first));
            _mm256_or_si256(first, _mm256_castps_si256(second))
        })
    }
    #[inline(always)]
    fn round_to_bf16(self, a: __m256) -> __m256 {
        on_avx2!(_mm256_castsi256_ps(self.rounded(a)))
    }
    #[inline(always)]
    unsafe fn store_pairs(self, to: *mut bf16, pairs: __m256i) {
        on_avx2!(_mm256_storeu_si256(to.cast(), pairs))
    }
    #[inline(always)]
    fn dot_bf16(self, acc: __m256, a: __m256i, b: __m256i) -> __m256 {
        on_avx2!({
            let ((a0, a1), (b0, b1)) = (self.widen_pairs(a), self.widen_pairs(b));
            _mm256_fmadd_ps(a0, b0, _mm256_fmadd_ps(a1, b1, acc))
        })
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> __m256 {
        on_avx2!(_mm256_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> __m256 {
        on_avx2!(_mm256_maskload_ps(from, self.mask(count)))
    }
    #[inline(always)]
    unsafe fn store_f32(self, to: *mut f32, a: __m256) {
        on_avx2!(_mm256_storeu_ps(to, a))
    }
    #[inline(always)]
    unsafe fn store_f32_partial(self, to: *mut f32, a: __m256, count: usize) {
        on_avx2!(_mm256_maskstore_ps(to, self.mask(count), a))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        self.widen(on_avx2!(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, from: *const bf16, count: usize) -> __m256 {
        let mut a = [bf16::ZERO; LANES];
        self.widen(on_avx2!({
            std::ptr::copy_nonoverlapping(from, a.as_mut_ptr(), count.min(LANES));
            _mm_loadu_si128(a.as_ptr().cast())
        }))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, a: __m256) {
        on_avx2!(_mm_storeu_si128(to.cast(), self.narrow(a)))
    }
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut bf16, a: __m256, count: usize) {
        let mut words = [bf16::ZERO; LANES];
        on_avx2!({
            _mm_storeu_si128(words.as_mut_ptr().cast(), self.narrow(a));
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, count.min(LANES));
        })
    }
}
