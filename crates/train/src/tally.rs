//! Counts of a step's completions, for its metrics: how many were cut short, and how many have no reward and why.
//!
//! The report adds the counts up over a stage and names each, so that nothing is left out silently. A mean over nothing is absent, never 0.
//!
//! Read next: [`crate::advantage::Census`], which counts groups.

use tasks::rewards::{Judged, NoReward};

use crate::rollout::Rollout;

/// Named figures of a step. A figure is none if the step does not have it.
pub type Figures = Vec<(String, Option<f64>)>;

/// Counts and sums over the completions of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    completions: usize,
    unfinished: usize,
    abstained: usize,
    failed: usize,
    timed_out: usize,
    tokens: usize,
    entropy: f64,
    reward: f64,
    rewarded: usize,
}

impl Tally {
    /// Counts one completion. `reward` is its reward in the stage, which may be less than that of the rules.
    pub(crate) fn count(&mut self, rollout: &Rollout, judged: &Judged, reward: Option<f64>) {
        self.completions += 1;
        self.unfinished += usize::from(!rollout.finished);
        self.tokens += rollout.sampled_tokens();
        self.entropy += f64::from(rollout.entropy);
        self.reward += reward.unwrap_or(0.0);
        self.rewarded += usize::from(reward.is_some());
        match judged.no_reward() {
            None => {}
            Some(NoReward::Abstained) => self.abstained += 1,
            Some(NoReward::Failed) => self.failed += 1,
            Some(NoReward::TimedOut) => self.timed_out += 1,
        }
    }

    /// The number of completions that were counted.
    pub(crate) fn completions(&self) -> usize {
        self.completions
    }

    /// The counts and means that do not depend on rewards; `sampling_entropy` is in nats.
    pub(crate) fn lengths(&self) -> Figures {
        let mean = |sum: f64| (self.completions > 0).then(|| sum / self.completions as f64);
        vec![
            ("completions".into(), Some(self.completions as f64)),
            ("completions_unfinished".into(), Some(self.unfinished as f64)),
            ("completion_tokens".into(), mean(self.tokens as f64)),
            ("unfinished".into(), mean(self.unfinished as f64)),
            ("sampling_entropy".into(), mean(self.entropy)),
        ]
    }

    /// The mean reward, and the number of completions without one, by cause.
    pub(crate) fn rewards(&self) -> Figures {
        let without = self.abstained + self.failed + self.timed_out;
        vec![
            ("reward".into(), (self.rewarded > 0).then(|| self.reward / self.rewarded as f64)),
            ("completions_without_reward".into(), Some(without as f64)),
            ("completions_abstained".into(), Some(self.abstained as f64)),
            ("completions_failed".into(), Some(self.failed as f64)),
            ("completions_timed_out".into(), Some(self.timed_out as f64)),
        ]
    }
}
