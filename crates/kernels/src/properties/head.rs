//! Properties of operations on rows of logits.

use super::{Case, Draw, Kind, check, explore};
use crate::ops::head::{
    Divergence, divergence_reference, divergence_rows, head_gradient, head_statistics, softmax, sparse_forward_kl_rows,
    top_k_rows,
};
use crate::ops::sample::draw_rows;
use crate::testing::{central_differences, queues, tolerance, wide};
use crate::{Buffer, Device, Real, bf16};

const TEMPERATURES: [f32; 3] = [1.0, 0.7, 1.9];

/// Number of rows, and size of the vocabulary.
fn shape(draw: &Draw) -> (usize, usize) {
    (draw.below(5), draw.within(1..=90))
}

fn logits(draw: &Draw, len: usize) -> Vec<f32> {
    draw.numbers::<f32>(len).iter().map(|x| 4.0 * x).collect()
}

#[test]
fn statistics() {
    check(|draw| {
        let ((r, v), temperature) = (shape(draw), TEMPERATURES[draw.below(3)]);
        let (logits, targets) = (logits(draw, r * v), draw.indices(r, v));
        let rows: Vec<Vec<f64>> = wide(&logits).chunks(v).map(|row| softmax(row, temperature.into())).collect();
        let logprob = rows.iter().zip(&targets).map(|(p, &target)| p[target as usize].ln()).collect();
        let first = |i: usize| f64::from(logits[i * v]) / f64::from(temperature) - rows[i][0].ln();
        let logsumexp = (0..r).map(first).collect();
        let entropy = rows.iter().map(|p| -p.iter().map(|p| p * p.ln()).sum::<f64>()).collect();
        let case = Case::new(move |queue, operands| {
            let [logits, targets, logprob, logsumexp, entropy] = operands else { unreachable!() };
            let (logits, targets) = (logits.view(), targets.view());
            let (logprob, logsumexp) = (logprob.view_mut(), logsumexp.view_mut());
            head_statistics(queue, logits, targets, temperature, logprob, logsumexp, entropy.view_mut());
        });
        case.reads(draw, (r, v), &logits)
            .free(false, true)
            .reads(draw, (1, r), &targets)
            .writes::<f32>(draw, (1, r), logprob, 2e-6)
            .writes::<f32>(draw, (1, r), logsumexp, 2e-6)
            .writes::<f32>(draw, (1, r), entropy, 4e-6)
    });
}

fn gradient_case<T: Real + Kind>(draw: &Draw) -> Case {
    let ((r, v), temperature) = (shape(draw), TEMPERATURES[draw.below(3)]);
    let (logits, targets, coefficient) = (logits(draw, r * v), draw.indices(r, v), draw.numbers::<f32>(r));
    let rows: Vec<Vec<f64>> = wide(&logits).chunks(v).map(|row| softmax(row, temperature.into())).collect();
    let logsumexp: Vec<f32> =
        (0..r).map(|i| (f64::from(logits[i * v]) / f64::from(temperature) - rows[i][0].ln()) as f32).collect();
    let wanted = (0..r * v).map(|at| {
        let (i, j) = (at / v, at % v);
        let one = if targets[i] as usize == j { 1.0 } else { 0.0 };
        f64::from(coefficient[i]) * (one - rows[i][j]) / f64::from(temperature)
    });
    let wanted = wanted.collect();
    let case = Case::new(move |queue, operands| {
        let [logits, targets, logsumexp, coefficient, d_logits] = operands else { unreachable!() };
        let (logits, targets, logsumexp) = (logits.view(), targets.view(), logsumexp.view());
        head_gradient(queue, logits, targets, logsumexp, coefficient.view(), temperature, d_logits.view_mut::<T>());
    });
    case.reads(draw, (r, v), &logits)
        .reads(draw, (1, r), &targets)
        .reads(draw, (1, r), &logsumexp)
        .reads(draw, (1, r), &coefficient)
        .writes::<T>(draw, (r, v), wanted, tolerance::<T>())
}

#[test]
fn gradients() {
    check(gradient_case::<f32>);
    check(gradient_case::<bf16>);
}

