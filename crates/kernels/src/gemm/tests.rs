//! Tests products against f64 at awkward sizes, and the equalities that follow from the canonical order.

use super::*;
use crate::device::{Device, Isa};
use crate::dtype::bf16;

/// Numbers in (-1, 1) from a formula, different for each `salt`.
fn numbers(len: usize, salt: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9e37_79b9) ^ salt.wrapping_mul(0x85eb_ca6b);
            x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
            x = (x ^ (x >> 12)).wrapping_mul(0x297a_2d39);
            (x ^ (x >> 15)) as i32 as f32 / 2_147_483_648.0
        })
        .collect()
}

fn values<T: Real>(len: usize, salt: u32) -> Vec<T> {
    numbers(len, salt).into_iter().map(T::from_f32).collect()
}

/// `addend + (a·b + bias)` in f64, and the sum of the terms' magnitudes, which bounds the rounding error.
fn reference<T: Real>(m: usize, k: usize, n: usize, a: &[T], b: impl Fn(usize, usize) -> f32) -> Vec<(f64, f64)> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (0.0f64, 0.0f64);
            for p in 0..k {
                let product = a[i * k + p].to_f32() as f64 * T::from_f32(b(p, j)).to_f32() as f64;
                sum += product;
                size += product.abs();
            }
            out.push((sum, size));
        }
    }
    out
}

/// Sizes around every boundary: tiles, panels, lanes, odd pairs, blocks of k.
const SIZES: [(usize, usize, usize); 20] = [
    (1, 1, 1),
    (1, 2, 31),
    (1, 7, 33),
    (1, 64, 160),
    (1, 385, 129),
    (2, 3, 65),
    (2, 770, 97),
    (3, 16, 32),
    (4, 33, 40),
    (5, 100, 64),
    (6, 31, 15),
    (7, 129, 47),
    (11, 5, 96),
    (12, 384, 32),
    (13, 401, 34),
    (16, 48, 130),
    (25, 769, 66),
    (37, 800, 95),
    (193, 20, 33),
    (400, 9, 70),
];

/// The sizes for a path. The portable path may call a function for each multiply-add, so it skips the largest ones.
fn sizes(isa: Isa) -> impl Iterator<Item = (usize, usize, usize)> {
    SIZES.into_iter().filter(move |(m, k, n)| isa != Isa::Portable || m * k * n < 300_000)
}

fn close(found: f32, wanted: f64, size: f64, unit: f64, place: &str) {
    // The rounding error of a sum of K terms is far below K units of the sum of magnitudes. At these sizes 8 units
    // suffice.
    assert!((found as f64 - wanted).abs() <= unit * size.max(1e-6) * 8.0, "{place}: {found} is not {wanted}");
}

