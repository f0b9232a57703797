//! Tests every method on every path of this machine against [`Portable`] and scalar Rust.

use super::portable::Portable;
use super::{Kernel, Simd, exp};
use crate::device::Isa;
use crate::dtype::{Real, bf16};

const AWKWARD: [f32; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    3.999_999,
    1e-40,
    -1e-40,
    1.175_494_4e-38,
    1e30,
    -1e30,
    f32::MAX,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.003_906_3,
    1.011_718_8,
];

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn on_every_path<K: Kernel + Clone>(kernel: K, check: impl Fn(Isa, K::Output)) {
    for isa in Isa::available() {
        check(isa, isa.run(kernel.clone()));
    }
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Add,
    Sub,
    Mul,
    Div,
    Fma,
    NegFma,
    Max,
    Min,
    Sqrt,
    Round,
    SelectLess,
}

#[derive(Clone)]
struct Lanewise<'a>(Method, &'a [f32], &'a [f32], &'a [f32]);

impl Kernel for Lanewise<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Lanewise(method, x, y, z) = self;
        let mut out = vec![7.0f32; x.len()];
        for start in (0..x.len()).step_by(S::LANES) {
            let count = S::LANES.min(x.len() - start);
            // SAFETY: `count` elements are left in each slice.
            unsafe {
                let a = s.load_partial(x[start..].as_ptr(), count);
                let b = s.load_partial(y[start..].as_ptr(), count);
                let c = s.load_partial(z[start..].as_ptr(), count);
                let result = match method {
                    Method::Add => s.add(a, b),
                    Method::Sub => s.sub(a, b),
                    Method::Mul => s.mul(a, b),
                    Method::Div => s.div(a, b),
                    Method::Fma => s.fma(a, b, c),
                    Method::NegFma => s.neg_fma(a, b, c),
                    Method::Max => s.max(a, b),
                    Method::Min => s.min(a, b),
                    Method::Sqrt => s.sqrt(a),
                    Method::Round => s.round(a),
                    Method::SelectLess => s.select(s.lt(a, b), a, c),
                };
                s.store_partial(out[start..].as_mut_ptr(), result, count);
            }
        }
        out
    }
}

#[test]
fn arithmetic_equals_plain_rust_bit_for_bit() {
    let (mut x, mut y, mut z) = (Vec::new(), Vec::new(), Vec::new());
    for a in AWKWARD {
        for b in AWKWARD {
            x.push(a);
            y.push(b);
            z.push(0.3 - a);
        }
    }
    use Method::*;
    for method in [Add, Sub, Mul, Div, Fma, NegFma, Max, Min, Sqrt, Round, SelectLess] {
        let kernel = Lanewise(method, &x, &y, &z);
        let wanted = kernel.clone().run(Portable);
        on_every_path(kernel, |isa, found| {
            for i in 0..x.len() {
                let (a, b, c) = (x[i], y[i], z[i]);
                assert!(
                    same(found[i], wanted[i]),
                    "{method:?} of {a}, {b}, {c} on {}: {} is not {}",
                    isa.name(),
                    found[i],
                    wanted[i]
                );
            }
        });
    }
}

#[derive(Clone)]
struct Partial<T: Real>(Vec<T>, usize);

impl<T: Real> Kernel for Partial<T> {
    type Output = (Vec<T>, Vec<f32>, u32, usize);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let count = self.1.min(S::LANES);
        // Allocations of exactly `count` elements, so that a memory checker detects an access past them.
        let exact: Vec<T> = self.0[..count].to_vec();
        let mut lanes = vec![7.0f32; S::LANES];
        let mut out = vec![T::from_f32(7.0); S::LANES];
        // SAFETY: `exact` holds `count` elements, the other two `LANES`.
        unsafe {
            let a = s.load_partial(exact.as_ptr(), count);
            s.store(lanes.as_mut_ptr(), a);
            s.store_partial(out.as_mut_ptr(), a, count);
        }
        (out, lanes, s.bits(s.first(count)), S::LANES)
    }
}

fn check_partial<T: Real>() {
    let values: Vec<T> = (0..16).map(|i| T::from_f32(i as f32 + 0.25)).collect();
    for count in 0..=16 {
        on_every_path(Partial(values.clone(), count), |isa, (out, lanes, bits, width)| {
            let count = count.min(width);
            assert_eq!(bits, (1u32 << count) - 1);
            for lane in 0..width {
                let (stored, loaded) =
                    if lane < count { (values[lane], values[lane].to_f32()) } else { (T::from_f32(7.0), 0.0) };
                assert!(out[lane] == stored && lanes[lane] == loaded, "{} lane {lane} of {count}", isa.name());
            }
        });
    }
}

