//! The trait of rules: a rule looks at a completion and gives a score and a reason.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::case::Completion;
use crate::refusal::Refusal;

/// What a rule uses besides the completion. Cases whose answer is used are metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// The prompt, and whatever the rule was built with.
    Prompt,
    /// The case's known answer as well.
    Answer,
}

/// What a rule can see of one rollout.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The prompt as plain text. For a conversation: the messages' contents, in order.
    pub prompt: &'a str,
    /// The known answer; present only for rules that declare [`Reads::Answer`], and only where the case has one.
    pub answer: Option<&'a str>,
    /// The completion as it was sampled.
    pub completion: &'a Completion<'a>,
}

/// A rule's verdict on one completion.
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
    /// The rule cannot judge this *case*, for example because its answer is missing. This never depends on the
    /// completion: a policy that could make a rule abstain could choose which rules judge it.
    Abstain {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
    /// The rule itself failed (a crash). The completion has no reward and is counted.
    Failed {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
    /// The rule was stopped before it ended. The completion has no reward and is counted.
    TimedOut {
        /// For a person who reads the stored verdicts.
        reason: String,
    },
}

impl Verdict {
    /// A score, clamped to 0..=1.
    ///
    /// # Panics
    /// When `value` is not a number, which is a bug of the rule.
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

    /// The reason.
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Score { reason, .. }
            | Verdict::Abstain { reason }
            | Verdict::Failed { reason }
            | Verdict::TimedOut { reason } => reason,
        }
    }
}

/// One rule. It is pure: the same evidence always gives the same verdict, and no text makes it panic.
pub trait Rule: Send + Sync {
    /// The name in recipes, metrics and stored verdicts.
    fn name(&self) -> &str;
    /// What it uses besides the completion.
    fn reads(&self) -> Reads;
    /// The verdict on one completion.
    fn judge(&self, evidence: &Evidence) -> Verdict;
}

/// A rule that a recipe can name.
pub trait Configured: Rule + Sized + 'static {
    /// The name in recipes.
    const NAME: &'static str;
    /// What it rewards, in one sentence.
    const SUMMARY: &'static str;
    /// What it uses at most, whatever its keys are.
    const READS: Reads;
    /// Its keys, besides those that every rule has.
    type Keys: JsonSchema + DeserializeOwned;

    /// The rule with these keys; relative paths in them start at `folder`.
    ///
    /// # Errors
    /// An invalid value that the keys' own ranges do not exclude, by its key; a file that cannot be read.
    fn build(keys: Self::Keys, folder: &Path) -> Result<Self, Refusal>;
}
