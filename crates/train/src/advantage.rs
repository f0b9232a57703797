//! Advantages: how much better the reward of each completion is than those of its group, the completions of one prompt.
//!
//! The functions here are pure, over `f64`; they know no tokens, losses or models. A completion without a reward (a rule
//! abstained or failed) is absent from its group, never zero. Groups whose rewards are all equal teach nothing; their advantages are
//! zero, and the caller counts them with [`Census`].
//!
//! It departs from the papers in one place: the constant that is added to the standard deviation is 1e-4, as in TRL, so that
//! groups with nearly equal rewards do not get huge advantages.
//!
//! Read next: [`tasks::rewards`], where rewards come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tally::Figures;

/// Added to a standard deviation before dividing by it, in units of reward.
const STD_FLOOR: f64 = 1e-4;

/// The baseline that an advantage is relative to, and its unit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    #[default]
    /// GRPO: the reward minus the group's mean, divided by the group's standard deviation.
    GroupStd,
    /// Dr. GRPO: the reward minus the group's mean.
    GroupMean,
    /// RLOO: the reward minus the mean of the other rewards of the group.
    LeaveOneOut,
}

/// Why a group has no advantages.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Fewer than two rewards.
    #[error("a group has {found} reward(s), and an advantage is relative to others")]
    TooSmall {
        /// The number of rewards.
        found: usize,
    },
    /// A reward that is infinite or not a number.
    #[error("reward {index} of a group is {value}")]
    NotFinite {
        /// Its index in the group.
        index: usize,
        /// Its value.
        value: f64,
    },
}

/// Group-relative advantages: each reward minus its group's mean, divided by its group's standard deviation.
///
/// # Shapes and units
/// * `rewards`: `[G]`, one per completion of a single prompt; dimensionless. Abstentions are absent, not zero.
/// * returns `[G]`, dimensionless; all zero when every reward is equal (max = min), and the caller counts that group.
///
/// # Errors
/// [`GroupError::TooSmall`] for fewer than two rewards: there is no group to be relative to.
/// [`GroupError::NotFinite`] for a reward that is infinite or not a number.
///
/// # Source
/// Shao et al. 2024, arXiv 2402.03300, section 4.1.2. The standard deviation divides by G − 1, and 1e-4 is added to it.
/// Without the division it is Dr. GRPO (Liu et al. 2025, arXiv 2503.20783): [`group_mean`].
pub fn group_std(rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
    let centred = group_mean(rewards)?;
    if !is_informative(rewards) {
        return Ok(centred);
    }
    let unit = sample_std(rewards) + STD_FLOOR;
    Ok(centred.into_iter().map(|advantage| advantage / unit).collect())
}

/// Dr. GRPO's advantages: each reward minus its group's mean.
///
/// # Shapes and units
/// * `rewards`: `[G]`, one per completion of a single prompt; in units of reward. Abstentions are absent, not zero.
/// * returns `[G]`, in units of reward; exactly zero when every reward is equal.
///
/// # Errors
/// As [`group_std`].
///
/// # Source
/// Liu et al. 2025, arXiv 2503.20783: dividing by the standard deviation favours prompts that are nearly solved or
/// nearly hopeless.
pub fn group_mean(rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
    check(rewards)?;
    if !is_informative(rewards) {
        // Rounding can make the mean of equal numbers differ from them.
        return Ok(vec![0.0; rewards.len()]);
    }
    let mean = mean(rewards);
    Ok(rewards.iter().map(|reward| reward - mean).collect())
}

/// RLOO's advantages: each reward minus the mean of the other completions' rewards, which is an unbiased baseline.
///
/// # Shapes and units
/// * `rewards`: `[G]`, one per completion of a single prompt; in units of reward. Abstentions are absent, not zero.
/// * returns `[G]`, in units of reward; G / (G − 1) times [`group_mean`]'s.
///
/// # Errors
/// As [`group_std`].
///
/// # Source
/// Ahmadian et al. 2024, arXiv 2402.14740.
pub fn leave_one_out(rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
    let others = rewards.len() as f64 - 1.0;
    Ok(group_mean(rewards)?.into_iter().map(|advantage| advantage * (others + 1.0) / others).collect())
}

/// Advantages of a group in which some completions have no reward.
///
/// # Shapes and units
/// * `rewards`: `[G]`; `None` for a completion without a reward.
/// * returns `[G]`; `None` at the same indices. The other advantages are relative to the completions with a reward.
///
/// # Errors
/// As [`group_std`], counting the rewards that exist.
pub fn of_group(rewards: &[Option<f64>], estimator: Estimator) -> Result<Vec<Option<f64>>, GroupError> {
    let present: Vec<f64> = rewards.iter().flatten().copied().collect();
    let mut advantages = match estimator {
        Estimator::GroupStd => group_std(&present)?,
        Estimator::GroupMean => group_mean(&present)?,
        Estimator::LeaveOneOut => leave_one_out(&present)?,
    }
    .into_iter();
    Ok(rewards.iter().map(|reward| reward.and_then(|_| advantages.next())).collect())
}

/// Whether a group can teach anything: it has at least two rewards, and they are not all equal.
pub fn is_informative(rewards: &[f64]) -> bool {
    rewards.iter().any(|reward| *reward != rewards[0])
}

/// Counts groups by their rewards. Dynamic sampling draws further prompts until enough groups are informative.
///
/// # Source
/// Yu et al. 2025 (dynamic sampling in DAPO), arXiv 2503.14476, equation 11.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Groups with rewards that differ.
    pub informative: usize,
    /// Groups whose rewards are all equal and below the best possible.
    pub all_equal: usize,
    /// Groups whose every reward is 1, the best possible: solved.
    pub all_best: usize,
    /// Groups with fewer than two rewards.
    pub too_small: usize,
}

