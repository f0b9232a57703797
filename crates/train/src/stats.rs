//! Statistics of evaluation: intervals, paired differences, pass@k, maj@k, calibration.
//!
//! Everything here is a pure function of its arguments. Resampling draws from a key, so the same key gives the same interval to the
//! last digit. This module draws no conclusions: its callers report "within the noise" when an interval holds zero.
//!
//! Read next: `stats/seeds.rs`, for accuracies over several random seeds.

mod seeds;

use kernels::rng::Key;
use serde::{Deserialize, Serialize};

pub use seeds::over_seeds;

/// The standard normal's 97.5th percentile. All intervals here are 95% intervals.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// An estimate with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether the interval holds zero, that is, whether a difference is within the noise.
    pub fn holds_zero(&self) -> bool {
        self.low <= 0.0 && 0.0 <= self.high
    }
}

/// Wilson's score interval of a share: `successes` of `n` independent trials.
///
/// # Shapes and units
/// * returns shares in `[0, 1]`; for `n` = 0 the value is 0 and the interval is 0 to 1, since nothing is known.
///
/// # Panics
/// When `successes` exceeds `n`.
///
/// # Source
/// Wilson 1927, Journal of the American Statistical Association 22:209.
pub fn wilson(successes: usize, n: usize) -> Interval {
    assert!(successes <= n, "{successes} successes of {n}");
    if n == 0 {
        return Interval { value: 0.0, low: 0.0, high: 1.0 };
    }
    wilson_of(successes as f64 / n as f64, n as f64)
}

