//! The gate: decides whether a candidate is better than the model in service, on items that both answered.
//!
//! Two conditions must hold, each at the significance level of this look: the lower end of the paired bootstrap
//! interval is above zero, and McNemar's exact test rejects that gains and losses are equally likely. The bootstrap
//! alone is too generous if few items differ.
//!
//! Every turn looks at the gate once more, and each look could promote by chance. So the level of 2.5 % is divided by
//! the number of planned looks (Bonferroni). When they are used up, nothing is promoted until more are planned.
//!
//! Sources: Efron and Tibshirani 1993, chapter 13; McNemar 1947, Psychometrika 12:153 (exact form: the binomial
//! distribution of the discordant pairs).

use kernels::rng::Key;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

use crate::stats::paired_bootstrap_at;

/// The chance of promoting a candidate that is no better, over all planned looks together.
pub const LEVEL: f64 = 0.025;
/// The power: the chance of finding the smallest detectable difference.
const POWER: f64 = 0.8;
/// Bootstrap resamples. There must be many, since one look may use a tail of a thousandth of them.
const RESAMPLES: usize = 20_000;
/// The assumed share of items on which two models differ, until a turn has measured it.
pub const DISCORDANT: f64 = 0.3;

/// Which look this is, and how many are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks {
    /// 1 for the first turn.
    pub look: u64,
    /// Looks that are planned in all.
    pub planned: u64,
}

impl Looks {
    fn level(self) -> f64 {
        LEVEL / self.planned.max(1) as f64
    }
}

/// The differences that a gate can detect, before anything is trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reach {
    /// Items of the gate that have a right answer.
    pub items: usize,
    /// The smallest difference in accuracy that is found with a chance of 80 %; none if no possible difference is.
    pub smallest_difference: Option<f64>,
    /// Items that are needed to find half of that difference, or a difference of 10 points if there is none.
    pub items_for_half: usize,
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Items that both answered.
    pub items: usize,
    /// Share that the model in service got right.
    pub incumbent_accuracy: f64,
    /// Share that the candidate got right.
    pub candidate_accuracy: f64,
    /// The candidate's accuracy minus the incumbent's.
    pub difference: f64,
    /// The lower end of its interval, at this look's level.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The interval's confidence, such as 0.99.
    pub confidence: f64,
    /// The p-value of McNemar's exact test: the chance of at least this many gains among the discordant items if gains
    /// and losses were equally likely.
    pub p_value: f64,
    /// Which look this was.
    #[serde(flatten)]
    pub looks: Looks,
    /// Whether the candidate is promoted.
    pub promoted: bool,
    /// Why, in a sentence.
    pub reason: String,
}

/// The differences that a gate of `items` can detect, if two models differ on a share `discordant` of the items.
pub fn reach(items: usize, discordant: f64, looks: Looks) -> Reach {
    let normal = Normal::standard();
    let z = normal.inverse_cdf(1.0 - looks.level()) + normal.inverse_cdf(POWER);
    let difference = |items: f64| z * (discordant / items).sqrt();
    let smallest = (items > 0).then(|| difference(items as f64)).filter(|&difference| difference <= discordant);
    let wanted = smallest.map_or(0.1, |smallest| smallest / 2.0);
    Reach { items, smallest_difference: smallest, items_for_half: (discordant * (z / wanted).powi(2)).ceil() as usize }
}

/// McNemar's exact test. Returns the chance of at least this many gains among the discordant items if gains and losses
/// were equally likely.
fn exact_test(pairs: &[(f64, f64)]) -> f64 {
    let count = |of: fn(&&(f64, f64)) -> bool| pairs.iter().filter(of).count() as u64;
    let (gains, losses) = (count(|(before, after)| after > before), count(|(before, after)| after < before));
    match gains {
        0 => 1.0,
        gains => Binomial::new(0.5, gains + losses).map_or(1.0, |chance| chance.sf(gains - 1)),
    }
}

/// Whether [`compare`] promotes, without the figures.
pub fn promotes(pairs: &[(f64, f64)], looks: Looks, key: Key) -> bool {
    // The bootstrap is slow, and it is needed only if the test rejects.
    exact_test(pairs) <= looks.level() && compare(pairs, looks, key).promoted
}

