//! An accuracy over several random seeds, with an interval that covers all seeds and all cases.
//!
//! Two things vary: the seed, and the cases on which the run with that seed (the draw) was measured. Draws may have
//! been measured on the same cases, on different ones, or on partly the same. So cases are matched by their ids.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Interval, wilson_of};

/// The mean score over seeds and cases, with a 95% interval that counts the variation of both.
///
/// It is the widest of three intervals:
/// * Student's over the draws. Each draw is one observation, in which seed and cases vary together.
/// * Student's with the variance of shared cases added. More seeds do not average that variance away. The degrees of
///   freedom are Satterthwaite's.
/// * Wilson's over the cases, which ignores seeds. If draws agree by chance, the other two have no width.
///
/// With two or three draws Student's interval is several times as wide as a normal one, because so few draws say little
/// about the variance. In simulations (the tests) 93 to 99 of 100 intervals hold the true mean.
///
/// # Shapes and units
/// * `draws`: for each seed `[n]` cases' ids and scores, in `[0, 1]`; each score counts the same.
/// * returns shares in `[0, 1]`.
///
/// # Panics
/// For fewer than two draws, or no score: nothing is known of other seeds.
///
/// # Source
/// Cameron, Gelbach and Miller 2011, Journal of Business & Economic Statistics 29:238 (the variance of a mean with
/// clusters in two dimensions: the sum over either dimension, minus that over both). Satterthwaite 1946, Biometrics
/// Bulletin 2:110.
pub fn over_seeds<Id: Ord>(draws: &[Vec<(Id, f64)>]) -> Interval {
    let scores = || draws.iter().flatten().map(|(_, score)| *score);
    let n = scores().count() as f64;
    assert!(draws.len() > 1 && n > 0.0, "{} draws, {n} scores: nothing to pool", draws.len());
    let mean = scores().sum::<f64>() / n;
    let mut of_cases: BTreeMap<&Id, f64> = BTreeMap::new();
    draws.iter().flatten().for_each(|(id, score)| *of_cases.entry(id).or_default() += score - mean);
    let variance = |sums: &mut dyn Iterator<Item = f64>| sums.map(|sum| sum * sum).sum::<f64>() / (n * n);
    let by_seed = variance(&mut draws.iter().map(|draw| draw.iter().map(|(_, score)| score - mean).sum()));
    let by_case = variance(&mut of_cases.values().copied());
    let by_both = variance(&mut scores().map(|score| score - mean));
    let (seeds, cases) = (draws.len() as f64, of_cases.len() as f64);

    // The correction for the number of seeds matters because seeds are few. Cases are many and need none.
    let of_seeds = by_seed * seeds / (seeds - 1.0);
    let of_shared_cases = (by_case - by_both).max(0.0);
    let seeds = (of_seeds, seeds - 1.0);
    let half = student(&[seeds]).max(student(&[seeds, (of_shared_cases, cases - 1.0)]));
    // The effective number of independent cases. Scores that never vary do not show it; then each case counts once.
    let of_cases_alone = by_case.max(by_both);
    let worth = if of_cases_alone > 0.0 { (mean * (1.0 - mean) / of_cases_alone).min(n) } else { cases };
    let over_cases = wilson_of(mean, worth);
    Interval {
        value: mean,
        low: (mean - half).max(0.0).min(over_cases.low),
        high: (mean + half).min(1.0).max(over_cases.high),
    }
}

/// Half the width of Student's 95% interval. The estimate's variance is a sum of parts, each with its degrees of
/// freedom.
fn student(parts: &[(f64, f64)]) -> f64 {
    let variance: f64 = parts.iter().map(|(part, _)| part).sum();
    if variance == 0.0 {
        return 0.0;
    }
    let parts = parts.iter().filter(|(part, _)| *part > 0.0);
    let freedom = variance * variance / parts.map(|(part, freedom)| part * part / freedom).sum::<f64>();
    let quantile = StudentsT::new(0.0, 1.0, freedom).expect("positive degrees of freedom").inverse_cdf(0.975);
    quantile * variance.sqrt()
}

#[cfg(test)]
mod tests {
    use kernels::rng::Key;

    use super::super::wilson;
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    fn draw(seed: usize, right: usize, cases: usize) -> Vec<((usize, usize), f64)> {
        (0..cases).map(|case| ((seed, case), f64::from(u8::from(case < right)))).collect()
    }

    #[test]
    fn draws_on_different_cases_give_student_s_interval_of_their_means() {
        // Means 0.4, 0.5 and 0.6: standard deviation 0.1, and t is 4.302653 at two degrees of freedom.
        let found = over_seeds(&[draw(1, 400, 1000), draw(2, 500, 1000), draw(3, 600, 1000)]);
        close(found.value, 0.5);
        close(found.high - 0.5, 4.302_652_73 * 0.1 / 3f64.sqrt());
        close(found.value - found.low, found.high - found.value);
        // Shares end at 0 and 1.
        let wide = over_seeds(&[draw(1, 0, 10), draw(2, 10, 10)]);
        assert_eq!((wide.low, wide.high), (0.0, 1.0));
    }

    #[test]
    fn draws_that_agree_keep_the_error_of_their_cases() {
        // Different cases are so many independent ones; the same cases are no more for being answered twice.
        for right in [0, 30, 100] {
            let (apart, twice) = (over_seeds(&[draw(1, right, 100), draw(2, right, 100)]), wilson(2 * right, 200));
            close(apart.low, twice.low);
            close(apart.high, twice.high);
            let shared = over_seeds(&[draw(1, right, 100), draw(1, right, 100), draw(1, right, 100)]);
            let once = wilson(right, 100);
            close(shared.low, once.low);
            close(shared.high, once.high);
        }
    }

    /// How often the interval holds the mean of all seeds and cases, where seeds and cases shift the chance of a right answer.
    fn coverage(seeds: usize, spread: [f64; 2], shared: bool) -> f64 {
        let uniform = |key: Key| key.bits(0) as f64 / u64::MAX as f64;
        // Close to normal, with a standard deviation of `by`.
        let shift = |key: Key, by: f64| by * ((0..12).map(|at| uniform(key.number(at))).sum::<f64>() - 6.0);
        let holds = |trial: u64| {
            let key = Key::new(trial);
            let draw = |seed: u64| {
                let of_seed = shift(key.word("seed").number(seed), spread[0]);
                let score = |case: u64| {
                    let id = if shared { case } else { seed << 32 | case };
                    let chance = 0.5 + of_seed + shift(key.word("case").number(id), spread[1]);
                    (id, f64::from(u8::from(uniform(key.word("answer").number(seed).number(id)) < chance)))
                };
                (0..60).map(score).collect::<Vec<_>>()
            };
            let found = over_seeds(&(0..seeds as u64).map(draw).collect::<Vec<_>>());
            found.low <= 0.5 && 0.5 <= found.high
        };
        (0..2000).filter(|&trial| holds(trial)).count() as f64 / 2000.0
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_truth() {
        for seeds in [3, 10] {
            for spread in [[0.0, 0.0], [0.0, 0.3], [0.2, 0.5], [0.2, 0.1]] {
                for shared in [false, true] {
                    let found = coverage(seeds, spread, shared);
                    assert!(found > 0.92, "{seeds} seeds, {spread:?}, shared {shared}: {found}");
                }
            }
        }
    }
}
