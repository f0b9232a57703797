//! The difference between a row of the ladder and the previous row of the same model, case by case.
//!
//! Both rows answered the same held-out cases. So the difference is taken for each case, and its interval is a
//! bootstrap over cases. It is narrower than the intervals of the two rows suggest. A difference whose interval holds
//! zero is called within the noise.

use kernels::rng::Key;
use serde::Serialize;
use serde_json::{Map, Value};
use store::StageRow;
use train::stats::{Interval, paired_bootstrap};

/// Bootstrap resamples for every interval.
pub const RESAMPLES: usize = 10_000;

/// The difference between two rows, as shares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The stage of the previous row.
    pub from: String,
    /// The mean difference.
    pub value: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Whether the interval holds zero.
    pub within_noise: bool,
}

/// The difference between the row at `index` and the last row of the same model that answered the same cases; none
/// without such a row.
pub fn difference(rows: &[StageRow], index: usize) -> Option<Difference> {
    let row = &rows[index];
    row.accuracy?;
    let mut of_model = rows[..index].iter().rev().filter(|before| before.model == row.model);
    let (before, pairs) = of_model.find_map(|before| Some((before, pairs(&before.extra, &row.extra)?)))?;
    let interval = paired_bootstrap(&[pairs], RESAMPLES, key());
    let Interval { value, low, high } = interval;
    Some(Difference { from: before.stage.clone(), value, low, high, within_noise: interval.holds_zero() })
}

/// Each case's score in the two rows: 1 for right, 0 for wrong. None if the numbers of cases differ or are 0.
pub fn pairs(first: &Map<String, Value>, second: &Map<String, Value>) -> Option<Vec<(f64, f64)>> {
    let (first, second) = (correct(first), correct(second));
    (first.len() == second.len() && !first.is_empty()).then(|| first.into_iter().zip(second).collect())
}

/// Each case's headline score in a row; empty if the row stores none.
pub fn correct(extra: &Map<String, Value>) -> Vec<f64> {
    let kept = extra.get("correct").and_then(Value::as_str).unwrap_or("");
    kept.chars().map(|c| if c == '1' { 1.0 } else { 0.0 }).collect()
}

/// The key of every bootstrap, so that the same run always gives the same report.
pub fn key() -> Key {
    Key::new(0).word("compare")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stage: &str, model: &str, correct: &str) -> StageRow {
        let right = correct.matches('1').count() as f64;
        let mut row = StageRow { stage: stage.into(), model: model.into(), ..StageRow::default() };
        row.accuracy = Some(right / correct.len() as f64);
        row.extra.insert("correct".into(), correct.into());
        row
    }

    #[test]
    fn a_row_is_compared_with_the_last_of_its_model_case_by_case() {
        let rows = [
            row("sft", "teacher", &"01".repeat(50)),
            StageRow { stage: "sample".into(), model: "teacher".into(), ..StageRow::default() },
            row("distill", "student", &"1".repeat(100)),
            // This row is skipped: it was measured with several samples or on other cases.
            StageRow { stage: "eval".into(), model: "teacher".into(), accuracy: Some(0.4), ..StageRow::default() },
            row("more", "teacher", &"1".repeat(200)),
            // The same half is right, and four more cases: few, but no case is lost.
            row("grpo", "teacher", &("01".repeat(46) + "11111111")),
            row("again", "teacher", &("10".repeat(2) + &"01".repeat(44) + "11111111")),
        ];
        let grpo = difference(&rows, 5).expect("there is one before");
        assert_eq!((grpo.from.as_str(), grpo.value, grpo.within_noise), ("sft", 0.04, false));
        assert!(difference(&rows, 6).expect("there is one before").within_noise, "two gained and two lost");
        assert!((0..5).all(|index| difference(&rows, index).is_none()));
    }
}
