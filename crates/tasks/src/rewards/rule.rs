//! What a rule is: it looks at a completion and says how good it is, and why.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::case::Completion;
use crate::refusal::Refusal;

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
    /// The rule has nothing to say of this *case* (its answer is missing, for example). It never depends on the completion: a
    /// policy that can make a rule abstain can choose what it is graded by.
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

/// One rule. It is pure: the same evidence always gives the same verdict, and no text makes it panic.
pub trait Rule: Send + Sync {
    /// The name in recipes, metrics and stored verdicts.
    fn name(&self) -> &str;
    /// What it looks at.
    fn reads(&self) -> Reads;
    /// The verdict on one completion.
    fn judge(&self, evidence: &Evidence) -> Verdict;
}

/// A rule that a recipe can name.
pub trait Configured: Rule + Sized + 'static {
    /// The name in recipes.
    const NAME: &'static str;
    /// What it rewards, in a sentence.
    const SUMMARY: &'static str;
    /// The most that it looks at, whatever its keys say.
    const READS: Reads;
    /// Its keys, besides those that every rule has.
    type Keys: JsonSchema + DeserializeOwned;

    /// The rule with these keys; relative paths in them start at `folder`.
    ///
    /// # Errors
    /// A value that the keys' own ranges do not exclude, by its key; a file that cannot be read.
    fn build(keys: Self::Keys, folder: &Path) -> Result<Self, Refusal>;
}
