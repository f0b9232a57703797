//! Tests divergences against f64, and their gradients against central differences.

use super::*;
use crate::testing::{assert_close, assert_same_bits, central_differences, queues, random, wide};

const KINDS: [Divergence; 4] =
    [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::Jsd { beta: 0.1 }, Divergence::Jsd { beta: 0.5 }];

pub(crate) fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let sum: f64 = row.iter().map(|x| (x / temperature).exp()).sum();
    row.iter().map(|x| (x / temperature).exp() / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if *p > 0.0 { p * (p / q).ln() } else { 0.0 }).sum()
}

pub(crate) fn reference(kind: Divergence, p: &[f64], q: &[f64]) -> f64 {
    match kind {
        Divergence::ForwardKl => kl(p, q),
        Divergence::ReverseKl => kl(q, p),
        Divergence::Jsd { beta } => {
            let beta = f64::from(beta);
            let m: Vec<f64> = p.iter().zip(q).map(|(p, q)| beta * p + (1.0 - beta) * q).collect();
            beta * kl(p, &m) + (1.0 - beta) * kl(q, &m)
        }
    }
}

fn logits(seed: u64, len: usize) -> Vec<f32> {
    random::<f32>(seed, len).iter().map(|x| 4.0 * x).collect()
}

fn weights(r: usize) -> Vec<f32> {
    // A weight of zero must not change the gradient.
    random::<f32>(3, r).iter().enumerate().map(|(i, w)| if i % 3 == 2 { 0.0 } else { *w }).collect()
}

/// Values and gradients of `r` rows; the gradients are added to ones.
fn expected(student: &[f32], v: usize, weight: &[f32], value: impl Fn(usize, &[f64]) -> f64) -> (Vec<f64>, Vec<f64>) {
    let student = wide(student);
    let values = student.chunks(v).enumerate().map(|(i, row)| value(i, row)).collect();
    let gradient = student.chunks(v).enumerate().flat_map(|(i, row)| {
        let d = central_differences(row, |row| value(i, row));
        d.into_iter().map(move |d| 1.0 + f64::from(weight[i]) * d).collect::<Vec<_>>()
    });
    (values, gradient.collect())
}

#[test]
fn values_and_gradients_equal_the_reference() {
    for (r, v, temperature) in [(0, 5, 1.0), (1, 1, 1.0), (5, 5, 0.8), (3, 64, 2.0), (4, 83, 1.0)] {
        let (student, teacher, weight) = (logits(1, r * v), logits(2, r * v), weights(r));
        let t = f64::from(temperature);
        for kind in KINDS {
            let teachers: Vec<Vec<f64>> = wide(&teacher).chunks(v).map(|row| softmax(row, t)).collect();
            let (values, gradient) =
                expected(&student, v, &weight, |i, row| reference(kind, &teachers[i], &softmax(row, t)));
            let mut by_threads = Vec::new();
            for queue in queues() {
                let (mut value, mut d) = (vec![9.0; r], vec![1.0; r * v]);
                divergence_rows(
                    &queue,
                    View::of(&student, r, v),
                    View::of(&teacher, r, v),
                    kind,
                    temperature,
                    View::of(&weight, 1, r),
                    ViewMut::of(&mut value, 1, r),
                    ViewMut::of(&mut d, r, v),
                );
                assert_close(&format!("{kind:?} value"), &value, &values, 2e-6);
                assert_close(&format!("{kind:?} gradient"), &d, &gradient, 2e-6);
                by_threads.push([value, d].concat());
            }
            by_threads.chunks(2).for_each(|pair| assert_same_bits("threads", &pair[0], &pair[1]));
        }
    }
}

#[test]
fn tokens_that_neither_gives_weight_count_for_nothing() {
    let row = [1.0, f32::NEG_INFINITY, 2.0, 0.5];
    for (queue, kind) in queues().iter().flat_map(|queue| KINDS.map(|kind| (queue, kind))) {
        let (mut value, mut d) = ([9.0], [0.0; 4]);
        let (x, d_view) = (View::of(&row, 1, 4), ViewMut::of(&mut d, 1, 4));
        divergence_rows(queue, x, x, kind, 1.0, View::of(&[1.0], 1, 1), ViewMut::of(&mut value, 1, 1), d_view);
        assert_close("value", &value, &[0.0], 1e-5);
        assert_close("gradient", &d, &[0.0; 4], 1e-5);
    }
}

#[test]
fn sparse_divergence_treats_the_tail_as_one_bucket() {
    for (r, v, k, temperature) in [(0, 5, 2, 1.0), (1, 1, 1, 1.0), (4, 5, 5, 0.9), (5, 64, 7, 1.5), (3, 83, 1, 1.0)] {
        let (student, teacher, weight) = (logits(1, r * v), logits(2, r * v), weights(r));
        let t = f64::from(temperature);
        let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
        for row in wide(&teacher).chunks(v) {
            let p = softmax(row, t);
            let mut order: Vec<u32> = (0..v as u32).collect();
            order.sort_by(|a, b| p[*b as usize].total_cmp(&p[*a as usize]));
            ids.extend(&order[..k]);
            logprobs.extend(order[..k].iter().map(|id| p[*id as usize].ln() as f32));
        }
        let (values, gradient) = expected(&student, v, &weight, |i, row| {
            let q = softmax(row, t);
            let known = &ids[i * k..][..k];
            let mut p: Vec<f64> = logprobs[i * k..][..k].iter().map(|x| f64::from(*x).exp()).collect();
            let mut q_known: Vec<f64> = known.iter().map(|id| q[*id as usize]).collect();
            if k < v {
                p.push(1.0 - p.iter().sum::<f64>());
                q_known.push(1.0 - q_known.iter().sum::<f64>());
            }
            kl(&p, &q_known)
        });
        for queue in queues() {
            let (mut value, mut d) = (vec![9.0; r], vec![1.0; r * v]);
            sparse_forward_kl_rows(
                &queue,
                View::of(&student, r, v),
                View::of(&ids, r, k),
                View::of(&logprobs, r, k),
                temperature,
                View::of(&weight, 1, r),
                ViewMut::of(&mut value, 1, r),
                ViewMut::of(&mut d, r, v),
            );
            assert_close("value", &value, &values, 3e-6);
            assert_close("gradient", &d, &gradient, 3e-6);
        }
    }
}
