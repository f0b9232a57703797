//! The examples in `examples/`, run to their ends.
#![allow(clippy::duplicate_mod, reason = "two examples share `examples/sums.rs`")]

#[path = "../../../examples/countdown.rs"]
mod countdown;
#[path = "../../../examples/rule.rs"]
mod rule;
#[path = "../../../examples/stage.rs"]
mod stage;

use std::sync::Arc;

use tasks::rewards::RuleSet;
use tasks::rewards::length::Length;

#[test]
fn a_policy_is_trained_from_rust() {
    let runs = tempfile::tempdir().expect("a folder");
    let rows = countdown::train(runs.path()).expect("the recipe runs");
    let stages: Vec<&str> = rows.iter().map(|row| row.stage.as_str()).collect();
    assert_eq!(stages, ["tokenizer", "pretrain-policy", "grpo-policy"]);
    assert!(rows[2].rollouts > 0 && rows[2].answers_read == 0, "{:?}", rows[2]);
    assert_ne!(rows[1].digest, rows[2].digest, "reinforcement learning changed the weights");
}

#[test]
fn a_rule_of_ones_own_counts_and_leaves_no_loophole() {
    let (right, reasons) = rule::judged("<think>4 − 1</think><answer>3 km</answer>");
    assert_eq!(right, Some(1.0), "{reasons:?}");
    let (without, reasons) = rule::judged("<think>4 − 1</think><answer>3</answer>");
    assert!(without < right && reasons.contains(&"unit: no unit at the end".to_string()), "{without:?} {reasons:?}");
    assert_eq!(rule::paid_for_nothing(&rule::rules()), []);
    let weak = RuleSet::new().with(Arc::new(Length::default()), 1.0);
    assert!(!rule::paid_for_nothing(&weak).is_empty(), "a set that pays for length alone is found out");
}

#[test]
fn a_stage_of_ones_own_teaches_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = stage::train(folder.path()).expect("the pipeline runs");
    let accuracy = |name: &str| rows.iter().find(|row| row.stage == name).and_then(|row| row.accuracy).expect("a row");
    let (before, after) = (accuracy("sft-student"), accuracy("imitate-student"));
    assert!(after > before + 0.05, "the stage moved accuracy from {before} to {after}");
}
