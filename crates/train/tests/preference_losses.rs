//! Tests the losses of DPO, IPO, robust DPO and KTO and their gradients against TRL's. `bench/peers/rl_losses.py`
//! writes the expected values.

use serde_json::Value;
use train::preference::{
    CompletionRows, PairLoss, PairLossType, PairSignal, Scored, ThumbLoss, ThumbSignal, behind, divergence,
};
use train::step::{RowLoss, RowReport};

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preference_losses.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

fn sum(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum()
}

/// The completions' rows, one completion after the other, with their log-probabilities under the reference.
fn completions(policy: &[Vec<f32>], reference: &[Vec<f32>]) -> Vec<CompletionRows> {
    let mut start = 0;
    let mut of = |(policy, reference): (&Vec<f32>, &Vec<f32>)| {
        let rows = start..start + policy.len();
        start = rows.end;
        CompletionRows { rows, reference: sum(reference) }
    };
    policy.iter().zip(reference).map(&mut of).collect()
}

#[track_caller]
fn check(case: &Value, loss: &dyn RowLoss, policy: &[Vec<f32>], figures: &[(&str, &str)]) {
    let name = case["name"].as_str().unwrap();
    let (ours, RowReport { loss, figures: reported }) = loss.coefficients(&policy.concat());
    let near = |what: &str, a: f64, b: f64| {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(0.1), "{name}, {what}: {a} against {b}")
    };
    near("loss", loss, case["loss"].as_f64().unwrap());
    let theirs = rows(&case["coefficients"]).concat();
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (r, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!(b.abs() > 1e-4 && (a - b).abs() <= 1e-4 * b.abs(), "{name}, token {r}: {a} against {b}");
    }
    for (own, theirs) in figures {
        let own_value = reported.iter().find(|(name, _)| name == own).map(|(_, value)| *value);
        assert_eq!(own_value.is_some(), case[theirs].is_number(), "{name}: {own}");
        if let Some(value) = own_value {
            near(own, value, case[theirs].as_f64().unwrap());
        }
    }
}

fn number(case: &Value, key: &str) -> f32 {
    case[key].as_f64().unwrap() as f32
}

#[test]
fn losses_and_gradients_of_pairs_are_those_of_trl() {
    let golden = golden();
    let policy = [rows(&golden["chosen_policy"]), rows(&golden["rejected_policy"])].concat();
    let reference = [rows(&golden["chosen_reference"]), rows(&golden["rejected_reference"])].concat();
    let all = completions(&policy, &reference);
    let (chosen, rejected) = all.split_at(all.len() / 2);
    let cases = golden["pairs"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let loss_type: PairLossType =
            serde_json::from_value(case["loss_type"].clone()).expect("a loss that Ferule has");
        let loss = PairLoss { loss_type, beta: number(case, "beta"), label_smoothing: number(case, "label_smoothing") };
        let pairs: Vec<[CompletionRows; 2]> =
            chosen.iter().zip(rejected).map(|(chosen, rejected)| [chosen.clone(), rejected.clone()]).collect();
        let weight = 1.0 / pairs.len() as f64;
        let signal = PairSignal { loss, trained: Vec::new(), pairs, weight };
        let figures = [
            ("reward_chosen", "rewards_chosen"),
            ("reward_rejected", "rewards_rejected"),
            ("reward_margin", "rewards_margins"),
            ("reward_accuracy", "rewards_accuracies"),
        ];
        check(case, &signal, &policy, &figures);
    }
}

#[test]
fn losses_and_gradients_of_thumbs_are_those_of_trl() {
    let golden = golden();
    let (policy, reference) = (rows(&golden["thumbs_policy"]), rows(&golden["thumbs_reference"]));
    let cases = golden["thumbs"].as_array().unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let labels: Vec<bool> =
            case["labels"].as_array().unwrap().iter().map(|label| label.as_bool().unwrap()).collect();
        let mismatched: Vec<Scored> = rows(&case["kl_logprobs_policy"])
            .iter()
            .zip(rows(&case["kl_logprobs_reference"]))
            .map(|(policy, reference)| Scored { policy: sum(policy), reference: sum(&reference), tokens: policy.len() })
            .collect();
        let divergence = divergence(&mismatched);
        let expected = case["kl"].as_f64().unwrap();
        assert!((divergence - expected).abs() < 1e-6, "{}: {divergence} against {expected}", case["name"]);
        let good = labels.iter().filter(|&&label| label).count();
        let signal = ThumbSignal {
            loss: ThumbLoss {
                beta: number(case, "beta"),
                desirable_weight: number(case, "desirable_weight"),
                undesirable_weight: number(case, "undesirable_weight"),
            },
            divergence,
            trained: Vec::new(),
            thumbs: completions(&policy, &reference).into_iter().zip(labels.iter().copied()).collect(),
            counts: [good, labels.len() - good],
        };
        check(
            case,
            &signal,
            &policy,
            &[("reward_desirable", "rewards_chosen"), ("reward_undesirable", "rewards_rejected")],
        );
    }
}

#[test]
fn completions_stand_behind_the_prompts_that_trl_puts_them_behind() {
    let golden = golden();
    let theirs: Vec<usize> =
        golden["mismatched"].as_array().unwrap().iter().map(|place| place.as_u64().unwrap() as usize).collect();
    let ours: Vec<usize> = (0..theirs.len()).map(|index| behind(index, theirs.len())).collect();
    assert_eq!(ours, theirs);
}
