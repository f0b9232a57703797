//! Properties of products, and of packing their right operands.

use super::{Case, Draw, Kind, check};
use crate::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use crate::testing::{tolerance, wide};
use crate::{Device, Real, Scratch, bf16};

/// Rows, depth and columns. They are often near the size of a tile and a panel, and sometimes exceed a block of k.
fn sizes(draw: &Draw) -> (usize, usize, usize) {
    let deep = draw.below(6) == 5;
    let k = if deep { draw.within(380..=800) } else { draw.below(70) };
    (draw.below(16), k, draw.below(if deep { 40 } else { 100 }))
}

/// `Σ_p a[i, p] · b[p, j]`.
fn product(m: usize, k: usize, n: usize, a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let element = |at: usize| (0..k).map(|p| a(at / n, p) * b(p, at % n)).sum();
    (0..m * n).map(element).collect()
}

fn matmul_case<T: Real + Kind, O: Real + Kind>(draw: &Draw) -> Case {
    let (m, k, n) = sizes(draw);
    let [transposed, has_bias, has_addend] = [(); 3].map(|()| draw.chance());
    let (a, w) = (draw.numbers::<T>(m * k), draw.numbers::<f32>(k * n));
    let (bias, addend) = (draw.numbers::<f32>(n), draw.numbers::<f32>(m * n));
    let (a64, rounded): (_, Vec<T>) = (wide(&a), w.iter().map(|&w| T::from_f32(w)).collect());
    let w64 = wide(&rounded);
    let b = |p: usize, j: usize| if transposed { w64[p * n + j] } else { w64[j * k + p] };
    let mut wanted = product(m, k, n, |i, p| a64[i * k + p], b);
    for (at, sum) in wanted.iter_mut().enumerate() {
        *sum += if has_bias { f64::from(bias[at % n]) } else { 0.0 };
        *sum += if has_addend { f64::from(addend[at]) } else { 0.0 };
    }
    let mut case = Case::new(move |queue, operands| {
        let (head, tail) = operands.split_at_mut(2);
        let [a, w] = head else { unreachable!() };
        let (out, rest) = tail.split_first_mut().expect("an output");
        let mut packed = Packed::<T>::zeros(Device::Cpu, k, n);
        if transposed {
            packed.pack_transposed(queue, w.view(), 3);
        } else {
            packed.pack(queue, w.view(), 3);
        }
        let mut rest = rest.iter();
        let mut next = |present: bool| present.then(|| rest.next().expect("an operand").view());
        let epilogue = Epilogue { bias: next(has_bias), addend: next(has_addend) };
        matmul(queue, a.view::<T>(), packed.at(3), epilogue, out.view_mut::<O>());
    });
    let shape = if transposed { (k, n) } else { (n, k) };
    let tolerance = if O::DTYPE == crate::DType::F32 { 1e-5 } else { tolerance::<O>() };
    case = case.reads(draw, (m, k), &a).reads(draw, shape, &w).writes::<O>(draw, (m, n), wanted, tolerance);
    if has_bias {
        case = case.reads(draw, (1, n), &bias);
    }
    if has_addend {
        case = case.reads(draw, (m, n), &addend);
    }
    case
}

#[test]
fn products() {
    check(matmul_case::<f32, f32>);
    check(matmul_case::<bf16, f32>);
    check(matmul_case::<f32, bf16>);
    check(matmul_case::<bf16, bf16>);
}

fn gradient_case<T: Real + Kind>(draw: &Draw) -> Case {
    let (n, m, k) = sizes(draw);
    let accumulate = draw.chance();
    let (a, b, out) = (draw.numbers::<T>(m * n), draw.numbers::<T>(m * k), draw.numbers::<f32>(n * k));
    let (a64, b64) = (wide(&a), wide(&b));
    let mut wanted = product(n, m, k, |i, p| a64[p * n + i], |p, j| b64[p * k + j]);
    if accumulate {
        wanted.iter_mut().zip(&out).for_each(|(sum, &before)| *sum += f64::from(before));
    }
    let case = Case::new(move |queue, operands| {
        let [a, b, out] = operands else { unreachable!() };
        let scratch = &mut Scratch::new(Device::Cpu);
        matmul_transposed_a(queue, a.view::<T>(), b.view(), out.view_mut(), accumulate, scratch);
    });
    let case = case.reads(draw, (m, n), &a).reads(draw, (m, k), &b);
    case.changes(draw, (n, k), &out, wanted, 1e-5)
}

#[test]
fn gradients_of_weights() {
    check(gradient_case::<f32>);
    check(gradient_case::<bf16>);
}