/// The gradient of `Σ weight · value(row)`, plus `before`.
fn accumulated(
    before: &[f32],
    weight: &[f32],
    student: &[f64],
    v: usize,
    value: impl Fn(usize, &[f64]) -> f64,
) -> Vec<f64> {
    let rows = student
        .chunks(v)
        .enumerate()
        .flat_map(|(i, row)| central_differences(row, |row| f64::from(weight[i]) * value(i, row)));
    wide(before).iter().zip(rows).map(|(before, d)| before + d).collect()
}

#[test]
fn divergences() {
    check(|draw| {
        let ((r, v), temperature) = (shape(draw), TEMPERATURES[draw.below(3)]);
        let kinds = [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::Jsd { beta: 0.3 }];
        let kind = kinds[draw.below(3)];
        let [student, teacher] = [(); 2].map(|()| logits(draw, r * v));
        let (weight, d_logits) = (draw.numbers::<f32>(r), draw.numbers::<f32>(r * v));
        let teachers: Vec<Vec<f64>> = wide(&teacher).chunks(v).map(|row| softmax(row, temperature.into())).collect();
        let value = |i: usize, row: &[f64]| divergence_reference(kind, &teachers[i], &softmax(row, temperature.into()));
        let student64 = wide(&student);
        let values = student64.chunks(v).enumerate().map(|(i, row)| value(i, row)).collect();
        let wanted = accumulated(&d_logits, &weight, &student64, v, value);
        let case = Case::new(move |queue, operands| {
            let [student, teacher, weight, value, d_logits] = operands else { unreachable!() };
            let (student, teacher, weight) = (student.view(), teacher.view(), weight.view());
            let (value, d_logits) = (value.view_mut(), d_logits.view_mut());
            divergence_rows(queue, student, teacher, kind, temperature, weight, value, d_logits);
        });
        case.reads(draw, (r, v), &student)
            .reads(draw, (r, v), &teacher)
            .reads(draw, (1, r), &weight)
            .writes::<f32>(draw, (1, r), values, 5e-6)
            .changes(draw, (r, v), &d_logits, wanted, 5e-6)
    });
}

#[test]
fn divergences_of_few_tokens() {
    check(|draw| {
        let ((r, v), temperature) = (shape(draw), TEMPERATURES[draw.below(3)]);
        let k = draw.within(1..=v.min(9));
        let [student, teacher] = [(); 2].map(|()| logits(draw, r * v));
        let (weight, d_logits) = (draw.numbers::<f32>(r), draw.numbers::<f32>(r * v));
        let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
        for row in wide(&teacher).chunks(v) {
            let (p, first) = (softmax(row, temperature.into()), draw.below(v));
            let chosen: Vec<usize> = (0..k).map(|i| (first + i * i.max(1)) % v).collect();
            // Squares may repeat; then take the next ids in order.
            let distinct = (1..k).all(|i| !chosen[..i].contains(&chosen[i]));
            let chosen = if distinct { chosen } else { (0..k).map(|i| (first + i) % v).collect() };
            ids.extend(chosen.iter().map(|&id| id as u32));
            logprobs.extend(chosen.iter().map(|&id| p[id].ln() as f32));
        }
        let value = |i: usize, row: &[f64]| {
            let q = softmax(row, temperature.into());
            let mut p: Vec<f64> = logprobs[i * k..][..k].iter().map(|&x| f64::from(x).exp()).collect();
            let mut known: Vec<f64> = ids[i * k..][..k].iter().map(|&id| q[id as usize]).collect();
            if k < v {
                p.push(1.0 - p.iter().sum::<f64>());
                known.push(1.0 - known.iter().sum::<f64>());
            }
            divergence_reference(Divergence::ForwardKl, &p, &known)
        };
        let student64 = wide(&student);
        let values = student64.chunks(v).enumerate().map(|(i, row)| value(i, row)).collect();
        let wanted = accumulated(&d_logits, &weight, &student64, v, value);
        let case = Case::new(move |queue, operands| {
            let [student, ids, logprobs, weight, value, d_logits] = operands else { unreachable!() };
            let (student, ids, logprobs) = (student.view(), ids.view(), logprobs.view());
            let (value, d_logits) = (value.view_mut(), d_logits.view_mut());
            sparse_forward_kl_rows(queue, student, ids, logprobs, temperature, weight.view(), value, d_logits);
        });
        case.reads(draw, (r, v), &student)
            .reads(draw, (r, k), &ids)
            .reads(draw, (r, k), &logprobs)
            .reads(draw, (1, r), &weight)
            .writes::<f32>(draw, (1, r), values, 1e-5)
            .changes(draw, (r, v), &d_logits, wanted, 1e-5)
    });
}

