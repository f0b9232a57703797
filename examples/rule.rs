//! Add a rule: the answer ends in a unit. Then ask what a policy could get out of it without solving anything.
//!
//!     cargo run --release -p train --example rule
//!
//! A recipe can name a rule once it is known to the registry: move the struct to `crates/tasks/src/rewards/unit.rs`, give it a struct of keys,
//! and add a line in `crates/tasks/src/rewards/registry.rs`.

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

    /// It looks at the completion alone. `Reads::Answer` would show it the known answer, and meter each case.
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

/// Form, value and unit, by weight.
pub fn rules() -> RuleSet {
    let unit = Unit { units: vec!["km", "m", "cm"] };
    RuleSet::new()
        .with(Arc::new(Format::default()), 0.1)
        .with(Arc::new(Number::default()), 0.7)
        .with(Arc::new(unit), 0.2)
}

/// The reward of a text that ended by itself, and what each rule said.
pub fn judged(text: &str) -> (Option<f64>, Vec<String>) {
    let judged = rules().judge("How far is it?", Some("3 km"), &Completion::finished(text));
    let reasons = judged.verdicts.iter().map(|(rule, verdict)| format!("{rule}: {}", verdict.reason()));
    (judged.reward, reasons.collect())
}

/// Completions that deserve nothing, and are paid for all the same.
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
