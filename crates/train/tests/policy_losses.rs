//! Tests the policy-gradient losses and their gradients against TRL's own. `bench/peers/rl_losses.py` writes the expected values.

use serde_json::Value;
use train::policy::{Aggregate, PolicyLoss, PolicyTokens, Ratio, coefficients};

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policy_losses.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn losses_and_gradients_are_those_of_trl() {
    let golden = golden();
    let policy = rows(&golden["logprobs_policy"]);
    let reference = rows(&golden["logprobs_reference"]).concat();
    let advantages: Vec<f32> =
        golden["advantages"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let number = |key: &str| case[key].as_f64().map(|x| x as f32);
        let masked: Vec<usize> = case["masked_rows"]
            .as_array()
            .map_or(vec![], |rows| rows.iter().map(|row| row.as_u64().unwrap() as usize).collect());
        let loss = PolicyLoss {
            ratio: match case["ratio"].as_str().unwrap() {
                "token" => Ratio::Token,
                "sequence" => Ratio::Sequence,
                _ => Ratio::SequenceProduct,
            },
            epsilon_low: number("epsilon_low").unwrap(),
            epsilon_high: number("epsilon_high").unwrap(),
            ratio_cap: number("delta"),
            kl_coefficient: number("beta").unwrap_or(0.0),
        };
        let aggregate = match case["aggregate"].as_str().unwrap() {
            "grpo" | "rloo" => Aggregate::Grpo,
            "bnpo" | "dapo" => Aggregate::Dapo,
            _ => Aggregate::DrGrpo,
        };
        let lengths: Vec<usize> =
            policy.iter().enumerate().map(|(i, row)| if masked.contains(&i) { 0 } else { row.len() }).collect();
        let weights = aggregate.token_weights(&lengths, 8);
        let mut tokens = PolicyTokens {
            logprobs_sampler: rows(&case["logprobs_sampler"]).concat(),
            logprobs_reference: Some(reference.clone()),
            ..PolicyTokens::default()
        };
        for (i, row) in policy.iter().enumerate() {
            let start = tokens.weight.len();
            tokens.completions.push(start..start + row.len());
            let weight = if masked.contains(&i) { 0.0 } else { weights[i] };
            tokens.weight.extend(vec![weight; row.len()]);
            tokens.advantage.extend(vec![advantages[i]; row.len()]);
        }
        let (ours, report) = coefficients(&loss, &tokens, &policy.concat());
        let expected = case["loss"].as_f64().unwrap();
        assert!((report.loss - expected).abs() < 1e-6, "{name}: loss {} against {expected}", report.loss);
        let theirs = rows(&case["coefficients"]).concat();
        for (r, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1e-3), "{name}, token {r}: {a} against {b}");
        }
    }
}
