//! Weighted rules with gates.
//!
//! The reward is Σ weight·score / Σ weight over the rules that gave a score, or 0 if a gate's score is below its
//! threshold. A gate below its threshold decides alone. Otherwise a completion has no reward if a rule failed or timed
//! out; if the other rules' sum counted, a policy could earn by making a rule fail.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::RuleConfig;
use super::registry::{self, Built};
use super::rule::{Evidence, Reads, Rule, Verdict};
use crate::case::Completion;
use crate::refusal::Refusal;

/// Rules with their weights and gates.
#[derive(Clone, Default)]
pub struct RuleSet {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    rule: Arc<dyn Rule>,
    weight: f64,
    gate: Option<f64>,
}

/// The reward of one completion and every verdict behind it. The default is that of a completion that was not judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// In 0..=1; none if no rule gave a score, or if one failed or timed out. None is not zero: the completion is left
    /// out of its group.
    pub reward: Option<f64>,
    /// Rule name and verdict, in the set's order.
    pub verdicts: Vec<(String, Verdict)>,
}

/// Why a completion that was judged has no reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReward {
    /// Every rule abstained.
    Abstained,
    /// A rule failed.
    Failed,
    /// A rule timed out.
    TimedOut,
}

impl Judged {
    /// Why there is no reward; none if there is one, or if no rule judged it. If several causes apply, a time-out comes
    /// before a failure and a failure before an abstention.
    pub fn no_reward(&self) -> Option<NoReward> {
        let any = |is: fn(&Verdict) -> bool| self.verdicts.iter().any(|(_, verdict)| is(verdict));
        match () {
            () if self.reward.is_some() || self.verdicts.is_empty() => None,
            () if any(|verdict| matches!(verdict, Verdict::TimedOut { .. })) => Some(NoReward::TimedOut),
            () if any(|verdict| matches!(verdict, Verdict::Failed { .. })) => Some(NoReward::Failed),
            () => Some(NoReward::Abstained),
        }
    }
}

impl RuleSet {
    /// A set without rules; [`RuleSet::with`] and [`RuleSet::with_gate`] add them.
    pub fn new() -> RuleSet {
        RuleSet::default()
    }

    /// This set with one more rule.
    ///
    /// # Panics
    /// When the weight is negative or not finite.
    pub fn with(self, rule: Arc<dyn Rule>, weight: f64) -> RuleSet {
        self.push(rule, weight, None)
    }

    /// This set with one more rule that is a gate: the reward is 0 if the rule's score is below `threshold`. The weight
    /// may be 0.
    ///
    /// # Panics
    /// When the weight is negative or not finite.
    pub fn with_gate(self, rule: Arc<dyn Rule>, weight: f64, threshold: f64) -> RuleSet {
        self.push(rule, weight, Some(threshold))
    }

    fn push(mut self, rule: Arc<dyn Rule>, weight: f64, gate: Option<f64>) -> RuleSet {
        assert!(weight.is_finite() && weight >= 0.0, "rule \"{}\" has the weight {weight}", rule.name());
        self.entries.push(Entry { rule, weight, gate });
        self
    }

    /// The set that a recipe's `rules` describe. Relative paths in them start at `folder`, the recipe's.
    ///
    /// # Errors
    /// An unknown rule or key (with a suggestion), an invalid value, a file that cannot be read, or no positive weight.
    pub fn from_config(configs: &[RuleConfig], folder: &Path) -> Result<RuleSet, Refusal> {
        let mut set = RuleSet::new();
        for config in configs {
            let Built { rule, weight, gate } = registry::build(config, folder)?;
            set = set.push(rule, weight, gate);
        }
        if !set.entries.iter().any(|entry| entry.weight > 0.0) {
            return Err(Refusal::new("no rule has a positive weight", "give at least one rule `weight = 1.0`"));
        }
        Ok(set)
    }

    /// Judges a completion by every rule. Only rules that declare it see `answer`.
    pub fn judge(&self, prompt: &str, answer: Option<&str>, completion: &Completion) -> Judged {
        let verdicts: Vec<Verdict> = self
            .entries
            .iter()
            .map(|entry| {
                let answer = answer.filter(|_| entry.rule.reads() == Reads::Answer);
                entry.rule.judge(&Evidence { prompt, answer, completion })
            })
            .collect();
        let reward = self.combine(&verdicts);
        let names = self.entries.iter().map(|entry| entry.rule.name().to_string());
        Judged { reward, verdicts: names.zip(verdicts).collect() }
    }