impl Census {
    /// Counts a group and returns whether it is informative. Other groups are not trained on.
    pub fn count(&mut self, rewards: &[Option<f64>]) -> bool {
        let present: Vec<f64> = rewards.iter().flatten().copied().collect();
        let informative = present.len() >= 2 && is_informative(&present);
        match () {
            () if informative => self.informative += 1,
            () if present.len() < 2 => self.too_small += 1,
            () if present[0] >= 1.0 => self.all_best += 1,
            () => self.all_equal += 1,
        }
        informative
    }

    /// The counts under their names in the metrics.
    pub fn figures(&self) -> Figures {
        let Census { informative, all_equal, all_best, too_small } = *self;
        let named = [
            ("groups", informative + all_equal + all_best + too_small),
            ("groups_all_equal", all_equal),
            ("groups_all_best", all_best),
            ("groups_too_small", too_small),
        ];
        named.map(|(name, count)| (name.to_string(), Some(count as f64))).into()
    }
}

/// DAPO's soft overlong punishment, to be added to the reward.
///
/// # Shapes and units
/// * `length_tokens`: the completion's length; `max_tokens`: where sampling stops; `margin_tokens`: the number of tokens before
///   `max_tokens` over which the penalty grows.
/// * returns 0 without a margin. Otherwise it is 0 up to `max − margin` tokens, falls linearly to −1 at `max`, and stays there; in units
///   of reward.
///
/// # Panics
/// When `margin_tokens` is greater than `max_tokens`.
///
/// # Source
/// Yu et al. 2025, arXiv 2503.14476, equation 13.
pub fn overlong_penalty(length_tokens: usize, max_tokens: usize, margin_tokens: usize) -> f64 {
    assert!(margin_tokens <= max_tokens, "overlong margin {margin_tokens} exceeds the limit {max_tokens}");
    let start = max_tokens - margin_tokens;
    match length_tokens {
        _ if margin_tokens == 0 => 0.0,
        length if length <= start => 0.0,
        length if length >= max_tokens => -1.0,
        length => -((length - start) as f64) / margin_tokens as f64,
    }
}

fn check(rewards: &[f64]) -> Result<(), GroupError> {
    if rewards.len() < 2 {
        return Err(GroupError::TooSmall { found: rewards.len() });
    }
    match rewards.iter().position(|reward| !reward.is_finite()) {
        Some(index) => Err(GroupError::NotFinite { index, value: rewards[index] }),
        None => Ok(()),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn sample_std(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn advantages_are_trl_s() {
        #[derive(Deserialize)]
        struct Golden {
            rewards: Vec<Vec<Option<f64>>>,
            cases: Vec<GoldenCase>,
        }
        #[derive(Deserialize)]
        struct GoldenCase {
            name: String,
            advantages: Vec<Vec<f64>>,
        }
        let golden: Golden = serde_json::from_str(include_str!("../tests/golden/advantages.json")).unwrap();
        let mut checked = 0;
        for case in &golden.cases {
            let estimator = match case.name.as_str() {
                "grpo" => Estimator::GroupStd,
                "dr_grpo" => Estimator::GroupMean,
                "rloo" => Estimator::LeaveOneOut,
                _ => continue,
            };
            for (rewards, expected) in golden.rewards.iter().zip(&case.advantages) {
                let found = of_group(rewards, estimator).unwrap();
                assert!(found.iter().zip(rewards).all(|(a, r)| a.is_some() == r.is_some()));
                // TRL writes 0 for a missing reward.
                close(&found.into_iter().map(|a| a.unwrap_or(0.0)).collect::<Vec<_>>(), expected);
                checked += 1;
            }
        }
        assert_eq!(checked, 12, "the golden file lost a case");
    }

    #[test]
    fn equal_rewards_give_exact_zeros() {
        // Three times 0.1 adds up to more than 0.3, so the mean is not 0.1.
        for estimate in [group_std, group_mean, leave_one_out] {
            assert_eq!(estimate(&[0.1, 0.1, 0.1]).unwrap(), [0.0; 3]);
        }
    }

    #[test]
    fn a_group_of_one_and_a_reward_that_is_no_number_are_refused() {
        assert_eq!(group_std(&[1.0]), Err(GroupError::TooSmall { found: 1 }));
        assert_eq!(of_group(&[Some(1.0), None], Estimator::GroupMean), Err(GroupError::TooSmall { found: 1 }));
        assert!(matches!(group_mean(&[0.0, f64::NAN]), Err(GroupError::NotFinite { index: 1, .. })));
    }

    #[test]
    fn groups_are_counted_by_what_they_teach() {
        let mut census = Census::default();
        assert!(census.count(&[Some(0.0), Some(1.0)]));
        assert!(!census.count(&[Some(0.0), Some(0.0)]));
        assert!(!census.count(&[Some(1.0), None, Some(1.0)]));
        assert!(!census.count(&[None, Some(1.0)]));
        assert_eq!(census, Census { informative: 1, all_equal: 1, all_best: 1, too_small: 1 });
        let named: Vec<f64> = census.figures().into_iter().filter_map(|(_, count)| count).collect();
        assert_eq!(named, [4.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_overlong_penalty_is_linear_over_the_margin() {
        assert_eq!(overlong_penalty(80, 100, 20), 0.0);
        assert_eq!(overlong_penalty(85, 100, 20), -0.25);
        assert_eq!(overlong_penalty(100, 100, 20), -1.0);
        assert_eq!(overlong_penalty(101, 100, 20), -1.0);
        assert_eq!(overlong_penalty(101, 100, 0), 0.0, "no margin, no penalty");
        assert_eq!(overlong_penalty(99, 100, 0), 0.0);
    }
}