#[test]
fn partial_loads_give_zeros_and_partial_stores_leave_the_rest() {
    check_partial::<f32>();
    check_partial::<bf16>();
}

#[derive(Clone)]
struct StoreOne<'a>(&'a [f32]);

impl Kernel for StoreOne<'_> {
    type Output = Vec<bf16>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<bf16> {
        let mut out = vec![bf16::ONE; 16];
        // SAFETY: 16 elements are given, and one is written.
        unsafe { s.store_partial(out.as_mut_ptr(), s.load(self.0.as_ptr()), 1) };
        out
    }
}

#[test]
fn a_partial_store_of_a_count_known_to_the_compiler_leaves_the_rest() {
    on_every_path(StoreOne(&[3.0; 16]), |isa, out| {
        assert_eq!(out[0].to_f32(), 3.0, "{}", isa.name());
        assert!(out[1..].iter().all(|x| *x == bf16::ONE), "{}: {out:?}", isa.name());
    });
}

#[derive(Clone)]
struct Narrow<'a>(&'a [f32]);

impl Kernel for Narrow<'_> {
    type Output = (Vec<bf16>, Vec<f32>, [Vec<bf16>; 2]);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut out = vec![bf16::ZERO; self.0.len()];
        let mut wide = vec![0.0; self.0.len()];
        let mut pairs = [(); 2].map(|()| vec![bf16::ZERO; 2 * self.0.len()]);
        for start in (0..self.0.len()).step_by(S::LANES) {
            // SAFETY: the length is a multiple of 16, and so of every `LANES`.
            unsafe {
                s.store(out[start..].as_mut_ptr(), s.load(self.0[start..].as_ptr()));
                s.store(wide[start..].as_mut_ptr(), s.load(out[start..].as_ptr()));
                let rounded = s.round_to_bf16(s.load(self.0[start..].as_ptr()));
                let pair = s.pairs(s.splat(1.0), rounded);
                s.store_pairs(pairs[0][2 * start..].as_mut_ptr(), pair);
                let (first, second) = s.widen_pairs(pair);
                assert_eq!((s.reduce_max(first), s.reduce_add(first)), (1.0, S::LANES as f32));
                s.store_pairs(pairs[1][2 * start..].as_mut_ptr(), s.pairs(second, first));
            }
        }
        (out, wide, pairs)
    }
}

/// Two halves of a list as pairs in memory.
#[derive(Clone)]
struct RoundedPairs<'a>(&'a [f32]);

impl Kernel for RoundedPairs<'_> {
    type Output = Vec<bf16>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let half = self.0.len() / 2;
        let mut pairs = vec![bf16::ZERO; self.0.len()];
        for start in (0..half).step_by(S::LANES) {
            // SAFETY: half the length is a multiple of 16, and so of every `LANES`.
            unsafe {
                let (first, second) = (s.load(self.0[start..].as_ptr()), s.load(self.0[half + start..].as_ptr()));
                s.store_pairs(pairs[2 * start..].as_mut_ptr(), s.rounded_pairs(first, second));
            }
        }
        pairs
    }
}

#[test]
fn rounded_pairs_are_rounded_and_lie_first_second() {
    let numbers = (0..1u32 << 16).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
    // Subnormal numbers may become zero.
    let values: Vec<f32> = numbers.map(|x| if x.is_subnormal() { 0.0 } else { x }).collect();
    let half = values.len() / 2;
    on_every_path(RoundedPairs(&values), |isa, pairs| {
        for (i, &x) in values.iter().enumerate() {
            let found = pairs[if i < half { 2 * i } else { 2 * (i - half) + 1 }];
            let wanted = <bf16 as Real>::from_f32(x);
            assert_eq!(found.to_bits(), wanted.to_bits(), "{x}, {i} on {}", isa.name());
        }
    });
}

#[test]
fn bf16_is_rounded_as_real_rounds_it() {
    let mut values: Vec<f32> = (0..1u32 << 16).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).collect();
    values.extend((0..1u32 << 12).map(|i| f32::from_bits((i << 20) | 0x8000)));
    values.extend((0..1u32 << 12).map(|i| f32::from_bits((i << 20) | 0x18000)));
    on_every_path(Narrow(&values), |isa, (narrow, wide, pairs)| {
        for (i, &x) in values.iter().enumerate() {
            let wanted = <bf16 as Real>::from_f32(x);
            assert_eq!(narrow[i].to_bits(), wanted.to_bits(), "{x} on {}", isa.name());
            assert!(same(wide[i], wanted.to_f32()), "{x} on {}", isa.name());
            for (pairs, at) in pairs.iter().zip([2 * i + 1, 2 * i]) {
                assert_eq!(pairs[at].to_bits(), wanted.to_bits(), "{x} in a pair on {}", isa.name());
                assert_eq!(pairs[at ^ 1], bf16::ONE);
            }
        }
    });
}