fn check_against_f64<T: Real, O: Real>(unit: f64) {
    for isa in Isa::available() {
        for threads in [1, 3] {
            let queue = Queue::cpu(threads, isa);
            for (m, k, n) in sizes(isa) {
                let a: Vec<T> = values(m * k, 1);
                let w = numbers(k * n, 2);
                let (bias, addend) = (numbers(n, 3), numbers(m * n, 4));
                let mut packed = Packed::<T>::zeros(Device::Cpu, k, n);
                for transposed in [false, true] {
                    if transposed {
                        packed.pack_transposed(&queue, View::of(&w, k, n), 1);
                    } else {
                        packed.pack(&queue, View::of(&w, n, k), 1);
                    }
                    let b = |p: usize, j: usize| if transposed { w[p * n + j] } else { w[j * k + p] };
                    let wanted = reference(m, k, n, &a, b);
                    for epilogue in 0..4 {
                        let mut out = vec![O::from_f32(7.0); m * n];
                        let parts = Epilogue {
                            bias: (epilogue & 1 != 0).then(|| View::of(&bias, 1, n)),
                            addend: (epilogue & 2 != 0).then(|| View::of(&addend, m, n)),
                        };
                        matmul(&queue, View::of(&a, m, k), packed.at(1), parts, ViewMut::of(&mut out, m, n));
                        for (at, &(sum, size)) in wanted.iter().enumerate() {
                            let (mut sum, mut size) = (sum, size);
                            if epilogue & 1 != 0 {
                                sum += bias[at % n] as f64;
                                size += bias[at % n].abs() as f64;
                            }
                            if epilogue & 2 != 0 {
                                sum += addend[at] as f64;
                                size += addend[at].abs() as f64;
                            }
                            let place = format!("{} {m}×{k}×{n} at {at}, {threads} threads", isa.name());
                            close(out[at].to_f32(), sum, size, unit, &place);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_equal_the_reference() {
    check_against_f64::<f32, f32>(6e-8);
    check_against_f64::<bf16, f32>(6e-8);
    check_against_f64::<f32, bf16>(2e-3);
    check_against_f64::<bf16, bf16>(2e-3);
}

fn check_transposed<T: Real>() {
    for isa in Isa::available() {
        let queue = Queue::cpu(2, isa);
        for (m, k, n) in sizes(isa) {
            let (depth, rows, cols) = (k, m, n);
            let a: Vec<T> = values(depth * rows, 5);
            let b: Vec<T> = values(depth * cols, 6);
            let turned: Vec<T> = (0..rows * depth).map(|at| a[at % depth * rows + at / depth]).collect();
            let wanted = reference(rows, depth, cols, &turned, |p, j| b[p * cols + j].to_f32());
            let mut scratch = Scratch::new(Device::Cpu);
            let mut out = vec![7.0f32; rows * cols];
            let (a, b) = (View::of(&a, depth, rows), View::of(&b, depth, cols));
            matmul_transposed_a(&queue, a, b, ViewMut::of(&mut out, rows, cols), false, &mut scratch);
            for (at, &(sum, size)) in wanted.iter().enumerate() {
                close(out[at], sum, size, 6e-8, &format!("{} {depth}×{rows}×{cols} at {at}", isa.name()));
            }
            let once = out.clone();
            matmul_transposed_a(&queue, a, b, ViewMut::of(&mut out, rows, cols), true, &mut scratch);
            for (at, &(sum, size)) in wanted.iter().enumerate() {
                close(out[at], 2.0 * sum, 2.0 * size, 6e-8, &format!("{} twice at {at}", isa.name()));
            }

            // The same rows in two consecutive calls, cut at an even row.
            for cut in [2, depth / 4 * 2, (depth - 1) / 2 * 2] {
                let cut = cut.min(depth);
                let mut parts = vec![7.0f32; rows * cols];
                let (a0, a1) = (a.row_range(0..cut), a.row_range(cut..depth));
                let (b0, b1) = (b.row_range(0..cut), b.row_range(cut..depth));
                matmul_transposed_a(&queue, a0, b0, ViewMut::of(&mut parts, rows, cols), false, &mut scratch);
                matmul_transposed_a(&queue, a1, b1, ViewMut::of(&mut parts, rows, cols), true, &mut scratch);
                assert!(parts == once, "{} {depth}×{rows}×{cols} cut at {cut}", isa.name());
            }
        }
    }
}

#[test]
fn transposed_products_equal_the_reference_however_rows_are_cut() {
    check_transposed::<f32>();
    check_transposed::<bf16>();
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn check_rows_and_threads<T: Real>() {
    for isa in Isa::available() {
        let (m, k, n) = if isa == Isa::Portable { (9, 811, 40) } else { (31, 811, 203) };
        let a: Vec<T> = values(m * k, 7);
        let w = numbers(k * n, 8);
        let (bias, addend) = (numbers(n, 9), numbers(m * n, 10));
        let mut results = Vec::new();
        for threads in [1, 2, 3] {
            let queue = Queue::cpu(threads, isa);
            let mut packed = Packed::<T>::zeros(Device::Cpu, k, n);
            packed.pack(&queue, View::of(&w, n, k), 1);
            let mut out = vec![0.0f32; m * n];
            let parts = Epilogue { bias: Some(View::of(&bias, 1, n)), addend: Some(View::of(&addend, m, n)) };
            matmul(&queue, View::of(&a, m, k), packed.at(1), parts, ViewMut::of(&mut out, m, n));
            // Every batch of consecutive rows, of any size and beginning at any row, gives the same results.
            for rows in 1..=m {
                let first = m - rows;
                let mut part = vec![0.0f32; rows * n];
                let addend = View::of(&addend, m, n).row_range(first..m);
                let parts = Epilogue { bias: parts.bias, addend: Some(addend) };
                let some = View::of(&a, m, k).row_range(first..m);
                matmul(&queue, some, packed.at(1), parts, ViewMut::of(&mut part, rows, n));
                assert_eq!(bits(&part), bits(&out[first * n..]), "{rows} rows on {}", isa.name());
            }
            results.push(bits(&out));
        }
        assert!(results.iter().all(|result| *result == results[0]), "threads on {}", isa.name());
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_with_any_threads() {
    check_rows_and_threads::<f32>();
    check_rows_and_threads::<bf16>();
}

/// Tests the order itself: one accumulator, increasing k, and in each pair the second element first.
#[test]
fn sums_are_accumulated_in_the_canonical_order() {
    let (m, k, n) = (14, 901, 37);
    let w = numbers(k * n, 12);
    for isa in Isa::available() {
        let queue = Queue::cpu(2, isa);
        let a: Vec<f32> = values(m * k, 11);
        let mut packed = Packed::<f32>::zeros(Device::Cpu, k, n);
        packed.pack_transposed(&queue, View::of(&w, k, n), 1);
        let mut out = vec![0.0f32; m * n];
        matmul(&queue, View::of(&a, m, k), packed.at(1), Epilogue::default(), ViewMut::of(&mut out, m, n));
        let narrow: Vec<bf16> = a.iter().map(|&x| Real::from_f32(x)).collect();
        let mut packed = Packed::<bf16>::zeros(Device::Cpu, k, n);
        packed.pack_transposed(&queue, View::of(&w, k, n), 1);
        let mut out_bf16 = vec![0.0f32; m * n];
        matmul(&queue, View::of(&narrow, m, k), packed.at(1), Epilogue::default(), ViewMut::of(&mut out_bf16, m, n));
        for i in 0..m {
            for j in 0..n {
                let (mut sum, mut pairs) = (0.0f32, 0.0f32);
                let a_bf16 = |p: usize| if p < k { narrow[i * k + p].to_f32() } else { 0.0 };
                let b_bf16 = |p: usize| if p < k { <bf16 as Real>::from_f32(w[p * n + j]).to_f32() } else { 0.0 };
                for p in 0..k {
                    sum = a[i * k + p].mul_add(w[p * n + j], sum);
                    if p % 2 == 0 {
                        pairs = a_bf16(p + 1).mul_add(b_bf16(p + 1), pairs);
                        pairs = a_bf16(p).mul_add(b_bf16(p), pairs);
                    }
                }
                assert_eq!(out[i * n + j].to_bits(), sum.to_bits(), "f32 on {}", isa.name());
                assert_eq!(out_bf16[i * n + j].to_bits(), pairs.to_bits(), "bf16 on {}", isa.name());
            }
        }
    }
}

#[test]
fn strides_are_respected_and_gaps_left_alone() {
    for isa in Isa::available() {
        let queue = Queue::cpu(2, isa);
        let (m, k, n) = (9, 21, 45);
        let a = numbers(m * (k + 5), 13);
        let w = numbers(n * (k + 3), 14);
        let addend = numbers(m * (n + 2), 15);
        let a_view = View::of(&a, m, k + 5).col_range(2..k + 2);
        let w_view = View::of(&w, n, k + 3).col_range(1..k + 1);
        let addend_view = View::of(&addend, m, n + 2).col_range(1..n + 1);
        let mut packed = Packed::<f32>::zeros(Device::Cpu, k, n);
        packed.pack(&queue, w_view, 1);
        let mut out = vec![7.0f32; m * (n + 9)];
        let (_, right) = ViewMut::of(&mut out, m, n + 9).split_cols(4);
        let (middle, _) = right.split_cols(n);
        let epilogue = Epilogue { bias: None, addend: Some(addend_view) };
        matmul(&queue, a_view, packed.at(1), epilogue, middle);

        let tight: Vec<f32> = (0..m).flat_map(|i| a_view.row(i).to_vec()).collect();
        let tight_addend: Vec<f32> = (0..m).flat_map(|i| addend_view.row(i).to_vec()).collect();
        let mut wanted = vec![0.0f32; m * n];
        let epilogue = Epilogue { bias: None, addend: Some(View::of(&tight_addend, m, n)) };
        matmul(&queue, View::of(&tight, m, k), packed.at(1), epilogue, ViewMut::of(&mut wanted, m, n));
        for i in 0..m {
            let row = &out[i * (n + 9)..][..n + 9];
            assert_eq!(bits(&row[4..n + 4]), bits(&wanted[i * n..][..n]), "row {i} on {}", isa.name());
            assert!(row[..4].iter().chain(&row[n + 4..]).all(|&x| x == 7.0), "a gap was written on {}", isa.name());
        }

        // The gradient of the weights, from strided views into a strided output.
        let mut scratch = Scratch::new(Device::Cpu);
        let mut d_w = vec![7.0f32; n * (k + 4)];
        let (_, right) = ViewMut::of(&mut d_w, n, k + 4).split_cols(3);
        let (middle, _) = right.split_cols(k);
        matmul_transposed_a(&queue, addend_view, a_view, middle, false, &mut scratch);
        let mut wanted = vec![0.0f32; n * k];
        let (d, x) = (View::of(&tight_addend, m, n), View::of(&tight, m, k));
        matmul_transposed_a(&queue, d, x, ViewMut::of(&mut wanted, n, k), false, &mut scratch);
        for j in 0..n {
            let row = &d_w[j * (k + 4)..][..k + 4];
            assert_eq!(bits(&row[3..k + 3]), bits(&wanted[j * k..][..k]), "row {j} on {}", isa.name());
            assert!(row[..3].iter().chain(&row[k + 3..]).all(|&x| x == 7.0), "a gap was written on {}", isa.name());
        }
    }
}

/// A is read in place or copied first, depending on its type, its stride and where it begins. All cases must agree.
fn check_places_of_a<T: Real>() {
    let (m, k, n) = (14, 803, 33);
    let content: Vec<T> = values(m * 2 * k, 21);
    let w = numbers(n * k, 22);
    for isa in Isa::available() {
        let queue = Queue::cpu(2, isa);
        let mut scratch = Scratch::new(Device::Cpu);
        for depth in [k - 1, k] {
            let mut packed = Packed::<T>::zeros(Device::Cpu, depth, n);
            packed.pack(&queue, View::of(&w, n, k).col_range(0..depth), 1);
            let mut products = Vec::new();
            for stride in [k, k + 1, 1024, 1025] {
                for first in 0..3.min(stride - depth + 1) {
                    let mut memory = vec![T::from_f32(f32::NAN); m * stride];
                    let mut out = vec![0.0f32; m * n];
                    for i in 0..m {
                        memory[i * stride + first..][..depth].copy_from_slice(&content[i * k..][..depth]);
                    }
                    let a = View::of(&memory, m, stride).col_range(first..first + depth);
                    matmul(&queue, a, packed.at(1), Epilogue::default(), ViewMut::of(&mut out, m, n));
                    let b = View::of(&content[m * k..][..m * n], m, n);
                    let mut gradient = vec![0.0f32; depth * n];
                    let view = ViewMut::of(&mut gradient, depth, n);
                    matmul_transposed_a(&queue, a, b, view, false, &mut scratch);
                    products.push((bits(&out), bits(&gradient)));
                }
            }
            assert!(
                products.iter().all(|product| *product == products[0]),
                "{} {} {depth}",
                T::DTYPE.name(),
                isa.name()
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_where_the_rows_of_a_lie() {
    check_places_of_a::<f32>();
    check_places_of_a::<bf16>();
}

fn check_long_reductions<T: Real>() {
    let isa = Isa::available()[0];
    let (m, n, k) = (ROWS_AT_ONCE + 37, 5, 34);
    let (a, b): (Vec<T>, Vec<T>) = (values(m * n, 16), values(m * k, 17));
    let (a, b) = (View::of(&a, m, n), View::of(&b, m, k));
    let mut results = Vec::new();
    for (threads, cut) in [(1, m), (2, m), (3, 1000)] {
        let queue = Queue::cpu(threads, isa);
        let mut scratch = Scratch::new(Device::Cpu);
        let mut out = vec![0.0f32; n * k];
        for start in (0..m).step_by(cut) {
            let rows = start..(start + cut).min(m);
            let (a, b) = (a.row_range(rows.clone()), b.row_range(rows));
            matmul_transposed_a(&queue, a, b, ViewMut::of(&mut out, n, k), start > 0, &mut scratch);
        }
        results.push(bits(&out));
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn long_reductions_go_in_parts_with_the_same_bits() {
    check_long_reductions::<f32>();
    check_long_reductions::<bf16>();
}

#[test]
fn an_empty_reduction_leaves_zeros_or_what_was_there() {
    let queue = Queue::cpu(2, Isa::available()[0]);
    let mut scratch = Scratch::new(Device::Cpu);
    let (a, b): (View<f32>, View<f32>) = (View::of(&[], 0, 3), View::of(&[], 0, 4));
    let mut out = vec![7.0f32; 12];
    matmul_transposed_a(&queue, a, b, ViewMut::of(&mut out, 3, 4), true, &mut scratch);
    assert_eq!(out, vec![7.0; 12]);
    matmul_transposed_a(&queue, a, b, ViewMut::of(&mut out, 3, 4), false, &mut scratch);
    assert_eq!(out, vec![0.0; 12]);
}

#[test]
#[should_panic(expected = "are of generation Some(4), the weights of 5")]
fn stale_panels_panic() {
    let queue = Queue::cpu(1, Isa::Portable);
    let mut packed = Packed::<f32>::zeros(Device::Cpu, 1, 1);
    packed.pack(&queue, View::of(&[1.0], 1, 1), 4);
    packed.at(4);
    packed.at(5);
}