/// As [`wilson`], for a share of `n` items. `n` may be the effective number of dependent items.
fn wilson_of(share: f64, n: f64) -> Interval {
    let z2 = Z_95 * Z_95;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    Interval { value: share, low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// The mean of `second − first` over paired items, with a percentile bootstrap interval.
///
/// # Shapes and units
/// * `strata`: one list of pairs (the same item's score under both models) per random seed; items are drawn within
///   their stratum, and every item counts the same.
/// * returns the pooled mean difference, in units of the scores.
///
/// # Panics
/// When there is no pair, or `resamples` is 0.
///
/// # Source
/// Efron and Tibshirani 1993, chapter 13 (percentile interval).
pub fn paired_bootstrap(strata: &[Vec<(f64, f64)>], resamples: usize, key: Key) -> Interval {
    paired_bootstrap_at(strata, resamples, 0.025, key)
}

/// As [`paired_bootstrap`], with an interval that leaves a share `tail` of the resamples out at each end.
pub fn paired_bootstrap_at(strata: &[Vec<(f64, f64)>], resamples: usize, tail: f64, key: Key) -> Interval {
    let items: usize = strata.iter().map(Vec::len).sum();
    assert!(items > 0 && resamples > 0, "{items} pairs, {resamples} resamples: nothing to draw from");
    let differences: Vec<Vec<f64>> = strata.iter().map(|pairs| pairs.iter().map(|(a, b)| b - a).collect()).collect();
    let value = differences.iter().flatten().sum::<f64>() / items as f64;
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|resample| {
            let mut draws = key.number(resample).stream();
            let sum: f64 = differences
                .iter()
                .flat_map(|stratum| std::iter::repeat_n(stratum, stratum.len()))
                .map(|stratum| stratum[draws.below(stratum.len() as u64) as usize])
                .sum();
            sum / items as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Interval { value, low: percentile(&means, tail), high: percentile(&means, 1.0 - tail) }
}

/// The mean of some cases' scores, with a percentile bootstrap interval over the cases.
///
/// # Shapes and units
/// * `values`: `[n]`, one a case; in units of the scores. With several samples per case, the mean of the case.
/// * returns the mean; without a case the value is 0 and the interval is 0 to 1, since nothing is known.
///
/// # Panics
/// When `resamples` is 0.
///
/// # Source
/// As [`paired_bootstrap`].
pub fn bootstrap_mean(values: &[f64], resamples: usize, key: Key) -> Interval {
    if values.is_empty() {
        return Interval { value: 0.0, low: 0.0, high: 1.0 };
    }
    let pairs: Vec<(f64, f64)> = values.iter().map(|&value| (0.0, value)).collect();
    paired_bootstrap(&[pairs], resamples, key)
}

/// The `share`-th percentile of sorted values, linear between neighbours.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// pass@k of one prompt: the chance that at least one of `k` completions is right, estimated without bias from `n`
/// completions of which `correct` were right: 1 − C(n − c, k) / C(n, k).
///
/// # Panics
/// When `k` is 0 or exceeds `n`, or `correct` exceeds `n`.
///
/// # Source
/// Chen et al. 2021, arXiv 2107.03374, equation 1.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> f64 {
    assert!(0 < k && k <= n && correct <= n, "pass@{k} from {correct} right of {n}");
    if n - correct < k {
        return 1.0;
    }
    1.0 - (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// maj@k of one prompt: whether the answer given most often among the completions is right.
///
/// # Shapes and units
/// * `votes`: `[k]`, each completion's canonical answer (`None`: no answer, no vote) and whether it is right.
/// * returns whether the winner is right. A tie goes to the answer that came first. Without any vote: false.
///
/// # Source
/// Wang et al. 2022 (self-consistency), arXiv 2203.11171.
pub fn majority_is_right(votes: &[(Option<&str>, bool)]) -> bool {
    let mut winner: Option<(usize, bool)> = None;
    for (place, (answer, right)) in votes.iter().enumerate() {
        let Some(answer) = answer else { continue };
        let same = |(other, _): &&(Option<&str>, bool)| *other == Some(*answer);
        if votes[..place].iter().any(|vote| same(&vote)) {
            continue;
        }
        let count = votes.iter().filter(same).count();
        if winner.is_none_or(|(most, _)| count > most) {
            winner = Some((count, *right));
        }
    }
    winner.is_some_and(|(_, right)| right)
}

/// The expected calibration error: how far stated confidence lies from accuracy, on average over `bins` equal bins of
/// confidence, each weighted by its items.
///
/// # Shapes and units
/// * `judged`: `[n]` pairs of confidence in `[0, 1]` and whether the answer was right.
/// * returns a share in `[0, 1]`; 0 for no items.
///
/// # Panics
/// When `bins` is 0.
///
/// # Source
/// Guo et al. 2017, arXiv 1706.04599, equation 3.
pub fn calibration_error(judged: &[(f64, bool)], bins: usize) -> f64 {
    assert!(bins > 0, "calibration in 0 bins");
    let mut gaps = vec![0.0; bins];
    for (confidence, right) in judged {
        let bin = ((confidence * bins as f64) as usize).min(bins - 1);
        gaps[bin] += f64::from(u8::from(*right)) - confidence;
    }
    gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / (judged.len().max(1)) as f64
}

/// One bin of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Mean confidence in the bin.
    pub confidence: f64,
    /// Share that was right.
    pub accuracy: f64,
    /// Items in it.
    pub n: u64,
}

/// The bins that [`calibration_error`] uses, least confident first. Bins without an item are left out.
///
/// # Panics
/// When `bins` is 0.
pub fn calibration_bins(judged: &[(f64, bool)], bins: usize) -> Vec<CalibrationBin> {
    assert!(bins > 0, "calibration in 0 bins");
    let mut sums = vec![(0.0, 0u64, 0u64); bins];
    for (confidence, right) in judged {
        let (sum, correct, n) = &mut sums[((confidence * bins as f64) as usize).min(bins - 1)];
        (*sum, *correct, *n) = (*sum + confidence, *correct + u64::from(*right), *n + 1);
    }
    let filled = sums.into_iter().filter(|(_, _, n)| *n > 0);
    filled
        .map(|(sum, correct, n)| CalibrationBin { confidence: sum / n as f64, accuracy: correct as f64 / n as f64, n })
        .collect()
}

/// The share of samples that gave the most frequent answer. It serves as the confidence of a majority vote. A sample
/// without an answer (`None`) counts in the total but is no vote.
///
/// # Shapes and units
/// * `votes`: `[k]`, each sample's canonical answer and whether it is right, as for [`majority_is_right`].
/// * returns a share in `[0, 1]`; 0 without any vote.
///
/// ```
/// use train::stats::vote_share;
/// assert_eq!(vote_share(&[(Some("a"), true), (Some("a"), true), (Some("b"), false), (None, false)]), 0.5);
/// ```
pub fn vote_share(votes: &[(Option<&str>, bool)]) -> f64 {
    let count = |answer: &str| votes.iter().filter(|(other, _)| *other == Some(answer)).count();
    let most = votes.iter().filter_map(|(answer, _)| answer.map(count)).max().unwrap_or(0);
    most as f64 / votes.len().max(1) as f64
}

/// Coverage at a chosen accuracy. Items are taken from the most confident down; the coverage is the largest share of items of which at
/// least `accuracy` are right, and the threshold is the confidence below which to abstain.
///
/// # Shapes and units
/// * `judged`: `[n]` pairs of confidence and whether the answer was right. Items of equal confidence are taken or left together.
/// * returns `(coverage in [0, 1], threshold)`; `None` when no share reaches the accuracy.
///
/// # Source
/// Geifman and El-Yaniv 2017 (risk and coverage of selective classification), arXiv 1705.08500.
pub fn coverage_at(judged: &[(f64, bool)], accuracy: f64) -> Option<(f64, f64)> {
    let mut sorted = judged.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut best) = (0usize, None);
    for (place, item) in sorted.iter().enumerate() {
        right += usize::from(item.1);
        let whole_tie = sorted.get(place + 1).is_none_or(|next| next.0 < item.0);
        if whole_tie && right as f64 >= accuracy * (place + 1) as f64 {
            best = Some(((place + 1) as f64 / sorted.len() as f64, item.0));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn wilson_s_interval_is_the_published_one() {
        // Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81/263, 15/148, 0/20, 1/29.
        for (successes, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = wilson(successes, n);
            close(found.low, low, 5e-5);
            close(found.high, high, 5e-5);
        }
        assert_eq!(wilson(0, 0).high, 1.0);
        close(wilson(20, 20).high, 1.0, 1e-12);
    }

    #[test]
    fn a_bootstrap_matches_the_normal_interval_of_a_large_sample() {
        // 400 pairs: second better in 120, worse in 60. Mean 0.15, standard error sqrt((0.45 − 0.15²) / 400).
        let pairs: Vec<(f64, f64)> = (0..400)
            .map(|i| match i % 20 {
                0..6 => (0.0, 1.0),
                6..9 => (1.0, 0.0),
                _ => (1.0, 1.0),
            })
            .collect();
        let found = paired_bootstrap(&[pairs[..200].to_vec(), pairs[200..].to_vec()], 4000, Key::new(3));
        let half = Z_95 * ((0.45f64 - 0.15 * 0.15) / 400.0).sqrt();
        close(found.value, 0.15, 1e-12);
        close(found.low, 0.15 - half, 0.006);
        close(found.high, 0.15 + half, 0.006);
        assert!(!found.holds_zero());
        assert_eq!(found, paired_bootstrap(&[pairs[..200].to_vec(), pairs[200..].to_vec()], 4000, Key::new(3)));
    }

    #[test]
    fn samples_of_one_case_are_not_independent() {
        // 50 cases always right, 50 always wrong, 8 samples each: the interval is that of 100 cases, not of 800 samples.
        let values: Vec<f64> = (0..100).map(|case| f64::from(case % 2)).collect();
        let found = bootstrap_mean(&values, 4000, Key::new(5));
        close(found.high - found.low, 2.0 * Z_95 * (0.25f64 / 100.0).sqrt(), 0.02);
        assert_eq!(bootstrap_mean(&[], 10, Key::new(5)).high, 1.0);
    }

    #[test]
    fn a_bootstrap_draws_within_strata() {
        // Each stratum is constant, so drawing within it leaves no spread at all.
        let found = paired_bootstrap(&[vec![(0.0, 1.0); 5], vec![(0.0, 0.0); 15]], 50, Key::new(1));
        assert_eq!(found, Interval { value: 0.25, low: 0.25, high: 0.25 });
    }

    #[test]
    fn pass_at_k_counts_combinations() {
        // n = 5, c = 2, k = 2: 1 − C(3,2)/C(5,2) = 1 − 3/10.
        close(pass_at_k(5, 2, 2), 0.7, 1e-12);
        close(pass_at_k(5, 2, 1), 0.4, 1e-12);
        assert_eq!(pass_at_k(5, 2, 4), 1.0);
        assert_eq!(pass_at_k(5, 0, 5), 0.0);
        // C(190,100)/C(200,100) = (100·99·…·91)/(200·199·…·191).
        let expected = 1.0 - (0..10).map(|i| (100 - i) as f64 / (200 - i) as f64).product::<f64>();
        close(pass_at_k(200, 10, 100), expected, 1e-12);
    }

    #[test]
    fn the_majority_decides_and_ties_go_to_the_first() {
        let a = (Some("a"), true);
        let b = (Some("b"), false);
        let none = (None, false);
        assert!(majority_is_right(&[b, a, a]));
        assert!(!majority_is_right(&[a, b, b]));
        assert!(majority_is_right(&[a, b]));
        assert!(!majority_is_right(&[b, a]));
        assert!(majority_is_right(&[none, none, a]));
        assert!(!majority_is_right(&[none, none]));
    }

    #[test]
    fn calibration_is_the_weighted_gap() {
        // Bin [0.5, 1]: 0.9, 0.9, 0.9, 0.7 with 3 right: |0.75 − 0.85| · 4; bin [0, 0.5): 0.2 with 1 right: 0.8 · 1.
        let judged = [(0.9, true), (0.9, true), (0.9, false), (0.7, true), (0.2, true)];
        close(calibration_error(&judged, 2), (0.4 + 0.8) / 5.0, 1e-12);
        // Ten bins separate 0.9 from 0.7: |2 − 2.7| + |1 − 0.7| + |1 − 0.2|.
        close(calibration_error(&judged, 10), (0.7 + 0.3 + 0.8) / 5.0, 1e-12);
        let bins = calibration_bins(&judged, 2);
        assert_eq!((bins.len(), bins[1].n, bins[1].accuracy), (2, 4, 0.75));
        close(bins[1].confidence, 0.85, 1e-12);
        let weighted = |bin: &CalibrationBin| bin.n as f64 * (bin.accuracy - bin.confidence).abs();
        close(bins.iter().map(weighted).sum::<f64>() / 5.0, calibration_error(&judged, 2), 1e-12);
        assert_eq!(calibration_error(&[], 10), 0.0);
        close(calibration_error(&[(1.0, true)], 10), 0.0, 1e-12);
    }

    #[test]
    fn coverage_keeps_the_most_confident() {
        let judged = [(0.9, true), (0.8, true), (0.7, false), (0.6, true), (0.1, false)];
        assert_eq!(coverage_at(&judged, 1.0), Some((0.4, 0.8)));
        assert_eq!(coverage_at(&judged, 0.75), Some((0.8, 0.6)));
        assert_eq!(coverage_at(&[(0.9, false)], 0.5), None);
        // Two items of equal confidence cannot be separated.
        assert_eq!(coverage_at(&[(0.9, true), (0.9, false)], 1.0), None);
    }
}
