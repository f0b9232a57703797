//! Rules that turn a completion into a reward, and say why.
//!
//! A [`Rule`] declares what it reads: the prompt alone (and what it was built with: a dictionary, a range), or the case's
//! answer too. It never sees [`crate::case::Case::record`]; [`Evidence`] has no field for it. A [`RuleSet`] weighs rules,
//! lets some of them be gates, and keeps every verdict with its reason.
//!
//! What this module never does: it never samples, never trains, never touches a network, and never turns a failure of its
//! own into a score. A crash is [`Verdict::Failed`], a time-out [`Verdict::TimedOut`], a case that a rule cannot speak about is
//! [`Verdict::Abstain`]; both are counted by whoever stores the verdicts.
//!
//! Scoring is strict: unless a rule's documentation says otherwise, a completion that was cut short or that does not hold
//! exactly one answer block scores 0. A reward that reads "the first answer block" teaches a policy to write several.
//!
//! Read next: [`answer`] (how the one answer is read), then [`mod@format`], the smallest rule, then [`registry`] (how a recipe names them) and [`trial`] (what every set must refuse).

pub mod answer;
pub mod choice;
pub mod countdown;
pub mod dictionary;
pub mod exact;
pub mod expression;
pub mod format;
pub mod interval;
pub mod language;
pub mod length;
pub mod math;
pub mod number;
pub mod quantity;
pub mod regex;
pub mod registry;
pub mod repetition;
pub mod trial;

mod rule_set;

pub use registry::RuleConfig;
pub use rule_set::{Judged, NoReward, RuleSet};

use crate::case::Completion;
use serde::{Deserialize, Serialize};

/// What a rule looks at besides the completion. Cases whose answer is read are metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// The prompt, and whatever the rule was built with.
    Prompt,
    /// The case's known answer as well.
    Answer,
}

/// What a rule may see of one rollout.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The prompt as plain text (of a conversation: what was said to the policy, in order).
    pub prompt: &'a str,
    /// The known answer; present only for rules that declare [`Reads::Answer`], and only where the case has one.
    pub answer: Option<&'a str>,
    /// What the sampler left.
    pub completion: &'a Completion<'a>,
}

/// What a rule says of one completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// A score from 0 (wrong) to 1 (right), and why.
    Score {
        /// 0..=1.
        value: f64,
        /// For a person who reads the stored verdicts.
        reason: String,
    },
    /// The rule has nothing to say of this *case* (an answer is missing, say). Never a matter of the completion: a policy that can make
    /// a rule abstain can choose what it is graded by.
    Abstain {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
    /// The rule itself failed: a crash. The completion has no reward and is counted.
    Failed {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
    /// The rule was given up before it came to an end. The completion has no reward and is counted.
    TimedOut {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
}

impl Verdict {
    /// A score, clamped to 0..=1.
    ///
    /// # Panics
    /// When `value` is not a number: that is a bug of the rule.
    pub fn score(value: f64, reason: impl Into<String>) -> Verdict {
        let reason = reason.into();
        assert!(!value.is_nan(), "a rule scored NaN ({reason})");
        Verdict::Score { value: value.clamp(0.0, 1.0), reason }
    }

    /// The score 0.
    pub fn zero(reason: impl Into<String>) -> Verdict {
        Verdict::score(0.0, reason)
    }

    /// The score 1 or 0.
    pub fn pass(passed: bool, reason: impl Into<String>) -> Verdict {
        Verdict::score(if passed { 1.0 } else { 0.0 }, reason)
    }

    /// The score, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Verdict::Score { value, .. } => Some(*value),
            Verdict::Abstain { .. } | Verdict::Failed { .. } | Verdict::TimedOut { .. } => None,
        }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Score { reason, .. }
            | Verdict::Abstain { reason }
            | Verdict::Failed { reason }
            | Verdict::TimedOut { reason } => reason,
        }
    }
}

/// One rule. Pure: the same evidence always gives the same verdict, and no text makes it panic.
pub trait Rule: Send + Sync {
    /// The name in recipes, metrics and stored verdicts.
    fn name(&self) -> &str;
    /// What it looks at.
    fn reads(&self) -> Reads;
    /// The verdict on one completion.
    fn judge(&self, evidence: &Evidence) -> Verdict;
}

/// What can be wrong with a rule as configured. Messages name the rule and the key, and end in a hint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// No rule has this name.
    #[error("rules: there is no rule \"{name}\"\nhint: {hint}")]
    UnknownRule {
        /// As written.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// A key that the rule does not have.
    #[error("rule \"{rule}\": unknown key \"{key}\"\nhint: {hint}")]
    UnknownKey {
        /// The rule's name.
        rule: String,
        /// As written.
        key: String,
        /// The nearest key, or all of them.
        hint: String,
    },
    /// A key whose value cannot be.
    #[error("rule \"{rule}\": {key}: {problem}\nhint: {hint}")]
    BadValue {
        /// The rule's name.
        rule: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// The mend.
        hint: String,
    },
    /// A rule set with nothing in it that could give a reward.
    #[error("rules: no rule has a positive weight\nhint: give at least one rule `weight = 1.0`")]
    NoWeight,
    /// A file that a rule needs (a dictionary) cannot be read.
    #[error("rule \"{rule}\": {path}: {problem}\nhint: {hint}")]
    File {
        /// The rule's name.
        rule: String,
        /// The file.
        path: String,
        /// What the system or the reader said, with the line where there is one.
        problem: String,
        /// The mend.
        hint: String,
    },
}
