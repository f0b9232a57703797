//! Rules that reward a completion, and sets of them.
//!
//! A rule says what it reads: the prompt alone, or the answer that the case's source states. It sees
//! [`Evidence`] and nothing else, so a generator's hidden record is out of its reach by construction, and the
//! answer reaches only those rules that declare it. A rule never decides how many answers were read; the recipe
//! meters that by [`RuleSet::reads_answers`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tasks::Completion;

/// What a rule looks at besides the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// The prompt, and fixed knowledge such as a dictionary or a statute.
    Prompt,
    /// The answer that the case's source states; each distinct case is metered.
    Answer,
}

/// What a rule may see.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The prompt's text.
    pub prompt: &'a str,
    /// The known answer; `Some` only for rules that read it.
    pub answer: Option<&'a str>,
    /// What the policy wrote.
    pub completion: &'a Completion<'a>,
}

/// What a rule says of one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A score in `[0, 1]`.
    Score {
        /// The score.
        value: f64,
        /// Why.
        reason: String,
    },
    /// The rule cannot say; it leaves the sum and its weight.
    Abstain {
        /// Why.
        reason: String,
    },
    /// The rule broke down (a time-out, a crash): counted, never a silent zero.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Verdict {
    /// A score with its reason; `value` is clamped to `[0, 1]`.
    pub fn score(value: f64, reason: impl Into<String>) -> Verdict {
        Verdict::Score { value: value.clamp(0.0, 1.0), reason: reason.into() }
    }
}

/// One way of scoring a completion.
pub trait Rule: Send + Sync {
    /// Its name in recipes, tables and stored verdicts.
    fn name(&self) -> &str;
    /// What it reads.
    fn reads(&self) -> Reads;
    /// Its verdict; pure, and never panicking on any text.
    fn judge(&self, evidence: &Evidence) -> Verdict;
}

/// A rule with its part in the whole.
#[derive(Clone)]
struct Weighted {
    rule: Arc<dyn Rule>,
    weight: f64,
    gate: Option<f64>,
}

/// Weighted rules with gates.
#[derive(Clone, Default)]
pub struct RuleSet {
    rules: Vec<Weighted>,
}

/// The whole set's judgement of one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Σ w·score / Σ w over the rules that scored; 0 when a gate is shut; `None` when no weighted rule scored.
    pub reward: Option<f64>,
    /// Every rule's verdict, by name, in the set's order.
    pub verdicts: Vec<(String, Verdict)>,
}

impl RuleSet {
    /// An empty set.
    pub fn new() -> RuleSet {
        RuleSet::default()
    }

    /// This set with one more rule of a weight ≥ 0.
    pub fn with(mut self, rule: Arc<dyn Rule>, weight: f64) -> RuleSet {
        self.rules.push(Weighted { rule, weight, gate: None });
        self
    }

    /// This set with one more rule, whose score below `threshold` makes the whole reward 0.
    pub fn with_gate(mut self, rule: Arc<dyn Rule>, weight: f64, threshold: f64) -> RuleSet {
        self.rules.push(Weighted { rule, weight, gate: Some(threshold) });
        self
    }

    /// Whether any rule reads answers, so that its cases are to be metered.
    pub fn reads_answers(&self) -> bool {
        self.rules.iter().any(|w| w.rule.reads() == Reads::Answer)
    }

    /// Judges one completion; `answer` reaches only the rules that declare it.
    pub fn judge(&self, prompt: &str, answer: Option<&str>, completion: &Completion) -> Judged {
        let (mut sum, mut weights, mut shut) = (0.0, 0.0, false);
        let mut verdicts = Vec::with_capacity(self.rules.len());
        for Weighted { rule, weight, gate } in &self.rules {
            let answer = answer.filter(|_| rule.reads() == Reads::Answer);
            let verdict = rule.judge(&Evidence { prompt, answer, completion });
            if let Verdict::Score { value, .. } = verdict {
                sum += weight * value;
                weights += weight;
                shut |= gate.is_some_and(|threshold| value < threshold);
            }
            verdicts.push((rule.name().to_string(), verdict));
        }
        let reward = match () {
            () if shut => Some(0.0),
            () if weights > 0.0 => Some(sum / weights),
            () => None,
        };
        Judged { reward, verdicts }
    }
}
