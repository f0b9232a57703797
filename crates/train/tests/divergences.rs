//! Tests the divergences and their gradients against those of TRL's GKD. `bench/peers/rl_losses.py` writes the expected values.

use kernels::ops::head::{Divergence, divergence_rows, sparse_forward_kl_rows};
use kernels::{Buffer, Isa, Queue, View, ViewMut};
use serde_json::Value;

/// The largest allowed error, as a share of the largest expected value. It is the project's bound against peers.
const TOLERANCE: f32 = 1e-4;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/divergences.json")).expect("JSON")
}

/// A table's values as one list, with the numbers of its rows and columns.
fn table(value: &Value) -> (Vec<f32>, usize, usize) {
    let rows = value.as_array().expect("rows");
    let flat: Vec<f32> = rows.iter().flat_map(list).collect();
    (flat.clone(), rows.len(), flat.len() / rows.len())
}

fn list(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= TOLERANCE * scale, "{what}: off by {worst} of {scale}");
}

/// Checks every case on every instruction path. `run` computes values and gradients.
fn check(cases: &Value, run: impl Fn(&Queue, &Value, f32, View<f32>, ViewMut<f32>, ViewMut<f32>)) {
    let cases = cases.as_array().expect("cases");
    assert!(cases.len() >= 4);
    for case in cases {
        let (gradient, rows, vocabulary) = table(&case["d_logits"]);
        let temperature = case["temperature"].as_f64().expect("a number") as f32;
        for isa in Isa::available() {
            let queue = Queue::cpu(2, isa);
            let ones = Buffer::from_host(queue.device(), &vec![1.0; rows]);
            let mut value = Buffer::zeros(queue.device(), rows);
            let mut d_logits = Buffer::zeros(queue.device(), rows * vocabulary);
            let gradients = d_logits.matrix_mut(rows, vocabulary);
            run(&queue, case, temperature, ones.view(), value.view_mut(), gradients);
            let name = &case.as_object().expect("an object")[if case["k"].is_null() { "beta" } else { "k" }];
            let what = format!("{name} at temperature {temperature}, {}", isa.name());
            assert_near(&value.to_host(), &list(&case["values"]), &what);
            assert_near(&d_logits.to_host(), &gradient, &format!("gradient of {what}"));
        }
    }
}

#[test]
fn divergences_are_those_of_trl() {
    let golden = golden();
    let ((student, rows, vocabulary), (teacher, ..)) =
        (table(&golden["student_logits"]), table(&golden["teacher_logits"]));
    check(&golden["cases"], |queue, case, temperature, weight, value, d_logits| {
        let kind = match case["beta"].as_f64().expect("a number") {
            0.0 => Divergence::ForwardKl,
            1.0 => Divergence::ReverseKl,
            // TRL's mixture is beta parts teacher and 1 - beta parts student, like ours.
            beta => Divergence::Jsd { beta: beta as f32 },
        };
        let (student, teacher) = (queue.upload(&student), queue.upload(&teacher));
        let (student, teacher) = (student.matrix(rows, vocabulary), teacher.matrix(rows, vocabulary));
        divergence_rows(queue, student, teacher, kind, temperature, weight, value, d_logits);
    });
}

#[test]
fn the_divergence_of_likely_tokens_and_a_tail_is_that_of_trl() {
    let golden = golden();
    let (student, rows, vocabulary) = table(&golden["student_logits"]);
    check(&golden["sparse"], |queue, case, temperature, weight, value, d_logits| {
        let (logprobs, _, k) = table(&case["logprobs"]);
        let ids: Vec<u32> = table(&case["ids"]).0.into_iter().map(|id| id as u32).collect();
        let (ids, logprobs, student) = (queue.upload(&ids), queue.upload(&logprobs), queue.upload(&student));
        let (ids, logprobs, student) =
            (ids.matrix(rows, k), logprobs.matrix(rows, k), student.matrix(rows, vocabulary));
        sparse_forward_kl_rows(queue, student, ids, logprobs, temperature, weight, value, d_logits);
    });
}
