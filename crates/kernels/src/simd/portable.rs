//! The path of plain Rust: arrays and `f32::mul_add`. It defines what every method means, and runs anywhere. If the
//! target's baseline has no FMA instruction, `mul_add` calls the C library, which is exact but slow.

use super::vector::Simd;
use crate::device::Isa;
use crate::dtype::{Real, bf16};

const LANES: usize = 8;

/// The token of [`Isa::Portable`].
#[derive(Clone, Copy)]
pub(crate) struct Portable;

macro_rules! lanewise {
    ($result:ty, |$($x:ident),+| $body:expr) => {{
        let mut result = <$result>::default();
        for lane in 0..LANES {
            $(let $x = $x[lane];)+
            result[lane] = $body;
        }
        result
    }};
}

impl Simd for Portable {
    const ISA: Isa = Isa::Portable;
    const LANES: usize = LANES;
    const NATIVE_BF16: bool = false;
    type F = [f32; LANES];
    type Pairs = [u32; LANES];
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b, c| a.mul_add(b, c))
    }
    #[inline(always)]
    fn neg_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b, c| (-a).mul_add(b, c))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        lanewise!(Self::F, |a| a.sqrt())
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        lanewise!(Self::F, |a| a.round_ties_even())
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        lanewise!(Self::F, |n| f32::from_bits((((n as i32).wrapping_add(127)) as u32) << 23))
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::Mask {
        lanewise!(Self::Mask, |a, b| a < b)
    }
    #[inline(always)]
    fn first(self, count: usize) -> Self::Mask {
        let mut mask = [false; LANES];
        for (lane, bit) in mask.iter_mut().enumerate() {
            *bit = lane < count;
        }
        mask
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, a: Self::F, b: Self::F) -> Self::F {
        lanewise!(Self::F, |mask, a, b| if mask { a } else { b })
    }
    #[inline(always)]
    fn bits(self, mask: Self::Mask) -> u32 {
        let mut bits = 0;
        for (lane, bit) in mask.into_iter().enumerate() {
            bits |= (bit as u32) << lane;
        }
        bits
    }

    #[inline(always)]
    fn reduce_add(self, a: Self::F) -> f32 {
        let b = [a[0] + a[4], a[1] + a[5], a[2] + a[6], a[3] + a[7]];
        (b[0] + b[2]) + (b[1] + b[3])
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        let mut best = a[0];
        for x in a {
            best = if best > x { best } else { x };
        }
        best
    }

    #[inline(always)]
    unsafe fn load_pairs(self, from: *const bf16) -> Self::Pairs {
        // SAFETY: the contract of `Simd`.
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> Self::Pairs {
        [pair; LANES]
    }
    #[inline(always)]
    fn widen_pairs(self, pairs: Self::Pairs) -> (Self::F, Self::F) {
        let first = lanewise!(Self::F, |pairs| f32::from_bits(pairs << 16));
        (first, lanewise!(Self::F, |pairs| f32::from_bits(pairs & 0xffff_0000)))
    }
    #[inline(always)]
    fn pairs(self, first: Self::F, second: Self::F) -> Self::Pairs {
        lanewise!(Self::Pairs, |first, second| (first.to_bits() >> 16) | second.to_bits())
    }
    #[inline(always)]
    fn round_to_bf16(self, a: Self::F) -> Self::F {
        lanewise!(Self::F, |a| <bf16 as Real>::from_f32(a).to_f32())
    }
    #[inline(always)]
    unsafe fn store_pairs(self, to: *mut bf16, pairs: Self::Pairs) {
        // SAFETY: the contract of `Simd`.
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs) }
    }
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::Pairs, b: Self::Pairs) -> Self::F {
        let ((a0, a1), (b0, b1)) = (self.widen_pairs(a), self.widen_pairs(b));
        self.fma(a0, b0, self.fma(a1, b1, acc))
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> Self::F {
        // SAFETY: the contract of `Simd`.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f32_partial(self, from: *const f32, count: usize) -> Self::F {
        let mut a = [0.0; LANES];
        // SAFETY: the contract of `Simd`.
        unsafe { std::ptr::copy_nonoverlapping(from, a.as_mut_ptr(), count.min(LANES)) };
        a
    }
    #[inline(always)]
    unsafe fn store_f32(self, to: *mut f32, a: Self::F) {
        // SAFETY: the contract of `Simd`.
        unsafe { to.cast::<Self::F>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn store_f32_partial(self, to: *mut f32, a: Self::F, count: usize) {
        // SAFETY: the contract of `Simd`.
        unsafe { std::ptr::copy_nonoverlapping(a.as_ptr(), to, count.min(LANES)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F {
        // SAFETY: the contract of `Simd`.
        let a = unsafe { from.cast::<[bf16; LANES]>().read_unaligned() };
        lanewise!(Self::F, |a| a.to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, from: *const bf16, count: usize) -> Self::F {
        let mut a = [bf16::ZERO; LANES];
        // SAFETY: the contract of `Simd`.
        unsafe { std::ptr::copy_nonoverlapping(from, a.as_mut_ptr(), count.min(LANES)) };
        lanewise!(Self::F, |a| Real::to_f32(a))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, a: Self::F) {
        let a = lanewise!([bf16; LANES], |a| <bf16 as Real>::from_f32(a));
        // SAFETY: the contract of `Simd`.
        unsafe { to.cast::<[bf16; LANES]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn store_bf16_partial(self, to: *mut bf16, a: Self::F, count: usize) {
        let a = lanewise!([bf16; LANES], |a| <bf16 as Real>::from_f32(a));
        // SAFETY: the contract of `Simd`.
        unsafe { std::ptr::copy_nonoverlapping(a.as_ptr(), to, count.min(LANES)) }
    }
}