#[test]
fn most_likely_tokens() {
    check(|draw| {
        let ((r, v), temperature) = (shape(draw), TEMPERATURES[draw.below(3)]);
        let k = draw.below(v + 1);
        // Few distinct logits, so that there are ties.
        let logits: Vec<f32> = draw.numbers::<f32>(r * v).iter().map(|x| (8.0 * x).round() / 2.0).collect();
        let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
        for row in wide(&logits).chunks(v) {
            let p = softmax(row, temperature.into());
            let mut order: Vec<usize> = (0..v).collect();
            order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("numbers").then(a.cmp(&b)));
            ids.extend(order[..k].iter().map(|&id| id as f64));
            logprobs.extend(order[..k].iter().map(|&id| p[id].ln()));
        }
        let case = Case::new(move |queue, operands| {
            let [logits, ids, logprobs] = operands else { unreachable!() };
            top_k_rows(queue, logits.view(), temperature, k, ids.view_mut(), logprobs.view_mut());
        });
        case.reads(draw, (r, v), &logits).free(false, true).writes::<u32>(draw, (r, k), ids, 0.0).writes::<f32>(
            draw,
            (r, k),
            logprobs,
            2e-6,
        )
    });
}

#[test]
fn draws() {
    check(|draw| {
        let (r, v) = shape(draw);
        let logits = logits(draw, r * v);
        let temperature: Vec<f32> = (0..r).map(|i| [0.0, 0.7, 1.3][(i + v) % 3]).collect();
        // The middle of a token's share of the sum, so that rounding decides nothing.
        let (mut uniform, mut ids) = (Vec::new(), Vec::new());
        for (i, row) in wide(&logits).chunks(v).enumerate() {
            let greatest = row.iter().enumerate().fold(0, |best, (j, x)| if *x > row[best] { j } else { best });
            let likely = softmax(row, if temperature[i] > 0.0 { temperature[i].into() } else { 1.0 });
            let id = if temperature[i] > 0.0 {
                (0..v).map(|j| (j + draw.below(v)) % v).find(|&j| likely[j] > 1e-3).unwrap_or(greatest)
            } else {
                greatest
            };
            uniform.push((likely[..id].iter().sum::<f64>() + likely[id] / 2.0) as f32);
            ids.push(id as f64);
        }
        let case = Case::new(|queue, operands| {
            let [logits, temperature, uniform, ids] = operands else { unreachable!() };
            draw_rows(queue, logits.view(), temperature.view(), uniform.view(), ids.view_mut());
        });
        case.reads(draw, (r, v), &logits)
            .free(false, true)
            .reads(draw, (1, r), &temperature)
            .reads(draw, (1, r), &uniform)
            .writes::<u32>(draw, (1, r), ids, 0.0)
    });
}

/// Logits that no model should give. Whatever the results are, nothing is written elsewhere, and every id is a token.
#[test]
fn logits_that_are_no_numbers() {
    let queues = queues();
    explore(1, |draw| {
        let (r, v) = shape(draw);
        let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MAX, -1.0];
        let logits: Vec<f32> = (0..r * v).map(|_| strange[draw.below(6)]).collect();
        let logits = Buffer::from_host(Device::Cpu, &logits);
        let numbers = Buffer::from_host(Device::Cpu, &draw.numbers::<f32>(r));
        for queue in &queues {
            let mut ids = Buffer::from_host(Device::Cpu, &vec![u32::MAX; r]);
            draw_rows(queue, logits.matrix(r, v), numbers.view(), numbers.view(), ids.view_mut());
            assert!(ids.to_host().iter().all(|&id| (id as usize) < v));
            let k = draw.below(v + 1);
            let mut ids = Buffer::from_host(Device::Cpu, &vec![u32::MAX; r * k]);
            let mut logprobs = Buffer::<f32>::zeros(Device::Cpu, r * k);
            let (top, of_them) = (ids.matrix_mut(r, k), logprobs.matrix_mut(r, k));
            top_k_rows(queue, logits.matrix(r, v), 1.0, k, top, of_them);
            assert!(ids.to_host().iter().all(|&id| (id as usize) < v));
        }
    });
}
