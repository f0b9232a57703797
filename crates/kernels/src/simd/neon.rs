//! The path of NEON, which every aarch64 has: vectors of 4 f32. A small copy handles tails.

use std::arch::aarch64::*;

use super::vector::{Kernel, Simd};
use crate::device::Isa;
use crate::dtype::bf16;

/// The token of [`Isa::Neon`]. Only the function below makes one.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// # Safety
/// [`Isa::Neon`] must be available.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

macro_rules! on_neon {
    ($body:expr) => {
        // SAFETY: the token exists, and so do the instructions. Pointers fulfil the contract of `Simd`.
        unsafe { $body }
    };
}

const LANES: usize = 4;

impl Neon {
    /// Each lane rounded to bf16: the value in the upper 16 bits, zeros in the lower ones.
    #[inline(always)]
    fn rounded(self, a: float32x4_t) -> uint32x4_t {
        on_neon!({
            let bits = vreinterpretq_u32_f32(a);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
            let number = vceqq_f32(a, a);
            vandq_u32(vbslq_u32(number, rounded, quiet), vdupq_n_u32(0xffff_0000))
        })
    }

    #[inline(always)]
    fn narrow(self, a: float32x4_t) -> uint16x4_t {
        on_neon!(vmovn_u32(vshrq_n_u32::<16>(self.rounded(a))))
    }

    #[inline(always)]
    fn widen(self, a: uint16x4_t) -> float32x4_t {
        on_neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(a)))
    }
}

impl Simd for Neon {
    const ISA: Isa = Isa::Neon;
    const LANES: usize = LANES;
    const NATIVE_BF16: bool = false;
    type F = float32x4_t;
    type Pairs = uint32x4_t;
    type Mask = uint32x4_t;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        on_neon!(vdupq_n_f32(x))
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        on_neon!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn neg_fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        on_neon!(vfmsq_f32(c, a, b))
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vbslq_f32(vcltq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        on_neon!(vsqrtq_f32(a))
    }
    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        on_neon!(vrndnq_f32(a))
    }
    #[inline(always)]
    fn pow2(self, n: float32x4_t) -> float32x4_t {
        on_neon!({
            let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn lt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        on_neon!(vcltq_f32(a, b))
    }
    #[inline(always)]
    fn first(self, count: usize) -> uint32x4_t {
        let lanes: [u32; LANES] = [0, 1, 2, 3];
        on_neon!(vcltq_u32(vld1q_u32(lanes.as_ptr()), vdupq_n_u32(count.min(LANES) as u32)))
    }
    #[inline(always)]
    fn select(self, mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        on_neon!(vbslq_f32(mask, a, b))
    }
    #[inline(always)]
    fn bits(self, mask: uint32x4_t) -> u32 {
        let weights: [u32; LANES] = [1, 2, 4, 8];
        on_neon!(vaddvq_u32(vandq_u32(mask, vld1q_u32(weights.as_ptr()))))
    }

    #[inline(always)]
    fn reduce_add(self, a: float32x4_t) -> f32 {
        on_neon!({
            let pair = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(pair) + vget_lane_f32::<1>(pair)
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        on_neon!({
            let (low, high) = (vget_low_f32(a), vget_high_f32(a));
            let pair = vbsl_f32(vcgt_f32(low, high), low, high);
            let (x, y) = (vget_lane_f32::<0>(pair), vget_lane_f32::<1>(pair));
            if x > y { x } else { y }
        })
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const bf16) -> uint32x4_t {
        on_neon!(vreinterpretq_u32_u16(vld1q_u16(from.cast())))
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> uint32x4_t {
        on_neon!(vdupq_n_u32(pair))
    }
    #[inline(always)]
    fn widen_pairs(self, pairs: uint32x4_t) -> (float32x4_t, float32x4_t) {
        on_neon!({
            let first = vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs));
            (first, vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff_0000))))
        })
    }
    #[inline(always)]
    fn pairs(self, first: float32x4_t, second: float32x4_t) -> uint32x4_t {
        on_neon!({
            let first = vshrq_n_u32::<16>(vreinterpretq_u32_f32(first));
            vorrq_u32(first, vreinterpretq_u32_f32(second))
        })
    }
    #[inline(always)]
    fn round_to_bf16(self, a: float32x4_t) -> float32x4_t {
        on_neon!(vreinterpretq_f32_u32(self.rounded(a)))
    }
    #[inline(always)]
    unsafe fn store_pairs(self, to: *mut bf16, pairs: uint32x4_t) {
        on_neon!(vst1q_u16(to.cast(), vreinterpretq_u16_u32(pairs)))
    }
    #[inline(always)]
    fn dot_bf16(self, acc: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
        on_neon!({
            let ((a0, a1), (b0, b1)) = (self.widen_pairs(a), self.widen_pairs(b));
            vfmaq_f32(vfmaq_f32(acc, a1, b1), a0, b0)
        })
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> float32x4_t {
        on_neon!(vld1q_f32(from))
    }
    #[inline(always)]
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> float32x4_t {
        let mut a = [0.0f32; LANES];
        on_neon!({
            std::ptr::copy_nonoverlapping(from, a.as_mut_ptr(), count.min(LANES));
            vld1q_f32(a.as_ptr())
        })
    }
    #[inline(always)]
    unsafe fn store_f32(self, to: *mut f32, a: float32x4_t) {
        on_neon!(vst1q_f32(to, a))
    }
    #[inline(always)]
    unsafe fn store_f32_partial(self, to: *mut f32, a: float32x4_t, count: usize) {
        let mut words = [0.0f32; LANES];
        on_neon!({
            vst1q_f32(words.as_mut_ptr(), a);
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, count.min(LANES));
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> float32x4_t {
        self.widen(on_neon!(vld1_u16(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, from: *const bf16, count: usize) -> float32x4_t {
        let mut a = [bf16::ZERO; LANES];
        self.widen(on_neon!({
            std::ptr::copy_nonoverlapping(from, a.as_mut_ptr(), count.min(LANES));
            vld1_u16(a.as_ptr().cast())
        }))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, a: float32x4_t) {
        on_neon!(vst1_u16(to.cast(), self.narrow(a)))
    }
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut bf16, a: float32x4_t, count: usize) {
        let mut words = [bf16::ZERO; LANES];
        on_neon!({
            vst1_u16(words.as_mut_ptr().cast(), self.narrow(a));
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, count.min(LANES));
        })
    }
}