#[derive(Clone)]
struct Exponential<'a>(&'a [f32]);

impl Kernel for Exponential<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; self.0.len()];
        for start in (0..self.0.len()).step_by(S::LANES) {
            let count = S::LANES.min(self.0.len() - start);
            // SAFETY: `count` elements are left in both.
            unsafe {
                let x = s.load_partial(self.0[start..].as_ptr(), count);
                s.store_partial(out[start..].as_mut_ptr(), exp(s, x), count);
            }
        }
        out
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    let mut values: Vec<f32> = (-120_000..120_000).map(|i| i as f32 * 7.3e-4).collect();
    values.extend((0..2000).map(|i| (i as f32 - 1000.0) * 1e-9));
    on_every_path(Exponential(&values), |isa, found| {
        let mut worst = 0.0f64;
        for (&x, &y) in values.iter().zip(&found) {
            let exact = (x as f64).exp();
            if exact < f32::MIN_POSITIVE as f64 {
                assert_eq!(y, 0.0, "exp({x}) on {}", isa.name());
                continue;
            }
            let unit = (exact.log2().floor() - 23.0).exp2();
            worst = worst.max((y as f64 - exact).abs() / unit);
        }
        assert!(worst <= 2.0, "{worst} units on {}", isa.name());
    });
}

#[test]
fn exp_is_clean_at_its_ends() {
    let values = [f32::NEG_INFINITY, -1e30, -87.4, 0.0, -0.0, 89.5, 1e30, f32::INFINITY, f32::NAN];
    on_every_path(Exponential(&values), |isa, found| {
        let wanted = [0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY, f32::NAN];
        for i in 0..values.len() {
            assert!(same(found[i], wanted[i]), "exp({}) = {} on {}", values[i], found[i], isa.name());
        }
    });
}

#[derive(Clone)]
struct Reduce<'a>(&'a [f32]);

impl Kernel for Reduce<'_> {
    type Output = (usize, f32, f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        // SAFETY: 16 elements are given.
        let a = unsafe { s.load(self.0.as_ptr()) };
        let one = s.pow2(s.splat(0.0));
        (S::LANES, s.reduce_add(a), s.reduce_max(a), s.reduce_add(one))
    }
}

#[test]
fn reductions_use_the_stated_tree() {
    let values: Vec<f32> = (0..16).map(|i| ((i * 7919) % 23) as f32 * 0.137 + 1e-3 * i as f32).collect();
    on_every_path(Reduce(&values), |isa, (lanes, sum, max, ones)| {
        let mut tree = values[..lanes].to_vec();
        while tree.len() > 1 {
            let half = tree.len() / 2;
            tree = (0..half).map(|i| tree[i] + tree[i + half]).collect();
        }
        assert_eq!(sum.to_bits(), tree[0].to_bits(), "{}", isa.name());
        assert_eq!(max, values[..lanes].iter().fold(f32::MIN, |a, &b| a.max(b)), "{}", isa.name());
        assert_eq!(ones, lanes as f32);
    });
}

#[derive(Clone)]
struct Dot<'a>(&'a [bf16], &'a [bf16], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; self.2.len()];
        for start in (0..out.len()).step_by(S::LANES) {
            // SAFETY: the lengths are multiples of every `LANES`, with twice as many bf16.
            unsafe {
                let a = s.load_pairs(self.0[2 * start..].as_ptr());
                let b = s.load_pairs(self.1[2 * start..].as_ptr());
                let acc = s.load(self.2[start..].as_ptr());
                s.store(out[start..].as_mut_ptr(), s.dot_bf16(acc, a, b));
            }
        }
        out
    }
}

#[test]
fn pairs_of_bf16_are_accumulated_second_first() {
    let a: Vec<bf16> = (0..2048).map(|i| bf16::from_f32(((i * 37) % 101) as f32 * 0.37 - 17.0)).collect();
    let b: Vec<bf16> = (0..2048).map(|i| bf16::from_f32(((i * 53) % 97) as f32 * 0.011 + 0.3)).collect();
    let acc: Vec<f32> = (0..1024).map(|i| ((i * 29) % 89) as f32 * 1.7 - 40.0).collect();
    on_every_path(Dot(&a, &b, &acc), |isa, found| {
        for i in 0..acc.len() {
            let second = a[2 * i + 1].to_f32().mul_add(b[2 * i + 1].to_f32(), acc[i]);
            let wanted = a[2 * i].to_f32().mul_add(b[2 * i].to_f32(), second);
            assert_eq!(found[i].to_bits(), wanted.to_bits(), "lane {i} on {}", isa.name());
        }
    });
}