/// Compares two models on the same items.
///
/// * `pairs`: for each item, whether the incumbent and whether the candidate was right (1 or 0).
///
/// # Panics
/// Without an item.
pub fn compare(pairs: &[(f64, f64)], looks: Looks, key: Key) -> Comparison {
    let level = looks.level();
    let interval = paired_bootstrap_at(&[pairs.to_vec()], RESAMPLES, level, key);
    let p_value = exact_test(pairs);
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let spent = looks.look > looks.planned;
    let promoted = !spent && interval.low > 0.0 && p_value <= level;
    let points = |share: f64| format!("{:+.1} points", 100.0 * share);
    let reason = if spent {
        format!("all {} planned looks at the gate are spent: raise planned_looks, and collect new items", looks.planned)
    } else if promoted {
        format!("better by {}, at least {}", points(interval.value), points(interval.low))
    } else if interval.high < 0.0 {
        format!("worse by {}", points(-interval.value))
    } else {
        format!("the difference of {} is within the noise of {} items", points(interval.value), pairs.len())
    };
    Comparison {
        items: pairs.len(),
        incumbent_accuracy: mean(|pair| pair.0),
        candidate_accuracy: mean(|pair| pair.1),
        difference: interval.value,
        low: interval.low,
        high: interval.high,
        confidence: 1.0 - 2.0 * level,
        p_value,
        looks,
        promoted,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(gains: usize, losses: usize, same: usize) -> Vec<(f64, f64)> {
        let list = [((0.0, 1.0), gains), ((1.0, 0.0), losses), ((1.0, 1.0), same)];
        list.into_iter().flat_map(|(pair, n)| std::iter::repeat_n(pair, n)).collect()
    }

    const ONE: Looks = Looks { look: 1, planned: 1 };

    #[test]
    fn a_clear_gain_is_promoted_and_a_doubtful_one_is_not() {
        let key = Key::new(1);
        let clear = compare(&pairs(20, 3, 77), ONE, key);
        assert!(clear.promoted && (clear.difference - 0.17).abs() < 1e-12, "{clear:?}");
        // 6 gains and no loss: 1 / 2^6 is below 2.5 %. 5 are not enough, whatever the bootstrap says.
        let six = compare(&pairs(6, 0, 94), ONE, key);
        assert!((six.p_value - 1.0 / 64.0).abs() < 1e-12 && six.promoted, "{six:?}");
        let five = compare(&pairs(5, 0, 95), ONE, key);
        assert!(five.low >= 0.0 && !five.promoted, "{five:?}");
        let worse = compare(&pairs(3, 20, 77), ONE, key);
        assert!(!worse.promoted && worse.reason.contains("worse"), "{worse:?}");
        assert!(compare(&pairs(0, 0, 5), ONE, key).reason.contains("noise"));
    }

    #[test]
    fn looks_are_paid_for() {
        let key = Key::new(1);
        let pairs = pairs(14, 4, 82);
        assert!(compare(&pairs, ONE, key).promoted);
        assert!(!compare(&pairs, Looks { look: 1, planned: 10 }, key).promoted);
        let spent = compare(&pairs, Looks { look: 2, planned: 1 }, key);
        assert!(!spent.promoted && spent.reason.contains("spent"));
    }

    #[test]
    fn without_a_true_gain_few_turns_are_promoted() {
        // 2000 turns whose two models are equally good: resampled from the same chances of gain and loss.
        let promoted = |items: usize, differ: f64| {
            let mut draws = Key::new(7).number(items as u64).stream();
            let turns = 2000;
            let lucky = (0..turns)
                .filter(|_| {
                    let pairs: Vec<(f64, f64)> = (0..items)
                        .map(|_| match draws.unit() {
                            u if u < differ / 2.0 => (0.0, 1.0),
                            u if u < differ => (1.0, 0.0),
                            _ => (1.0, 1.0),
                        })
                        .collect();
                    promotes(&pairs, ONE, Key::new(1))
                })
                .count();
            lucky as f64 / turns as f64
        };
        for (items, differ) in [(20, 0.1), (50, 0.3), (200, 0.3), (400, 0.05)] {
            let share = promoted(items, differ);
            assert!(share <= 0.025 + 0.007, "{items} items, {differ}: {share}");
        }
    }

    #[test]
    fn the_reach_of_a_gate_is_what_a_simulation_finds() {
        let looks = ONE;
        let reach = reach(300, 0.3, looks);
        let difference = reach.smallest_difference.unwrap();
        assert!((reach.items_for_half as f64 / 1200.0 - 1.0).abs() < 0.01, "{reach:?}");
        let mut draws = Key::new(3).stream();
        let found = (0..200)
            .filter(|_| {
                let gain = (0.3 + difference) / 2.0;
                let pairs: Vec<(f64, f64)> = (0..300)
                    .map(|_| match draws.unit() {
                        u if u < gain => (0.0, 1.0),
                        u if u < 0.3 => (1.0, 0.0),
                        _ => (1.0, 1.0),
                    })
                    .collect();
                compare(&pairs, looks, Key::new(1)).promoted
            })
            .count();
        assert!((140..185).contains(&found), "a power of 80 %, not {found} of 200");
        assert_eq!(super::reach(0, 0.3, looks).smallest_difference, None);
    }
}
