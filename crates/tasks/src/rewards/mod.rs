//! Rules that turn a completion into a reward, and say why.
//!
//! A [`Rule`] declares what it reads: the prompt alone (and what it was built with: a dictionary, a range), or the case's
//! answer too. It never sees [`crate::case::Case::record`]; [`Evidence`] has no field for it. A [`RuleSet`] weighs rules,
//! lets some of them be gates, and keeps every verdict with its reason.
//!
//! This module never samples, never trains, never uses a network, and never turns a failure of its own into a score. A
//! crash is [`Verdict::Failed`], a time-out [`Verdict::TimedOut`], a case that a rule cannot judge [`Verdict::Abstain`].
//! Whoever stores the verdicts counts them all.
//!
//! Scoring is strict. Unless a rule's documentation says otherwise, a completion scores 0 if it was cut short, or if it does
//! not hold exactly one answer block. A reward that reads "the first answer block" teaches a policy to write several.
//!
//! Read next: [`rule`], [`answer`] (how the one answer is read), then [`mod@format`], the smallest rule, then [`registry`]
//! (how a recipe names them) and [`trial`] (what every set must refuse).

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
