//! Properties of operations on rows, and of those that treat every element alike.

use super::{Case, Draw, check};
use crate::ops::adamw::{AdamW, adamw, squared_norm};
use crate::ops::bias::bias_backward;
use crate::ops::elementwise::{add, convert, mean_squared_error, zero};
use crate::ops::embedding::{embedding_backward, embedding_forward};
use crate::ops::head_norm::{head_norm_backward, head_norm_forward};
use crate::ops::rmsnorm::{reference as rmsnorm, rmsnorm_backward, rmsnorm_forward};
use crate::ops::rotary::{rotary_backward, rotary_forward, rotary_table};
use crate::ops::rows::{gather_rows, scatter_add_rows};
use crate::ops::swiglu::{swiglu_backward, swiglu_forward};
use crate::testing::{central_differences, tolerance, wide};
use crate::{Device, Real, bf16};

use super::Kind;

const EPS: f32 = 1e-3;

/// Rows and columns. They are often few, and sometimes exceed a vector, a task's columns or a task's elements.
fn shape(draw: &Draw) -> (usize, usize) {
    match draw.below(8) {
        0 => (draw.below(3), draw.below(3)),
        7 => (draw.within(1..=3), draw.within(60..=200)),
        _ => (draw.below(8), draw.within(1..=40)),
    }
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The gradient of `Σ d_out · f(x)`, plus `before`.
fn accumulated(before: &[f32], x: &[f64], d_out: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let loss = |x: &[f64]| f(x).iter().zip(d_out).map(|(out, d)| out * f64::from(*d)).sum();
    sum(&wide(before), &central_differences(x, loss))
}

fn rmsnorm_forward_case<T: Real + Kind>(draw: &Draw) -> Case {
    // At least one column is needed for a mean square.
    let (n, c) = shape(draw);
    let c = c.max(1);
    let (x, weight) = (draw.numbers::<f32>(n * c), draw.numbers::<f32>(c));
    let (x64, weight64) = (wide(&x), wide(&weight));
    let rows: Vec<_> = (0..n).map(|i| rmsnorm(&x64[i * c..][..c], &weight64, EPS.into())).collect();
    let out = rows.iter().flat_map(|row| row.0.clone()).collect();
    let rstd: Vec<f64> = rows.iter().map(|row| row.1).collect();
    let case = Case::new(|queue, operands| {
        let [x, weight, out, rstd] = operands else { unreachable!() };
        rmsnorm_forward(queue, x.view(), weight.view(), EPS, out.view_mut::<T>(), rstd.view_mut());
    });
    case.reads(draw, (n, c), &x)
        .reads(draw, (1, c), &weight)
        .writes::<T>(draw, (n, c), out, tolerance::<T>())
        .writes::<f32>(draw, (1, n), rstd, 1e-6)
}

#[test]
fn rmsnorm_forwards() {
    check(rmsnorm_forward_case::<f32>);
    check(rmsnorm_forward_case::<bf16>);
}

#[test]
fn rmsnorm_backwards() {
    check(|draw| {
        let (n, c) = shape(draw);
        let [x, d_out, d_x] = [(); 3].map(|()| draw.numbers::<f32>(n * c));
        let [weight, d_weight] = [(); 2].map(|()| draw.numbers::<f32>(c));
        let (x64, weight64) = (wide(&x), wide(&weight));
        let forward = |x: &[f64], weight: &[f64]| -> Vec<f64> {
            (0..n).flat_map(|i| rmsnorm(&x[i * c..][..c], weight, EPS.into()).0).collect()
        };
        let rstd: Vec<f32> = (0..n).map(|i| rmsnorm(&x64[i * c..][..c], &weight64, EPS.into()).1 as f32).collect();
        let wanted_x = accumulated(&d_x, &x64, &d_out, |x| forward(x, &weight64));
        let wanted_weight = accumulated(&d_weight, &weight64, &d_out, |weight| forward(&x64, weight));
        let case = Case::new(|queue, operands| {
            let [x, weight, rstd, d_out, d_x, d_weight] = operands else { unreachable!() };
            let (d_x, d_weight) = (d_x.view_mut(), d_weight.view_mut());
            rmsnorm_backward(queue, x.view(), weight.view(), rstd.view(), d_out.view(), d_x, d_weight);
        });
        case.reads(draw, (n, c), &x)
            .reads(draw, (1, c), &weight)
            .reads(draw, (1, n), &rstd)
            .reads(draw, (n, c), &d_out)
            .changes(draw, (n, c), &d_x, wanted_x, 5e-6)
            .changes(draw, (1, c), &d_weight, wanted_weight, 5e-6)
    });
}

fn heads_of(x: &[f64], weight: &[f64]) -> Vec<f64> {
    x.chunks(weight.len()).flat_map(|head| rmsnorm(head, weight, EPS.into()).0).collect()
}

fn head_norm_cases<T: Real + Kind>() {
    check(|draw| {
        let (n, heads, d) = (draw.below(6), draw.within(1..=3), draw.within(1..=40));
        let (x, weight) = (draw.numbers::<T>(n * heads * d), draw.numbers::<f32>(d));
        let (x64, weight64) = (wide(&x), wide(&weight));
        let rstd = x64.chunks(d).map(|head| rmsnorm(head, &weight64, EPS.into()).1).collect();
        let case = Case::new(|queue, operands| {
            let [x, weight, out, rstd] = operands else { unreachable!() };
            head_norm_forward(queue, x.view::<T>(), weight.view(), EPS, out.view_mut(), rstd.view_mut());
        });
        case.reads(draw, (n, heads * d), &x)
            .reads(draw, (1, d), &weight)
            .writes::<T>(draw, (n, heads * d), heads_of(&x64, &weight64), tolerance::<T>())
            .writes::<f32>(draw, (n, heads), rstd, 1e-6)
    });
    check(|draw| {
        let (n, heads, d) = (draw.below(6), draw.within(1..=3), draw.within(1..=40));
        let (x, d_out) = (draw.numbers::<T>(n * heads * d), draw.numbers::<f32>(n * heads * d));
        let [weight, d_weight] = [(); 2].map(|()| draw.numbers::<f32>(d));
        let (x64, weight64) = (wide(&x), wide(&weight));
        let rstd: Vec<f32> = x64.chunks(d).map(|head| rmsnorm(head, &weight64, EPS.into()).1 as f32).collect();
        let wanted = accumulated(&vec![0.0; x.len()], &x64, &d_out, |x| heads_of(x, &weight64));
        let wanted_weight = accumulated(&d_weight, &weight64, &d_out, |weight| heads_of(&x64, weight));
        let case = Case::new(|queue, operands| {
            let [x, weight, rstd, d, d_weight] = operands else { unreachable!() };
            let (d, d_weight) = (d.view_mut(), d_weight.view_mut());
            head_norm_backward(queue, x.view::<T>(), weight.view(), rstd.view(), d, d_weight);
        });
        case.reads(draw, (n, heads * d), &x)
            .reads(draw, (1, d), &weight)
            .reads(draw, (n, heads), &rstd)
            .changes(draw, (n, heads * d), &d_out, wanted, 5e-6)
            .changes(draw, (1, d), &d_weight, wanted_weight, 5e-6)
    });
}

#[test]
fn head_norms() {
    head_norm_cases::<f32>();
    head_norm_cases::<bf16>();
}

fn swiglu_cases<T: Real + Kind>() {
    let forward = |gate_up: &[f64], f: usize| -> Vec<f64> {
        let row = |row: &[f64]| (0..f).map(|j| row[j] / (1.0 + (-row[j]).exp()) * row[f + j]).collect::<Vec<_>>();
        gate_up.chunks((2 * f).max(1)).flat_map(row).collect()
    };
    check(move |draw| {
        let (n, f) = shape(draw);
        let gate_up = draw.numbers::<T>(n * 2 * f);
        let case = Case::new(|queue, operands| {
            let [gate_up, out] = operands else { unreachable!() };
            swiglu_forward(queue, gate_up.view::<T>(), out.view_mut());
        });
        case.reads(draw, (n, 2 * f), &gate_up).writes::<T>(draw, (n, f), forward(&wide(&gate_up), f), tolerance::<T>())
    });
    check(move |draw| {
        let (n, f) = shape(draw);
        let (gate_up, d_out) = (draw.numbers::<T>(n * 2 * f), draw.numbers::<f32>(n * f));
        let wanted = accumulated(&vec![0.0; n * 2 * f], &wide(&gate_up), &d_out, |x| forward(x, f));
        let case = Case::new(|queue, operands| {
            let [d_out, gate_up] = operands else { unreachable!() };
            swiglu_backward(queue, d_out.view(), gate_up.view_mut::<T>());
        });
        case.reads(draw, (n, f), &d_out).changes(draw, (n, 2 * f), &gate_up, wanted, tolerance::<T>())
    });
}

#[test]
fn swiglu() {
    swiglu_cases::<f32>();
    swiglu_cases::<bf16>();
}

fn rotary_case<T: Real + Kind>(
    draw: &Draw,
    forwards: bool,
    run: impl Fn(&crate::Queue, &mut [super::Operand]) + 'static,
) -> Case {
    let (n, heads, half, positions) = (draw.below(6), draw.within(1..=3), draw.within(1..=24), draw.within(1..=50));
    let (d, width) = (2 * half, heads * 2 * half);
    let frequencies: Vec<f64> = (0..half).map(|j| 1e4f64.powf(-(j as f64) / half as f64)).collect();
    let table = rotary_table(Device::Cpu, &frequencies, positions).to_host();
    let (x, places) = (draw.numbers::<T>(n * width), draw.indices(n, positions));
    let x64 = wide(&x);
    let turn = if forwards { 1.0 } else { -1.0 };
    let wanted = (0..n * width).map(|at| {
        let (j, angle) = (at % d, f64::from(places[at / width]) * frequencies[at % half] * turn);
        if j < half {
            x64[at] * angle.cos() - x64[at + half] * angle.sin()
        } else {
            x64[at] * angle.cos() + x64[at - half] * angle.sin()
        }
    });
    let wanted = wanted.collect();
    Case::new(run)
        .changes(draw, (n, width), &x, wanted, tolerance::<T>())
        .reads(draw, (1, n), &places)
        .reads(draw, (positions, d), &table)
        .free(true, false)
}

#[test]
fn rotary_turns() {
    fn forwards<T: Real + Kind>(draw: &Draw) -> Case {
        rotary_case::<T>(draw, true, |queue, operands| {
            let [x, positions, table] = operands else { unreachable!() };
            rotary_forward(queue, x.view_mut::<T>(), positions.view(), table.view());
        })
    }
    check(forwards::<f32>);
    check(forwards::<bf16>);
    check(|draw| {
        rotary_case::<f32>(draw, false, |queue, operands| {
            let [x, positions, table] = operands else { unreachable!() };
            rotary_backward(queue, x.view_mut(), positions.view(), table.view());
        })
    });
}

fn embedding_case<T: Real + Kind>(draw: &Draw) -> Case {
    let ((n, c), vocabulary) = (shape(draw), draw.within(1..=9));
    let (tokens, table) = (draw.indices(n, vocabulary), draw.numbers::<T>(vocabulary * c));
    let rows = tokens.iter().flat_map(|&token| wide(&table[token as usize * c..][..c])).collect();
    let case = Case::new(|queue, operands| {
        let [tokens, table, out] = operands else { unreachable!() };
        embedding_forward(queue, tokens.view(), table.view::<T>(), out.view_mut());
    });
    let case = case.reads(draw, (1, n), &tokens).reads(draw, (vocabulary, c), &table).free(true, false);
    case.writes::<f32>(draw, (n, c), rows, 0.0)
}

/// `out[index[i]] += x[i]`.
fn scattered(out: &[f32], x: &[f32], index: &[u32], c: usize) -> Vec<f64> {
    let mut sums = wide(out);
    for (i, &row) in index.iter().enumerate() {
        (0..c).for_each(|j| sums[row as usize * c + j] += f64::from(x[i * c + j]));
    }
    sums
}

#[test]
fn embeddings() {
    check(embedding_case::<f32>);
    check(embedding_case::<bf16>);
    check(|draw| {
        let ((n, c), vocabulary) = (shape(draw), draw.within(1..=9));
        let (tokens, d_out) = (draw.indices(n, vocabulary), draw.numbers::<f32>(n * c));
        let d_table = draw.numbers::<f32>(vocabulary * c);
        let wanted = scattered(&d_table, &d_out, &tokens, c);
        let case = Case::new(|queue, operands| {
            let [tokens, d_out, d_table] = operands else { unreachable!() };
            embedding_backward(queue, tokens.view(), d_out.view(), d_table.view_mut());
        });
        let case = case.reads(draw, (1, n), &tokens).reads(draw, (n, c), &d_out);
        case.changes(draw, (vocabulary, c), &d_table, wanted, 1e-6).free(true, false)
    });
}

#[test]
fn rows_gathered_and_scattered() {
    check(|draw| {
        let ((r, c), n) = (shape(draw), draw.within(1..=9));
        let (x, index) = (draw.numbers::<bf16>(n * c), draw.indices(r, n));
        let rows = index.iter().flat_map(|&i| wide(&x[i as usize * c..][..c])).collect();
        let case = Case::new(|queue, operands| {
            let [x, index, out] = operands else { unreachable!() };
            gather_rows(queue, x.view::<bf16>(), index.view(), out.view_mut());
        });
        let case = case.reads(draw, (n, c), &x).free(true, false).reads(draw, (1, r), &index);
        case.writes::<bf16>(draw, (r, c), rows, 0.0)
    });
    check(|draw| {
        let ((r, c), n) = (shape(draw), draw.within(1..=9));
        let (x, index, out) = (draw.numbers::<f32>(r * c), draw.indices(r, n), draw.numbers::<f32>(n * c));
        let wanted = scattered(&out, &x, &index, c);
        let case = Case::new(|queue, operands| {
            let [x, index, out] = operands else { unreachable!() };
            scatter_add_rows(queue, x.view(), index.view(), out.view_mut());
        });
        let case = case.reads(draw, (r, c), &x).reads(draw, (1, r), &index);
        case.changes(draw, (n, c), &out, wanted, 1e-6).free(true, false)
    });
}

#[test]
fn biases() {
    check(|draw| {
        let (n, c) = shape(draw);
        let (d, d_bias) = (draw.numbers::<f32>(n * c), draw.numbers::<f32>(c));
        let wanted = (0..c).map(|j| f64::from(d_bias[j]) + (0..n).map(|i| f64::from(d[i * c + j])).sum::<f64>());
        let wanted = wanted.collect();
        let case = Case::new(|queue, operands| {
            let [d, d_bias] = operands else { unreachable!() };
            bias_backward(queue, d.view(), d_bias.view_mut());
        });
        case.reads(draw, (n, c), &d).free(true, false).changes(draw, (1, c), &d_bias, wanted, 1e-6)
    });
}

fn convert_case<T: Real + Kind>(draw: &Draw) -> Case {
    let (n, c) = shape(draw);
    let x = draw.numbers::<f32>(n * c);
    let rounded = x.iter().map(|&x| f64::from(T::from_f32(x).to_f32())).collect();
    let case = Case::new(|queue, operands| {
        let [x, out] = operands else { unreachable!() };
        convert(queue, x.view(), out.view_mut::<T>());
    });
    case.reads(draw, (n, c), &x).writes::<T>(draw, (n, c), rounded, 0.0)
}

#[test]
fn elementwise() {
    check(convert_case::<f32>);
    check(convert_case::<bf16>);
    check(|draw| {
        let (n, c) = shape(draw);
        let [x, y] = [(); 2].map(|()| draw.numbers::<f32>(n * c));
        let wanted = sum(&wide(&x), &wide(&y));
        let case = Case::new(|queue, operands| {
            let [x, y] = operands else { unreachable!() };
            add(queue, x.view(), y.view_mut());
        });
        case.reads(draw, (n, c), &x).changes(draw, (n, c), &y, wanted, 1e-6)
    });
    check(|draw| {
        let (n, c) = shape(draw);
        let case = Case::new(|queue, operands| zero(queue, operands[0].view_mut()));
        case.writes::<f32>(draw, (n, c), vec![0.0; n * c], 0.0).free(true, true)
    });
}

#[test]
fn squared_errors() {
    check(|draw| {
        let (n, c) = shape(draw);
        let c = c.max(1);
        let [x, target, d_x] = [(); 3].map(|()| draw.numbers::<f32>(n * c));
        let weight = draw.numbers::<f32>(n);
        let error = |x: &[f64]| -> Vec<f64> {
            let row = |i: usize| (0..c).map(|j| (x[i * c + j] - f64::from(target[i * c + j])).powi(2)).sum::<f64>();
            (0..n).map(|i| row(i) / c as f64).collect()
        };
        let wanted = accumulated(&d_x, &wide(&x), &weight, error);
        let case = Case::new(|queue, operands| {
            let [x, target, weight, value, d_x] = operands else { unreachable!() };
            let (value, d_x) = (value.view_mut(), d_x.view_mut());
            mean_squared_error(queue, x.view(), target.view(), weight.view(), value, d_x);
        });
        case.reads(draw, (n, c), &x)
            .reads(draw, (n, c), &target)
            .reads(draw, (1, n), &weight)
            .writes::<f32>(draw, (1, n), error(&wide(&x)), 1e-6)
            .changes(draw, (n, c), &d_x, wanted, 1e-6)
    });
}

#[test]
fn adamw_steps() {
    check(|draw| {
        let (n, c) = shape(draw);
        let [weight, gradient, m] = [(); 3].map(|()| draw.numbers::<f32>(n * c));
        let v: Vec<f32> = draw.numbers::<f32>(n * c).iter().map(|v| v.abs()).collect();
        let step = draw.within(1..=9) as u32;
        let config = AdamW { lr: 0.05, beta1: 0.9, beta2: 0.95, eps: 1e-3, weight_decay: 0.3, step };
        let (beta1, beta2) = (f64::from(config.beta1), f64::from(config.beta2));
        let g: Vec<f64> = wide(&gradient).iter().map(|g| 0.25 * g).collect();
        let wanted_m: Vec<f64> = wide(&m).iter().zip(&g).map(|(m, g)| beta1 * m + (1.0 - beta1) * g).collect();
        let wanted_v: Vec<f64> = wide(&v).iter().zip(&g).map(|(v, g)| beta2 * v + (1.0 - beta2) * g * g).collect();
        let weight64 = wide(&weight);
        let wanted = weight64.iter().zip(wanted_m.iter().zip(&wanted_v)).map(|(w, (m, v))| {
            let m = m / (1.0 - beta1.powi(step as i32));
            let v = v / (1.0 - beta2.powi(step as i32));
            let lr = f64::from(config.lr);
            w * (1.0 - lr * f64::from(config.weight_decay)) - lr * m / (v.sqrt() + f64::from(config.eps))
        });
        let wanted = wanted.collect();
        let case = Case::new(move |queue, operands| {
            let [weight, gradient, m, v] = operands else { unreachable!() };
            adamw(queue, weight.view_mut(), gradient.view(), m.view_mut(), v.view_mut(), &config, 0.25);
        });
        case.changes(draw, (n, c), &weight, wanted, 5e-6)
            .reads(draw, (n, c), &gradient)
            .changes(draw, (n, c), &m, wanted_m, 5e-6)
            .changes(draw, (n, c), &v, wanted_v, 5e-6)
    });
}

#[test]
fn squared_norms() {
    check(|draw| {
        let (n, c) = shape(draw);
        let x = draw.numbers::<f32>(n * c);
        let wanted = wide(&x).iter().map(|x| x * x).sum();
        let case = Case::new(|queue, operands| {
            let [x, norm] = operands else { unreachable!() };
            norm.view_mut().copy_from_host(&[squared_norm(queue, x.view()) as f32]);
        });
        let case = case.reads(draw, (n, c), &x).free(true, true);
        case.writes::<f32>(draw, (1, 1), vec![wanted], 1e-6)
    });
}