    /// The reward for given verdicts, one per rule in order.
    fn combine(&self, verdicts: &[Verdict]) -> Option<f64> {
        let paired = || self.entries.iter().zip(verdicts);
        let shut = |(entry, verdict): (&Entry, &Verdict)| match (entry.gate, verdict.value()) {
            (Some(threshold), Some(value)) => value < threshold,
            _ => false,
        };
        if paired().any(shut) {
            return Some(0.0);
        }
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed { .. } | Verdict::TimedOut { .. })) {
            return None;
        }
        let (sum, weight) = paired()
            .filter_map(|(entry, verdict)| Some((entry.weight, verdict.value()?)))
            .fold((0.0, 0.0), |(sum, total), (weight, value)| (sum + weight * value, total + weight));
        (weight > 0.0).then(|| sum / weight)
    }

    /// Whether any rule uses the case's answer. If so, each distinct case that is judged is metered.
    pub fn reads_answers(&self) -> bool {
        self.entries.iter().any(|entry| entry.rule.reads() == Reads::Answer)
    }

    /// Which verdicts decide whether an answer is *right*: those of the rules that use answers or, if there are none,
    /// of all rules.
    ///
    /// The order is that of [`Judged::verdicts`]. If the right answer is known, style (length, language) does not make
    /// an answer wrong.
    pub fn deciding(&self) -> Vec<bool> {
        let any = self.reads_answers();
        self.entries.iter().map(|entry| !any || entry.rule.reads() == Reads::Answer).collect()
    }

    /// The rules' names with weights, in order.
    pub fn weights(&self) -> impl Iterator<Item = (&str, f64)> {
        self.entries.iter().map(|entry| (entry.rule.name(), entry.weight))
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Reads, Verdict);

    impl Rule for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }
        fn reads(&self) -> Reads {
            self.0
        }
        fn judge(&self, evidence: &Evidence) -> Verdict {
            assert_eq!(evidence.answer.is_some(), self.0 == Reads::Answer, "the answer went to the wrong rule");
            self.1.clone()
        }
    }

    fn fixed(reads: Reads, verdict: Verdict) -> Arc<dyn Rule> {
        Arc::new(Fixed(reads, verdict))
    }

    fn score(value: f64) -> Arc<dyn Rule> {
        fixed(Reads::Prompt, Verdict::score(value, "as told"))
    }

    fn reward(set: RuleSet) -> Option<f64> {
        set.judge("p", Some("a"), &Completion { text: "t", finished: true, tokens: 1 }).reward
    }

    #[test]
    fn weights_are_normalised_over_the_rules_that_spoke() {
        let abstain = fixed(Reads::Answer, Verdict::Abstain { reason: "no".into() });
        assert_eq!(reward(RuleSet::new().with(score(1.0), 3.0).with(score(0.2), 1.0)), Some(0.8));
        assert_eq!(reward(RuleSet::new().with(score(0.5), 1.0).with(abstain, 9.0)), Some(0.5));
    }

    #[test]
    fn a_shut_gate_decides_and_a_failure_leaves_no_reward() {
        let failed = || fixed(Reads::Prompt, Verdict::Failed { reason: "it died".into() });
        let timed_out = || fixed(Reads::Prompt, Verdict::TimedOut { reason: "2 s".into() });
        let abstain = || fixed(Reads::Prompt, Verdict::Abstain { reason: "no".into() });
        assert_eq!(reward(RuleSet::new().with(score(1.0), 1.0).with_gate(score(0.4), 1.0, 0.5)), Some(0.0));
        assert_eq!(reward(RuleSet::new().with(score(1.0), 1.0).with_gate(score(0.5), 0.0, 0.5)), Some(1.0));
        assert_eq!(reward(RuleSet::new().with(score(1.0), 1.0).with(failed(), 1.0)), None);
        assert_eq!(reward(RuleSet::new().with(failed(), 1.0).with_gate(score(0.0), 0.0, 1.0)), Some(0.0));
        assert_eq!(reward(RuleSet::new().with(score(1.0), 1.0).with(timed_out(), 1.0)), None);
        assert_eq!(reward(RuleSet::new().with(abstain(), 1.0)), None);

        let why = |set: RuleSet| set.judge("p", None, &Completion::finished("t")).no_reward();
        let all = RuleSet::new().with(abstain(), 1.0);
        assert_eq!(why(all.clone()), Some(NoReward::Abstained));
        assert_eq!(why(all.clone().with(failed(), 1.0)), Some(NoReward::Failed));
        assert_eq!(why(all.clone().with(failed(), 1.0).with(timed_out(), 1.0)), Some(NoReward::TimedOut));
        assert_eq!((why(all.with(score(0.0), 1.0)), why(RuleSet::new())), (None, None));
    }

    #[test]
    fn a_set_reads_answers_if_one_rule_does() {
        assert!(!RuleSet::new().with(score(1.0), 1.0).reads_answers());
        let reading = fixed(Reads::Answer, Verdict::zero("x"));
        assert!(RuleSet::new().with(score(1.0), 1.0).with(reading, 0.0).reads_answers());
    }
}
