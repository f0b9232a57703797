//! Add a rule: the answer must end in a unit. Then look for rewards that a policy could get without solving anything.
//!
//!     cargo run --release -p train --example rule
//!
//! To let recipes name the rule, move the struct to `crates/tasks/src/rewards/unit.rs`, give it a struct of keys, and add
//! a line in `crates/tasks/src/rewards/registry.rs`.

use std::sync::Arc;

use tasks::rewards::answer::{self, ReadFrom};
use tasks::rewards::format::Format;
use tasks::rewards::number::Number;
use tasks::rewards::trial::{Loophole, degenerate, loopholes};
use tasks::rewards::{Evidence, Reads, Rule, RuleSet, Verdict};
use tasks::{Case, Completion, Prompt};

/// The rule: 1 if the answer ends in one of the units, else 0.
pub struct Unit {
    units: Vec<&'static str>,
}

impl Rule for Unit {
    fn name(&self) -> &str {
        "unit"
    }

    /// It looks only at the prompt and the completion. `Reads::Answer` would also show it the known answer, and each case
    /// would then count as an answer used.
    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        match answer::read(evidence.completion, ReadFrom::Block) {
            Ok(answer) => match self.units.iter().find(|unit| answer.ends_with(**unit)) {
                Some(unit) => Verdict::pass(true, format!("ends in {unit}")),
                None => Verdict::zero("no unit at the end"),
            },
            Err(reason) => Verdict::zero(reason),
        }
    }
}

/// The rules on form, value and unit, with their weights.
pub fn rules() -> RuleSet {
    let unit = Unit { units: vec!["km", "m", "cm"] };
    RuleSet::new()
        .with(Arc::new(Format::default()), 0.1)
        .with(Arc::new(Number::default()), 0.7)
        .with(Arc::new(unit), 0.2)
}

/// The reward of a completion that ended by itself, and each rule's reason.
pub fn judged(text: &str) -> (Option<f64>, Vec<String>) {
    let judged = rules().judge("How far is it?", Some("3 km"), &Completion::finished(text));
    let reasons = judged.verdicts.iter().map(|(rule, verdict)| format!("{rule}: {}", verdict.reason()));
    (judged.reward, reasons.collect())
}

/// Degenerate completions that are rewarded although they solve nothing.
pub fn paid_for_nothing(rules: &RuleSet) -> Vec<Loophole> {
    let case = Case {
        id: "0".into(),
        prompt: Prompt::Text("How far is it?".into()),
        answer: Some("3 km".into()),
        record: serde_json::Value::Null,
    };
    loopholes(rules, &case, &degenerate(&case, Some("<think>4 km less 1 km</think><answer>3 km</answer>")))
}

#[allow(dead_code, reason = "the tests call the functions above")]
fn main() {
    for text in ["<think>4 − 1</think><answer>3 km</answer>", "<think>4 − 1</think><answer>3</answer>", "It is 3 km."]
    {
        let (reward, reasons) = judged(text);
        println!("{reward:?} for {text}\n    {}", reasons.join("\n    "));
    }
    println!("paid for nothing: {:?}", paid_for_nothing(&rules()));
}
