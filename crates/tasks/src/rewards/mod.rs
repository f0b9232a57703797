//! Rules that turn a completion into a reward with a reason.
//!
//! A [`Rule`] declares what it uses: the prompt alone (and what it was built with: a dictionary, a range), or the
//! case's answer too. It never sees [`crate::case::Case::record`]; [`Evidence`] has no field for it. A [`RuleSet`]
//! weights the rules, can make some of them gates, and keeps every verdict with its reason.
//!
//! This module never samples, trains or uses a network, and it never turns a failure of its own into a score. A crash
//! is [`Verdict::Failed`], a time-out is [`Verdict::TimedOut`], and a case that a rule cannot judge is
//! [`Verdict::Abstain`]. The caller that stores the verdicts counts them all.
//!
//! Scoring is strict. Unless a rule's documentation says otherwise, a completion scores 0 if it was truncated or if it
//! does not contain exactly one answer block. A reward that takes "the first answer block" teaches a policy to write
//! several.
//!
//! Read next: [`rule`], [`answer`] (how the answer is parsed), then [`mod@format`], the smallest rule, then
//! [`registry`] (how a recipe names rules) and [`trial`] (what every set must refuse).

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
pub mod rule;
pub mod trial;

mod config;
mod rule_set;

pub use config::RuleConfig;
pub use rule::{Evidence, Reads, Rule, Verdict};
pub use rule_set::{Judged, NoReward, RuleSet};
