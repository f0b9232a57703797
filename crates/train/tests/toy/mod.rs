//! A toy task that a tiny model learns in seconds, and what tests of whole pipelines share.
//!
//! The prompt is two letters, and the answer is the second one. A few demonstrations teach the format; reinforcement learning has to find
//! the rule.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::rng::Key;
use store::{StageRow, StepMetrics};
use tasks::environment::{Environment, Reply};
use tasks::rewards::{Evidence, Reads, Rule, RuleSet, Verdict};
use tasks::{Case, Completion, Grade, Prompt, Split, Task, TaskError};
use train::trainer::{Observer, StepView};

const LETTERS: &[u8] = b"abcdefgh";

/// The task.
pub struct SecondLetter;

struct IsSecond;

impl Rule for IsSecond {
    fn name(&self) -> &str {
        "is_second"
    }
    fn reads(&self) -> Reads {
        Reads::Prompt
    }
    fn judge(&self, evidence: &Evidence) -> Verdict {
        let right = evidence.prompt.chars().nth(1).map(|letter| format!("={letter}"));
        let passed = evidence.completion.finished && Some(evidence.completion.text) == right.as_deref();
        Verdict::pass(passed, evidence.completion.text)
    }
}

impl Task for SecondLetter {
    fn name(&self) -> &str {
        "second_letter"
    }
    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut draws = Key::new(seed).word(split.name()).stream();
        let mut case = |index: usize| {
            let pair = [*draws.pick(LETTERS), *draws.pick(LETTERS)].map(char::from);
            let text: String = pair.iter().collect();
            let id = format!("{}-{index}", split.name());
            Case { id, prompt: Prompt::Text(text), answer: Some(pair[1].to_string()), record: serde_json::Value::Null }
        };
        Ok((0..n).map(&mut case).collect())
    }
    fn demonstration(&self, case: &Case) -> Option<String> {
        Some(format!("={}", case.answer.as_ref()?))
    }
    fn bare_answer(&self, case: &Case) -> Option<String> {
        self.demonstration(case)
    }
    fn corpus(&self, index: u64, seed: u64) -> Option<String> {
        let mut draws = Key::new(seed).word("corpus").number(index).stream();
        Some((0..12).map(|_| char::from(*draws.pick(LETTERS))).chain(['=']).collect())
    }
    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        let correct = completion.finished && Some(completion.text) == self.demonstration(case).as_deref();
        Grade { correct, parts: BTreeMap::new(), reason: String::new(), answer_key: Some(completion.text.to_string()) }
    }
    fn game(&self, case: &Case, turns: usize, _: Key) -> Option<Box<dyn Environment>> {
        Some(Box::new(Again { prompt: case.prompt_text(), right: self.demonstration(case)?, turn: 0, turns }))
    }
    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        Ok(RuleSet::new().with(Arc::new(IsSecond), 1.0))
    }
}

/// An environment that repeats the prompt until an answer is wrong.
struct Again {
    prompt: String,
    right: String,
    turn: usize,
    turns: usize,
}

impl Environment for Again {
    fn prompt(&self) -> String {
        self.prompt.clone()
    }
    fn reply(&mut self, completion: &Completion) -> Reply {
        let done = |turn, ending: &str| Reply::Done { reward: turn as f64 / self.turns as f64, ending: ending.into() };
        if !completion.finished || completion.text != self.right {
            return done(self.turn, "wrong");
        }
        self.turn += 1;
        if self.turn == self.turns { done(self.turn, "held") } else { Reply::Say(self.prompt.clone()) }
    }
}

/// Counts steps, and asks to stop at a chosen one.
pub struct Stopper<'a> {
    pub steps: usize,
    pub stop_at: Option<usize>,
    pub stop: &'a AtomicBool,
}

impl Observer for Stopper<'_> {
    fn stage(&mut self, _: &str, _: u64) {}
    fn step(&mut self, _: &StepView) {
        self.steps += 1;
        if self.stop_at == Some(self.steps) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn notice(&mut self, _: &str) {}
    fn finished(&mut self, _: &StageRow) {}
}

/// A step's metrics without the clock.
pub fn without_clock(mut step: StepMetrics) -> StepMetrics {
    step.values.retain(|(name, _)| name != "step_seconds");
    step
}

/// The part of the rows that must be equal between two runs: everything but time and cost.
pub fn comparable(rows: &[StageRow]) -> Vec<serde_json::Value> {
    let of = |row: &StageRow| {
        let mut row = serde_json::to_value(row).expect("a row is JSON");
        for timing in ["seconds", "cost"] {
            row.as_object_mut().expect("an object").remove(timing);
        }
        row
    };
    rows.iter().map(of).collect()
}
