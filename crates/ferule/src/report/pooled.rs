//! One recipe run with several seeds: one row per stage, with each seed's accuracy and the pooled accuracy.
//!
//! The interval of the pooled accuracy counts the variation of seeds and of cases; see [`over_seeds`] for its source. A
//! case that several draws answered is recognised by its id. A row with several samples per case stores no score for
//! single cases. Its cases count as different ones, each with the row's accuracy as its score.

use serde::Serialize;
use serde_json::{Map, Value};
use store::{BaselineRow, RunView, StageRow};
use tasks::withheld::Withheld;
use tasks::{Split, Task};
use train::stats::over_seeds;

use super::paired;

/// One run of the recipe.
pub struct Draw {
    /// Its seed.
    pub seed: u64,
    /// Its ladder.
    pub baselines: Vec<BaselineRow>,
    pub stages: Vec<StageRow>,
    /// Ids of the held-out cases, in the order in which every row answered them.
    pub cases: Vec<String>,
}

/// A row of the ladder over all draws; shares, not percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The stage's name, or the baseline's.
    pub stage: String,
    /// The model; none for baselines.
    pub model: Option<String>,
    /// Each draw's accuracy, in the order of the seeds; none for a draw that has not reached the stage.
    pub accuracies: Vec<Option<f64>>,
    /// The number of cases behind all of them.
    pub n: u64,
    /// The mean over draws and cases, and its 95% interval; none for fewer than two draws.
    pub accuracy: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// The difference between the best and the worst draw; none for fewer than two.
    pub spread: Option<f64>,
}

impl Draw {
    /// Reads a run.
    ///
    /// # Errors
    /// The errors of reading the run; a task that can no longer give the cases on which the run was measured.
    pub fn read(view: &RunView, seed: u64, task: &dyn Task) -> anyhow::Result<Self> {
        let (baselines, stages) = (view.ledger().baselines()?, view.ledger().stages()?);
        let extras = baselines.iter().map(|row| &row.extra).chain(stages.iter().map(|row| &row.extra));
        let longest = extras.map(|extra| paired::correct(extra).len()).max().unwrap_or(0);
        let task = Withheld::new(task, view.ledger().withdrawn()?.into_iter().collect(), Default::default());
        let cases = task.cases(Split::Heldout, longest, seed)?;
        anyhow::ensure!(cases.len() == longest, "the task has fewer held-out cases than run {} answered", view.name());
        let cases = cases.into_iter().map(|case| case.id).collect();
        Ok(Draw { seed, baselines, stages, cases })
    }

    fn baseline(&self, name: &str) -> Option<Measured<'_>> {
        let row = self.baselines.iter().find(|row| row.name == name)?;
        Some(Measured { accuracy: row.accuracy, n: row.n, extra: &row.extra })
    }

    fn stage(&self, name: &str) -> Option<Measured<'_>> {
        let row = self.stages.iter().find(|row| row.stage == name)?;
        Some(Measured { accuracy: row.accuracy?, n: row.n, extra: &row.extra })
    }

    /// Every case with its score.
    fn scores(&self, measured: &Measured) -> Vec<(CaseOf<'_>, f64)> {
        let right = paired::correct(measured.extra);
        match right.is_empty() {
            true => (0..measured.n).map(|at| (CaseOf::Draw(self.seed, at), measured.accuracy)).collect(),
            false => self.cases.iter().map(|id| CaseOf::Task(id)).zip(right).collect(),
        }
    }
}

/// Which case a score belongs to.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum CaseOf<'a> {
    /// A case of the task, by its id.
    Task(&'a str),
    /// A case that is known in its own draw only, by the seed and its index.
    Draw(u64, u64),
}

struct Measured<'a> {
    accuracy: f64,
    n: u64,
    extra: &'a Map<String, Value>,
}

/// The rows of baselines, then those of the measured stages, in the order of the recipe.
pub fn rows(draws: &[Draw]) -> (Vec<Row>, Vec<Row>) {
    let baselines = names(draws, |draw| draw.baselines.iter().map(|row| row.name.as_str()).collect());
    let stages = names(draws, |draw| draw.stages.iter().map(|row| row.stage.as_str()).collect());
    let model = |name: &str| {
        let row = draws.iter().flat_map(|draw| &draw.stages).find(|row| row.stage == name);
        row.map(|row| row.model.clone())
    };
    let baselines = baselines.into_iter().map(|name| row(draws, name, None, Draw::baseline)).collect();
    let stages = stages.into_iter().map(|name| row(draws, name, model(name), Draw::stage));
    (baselines, stages.filter(|row| row.n > 0).collect())
}

/// Every name that a draw has, without repeats, in the first draw's order.
fn names<'a>(draws: &'a [Draw], of: impl Fn(&'a Draw) -> Vec<&'a str>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in draws.iter().flat_map(of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn row(
    draws: &[Draw],
    name: &str,
    model: Option<String>,
    of: impl for<'a> Fn(&'a Draw, &str) -> Option<Measured<'a>>,
) -> Row {
    let measured: Vec<Option<Measured>> = draws.iter().map(|draw| of(draw, name)).collect();
    let accuracies: Vec<Option<f64>> = measured.iter().map(|m| m.as_ref().map(|m| m.accuracy)).collect();
    let scores: Vec<_> = draws.iter().zip(&measured).filter_map(|(draw, m)| Some(draw.scores(m.as_ref()?))).collect();
    let pooled = (scores.len() > 1).then(|| over_seeds(&scores));
    let known = || accuracies.iter().flatten().copied();
    let spread = known().fold(f64::NEG_INFINITY, f64::max) - known().fold(f64::INFINITY, f64::min);
    Row {
        stage: name.to_string(),
        model,
        n: measured.iter().flatten().map(|m| m.n).sum(),
        accuracy: pooled.map(|interval| interval.value),
        low: pooled.map(|interval| interval.low),
        high: pooled.map(|interval| interval.high),
        spread: pooled.map(|_| spread),
        accuracies,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, correct: &str, cases: &[&str]) -> Draw {
        let right = correct.matches('1').count() as f64;
        let mut row = StageRow { stage: "sft".into(), model: "m".into(), ..StageRow::default() };
        (row.accuracy, row.n) = (Some(right / correct.len() as f64), correct.len() as u64);
        row.extra.insert("correct".into(), correct.into());
        let sample = StageRow { stage: "sample".into(), ..StageRow::default() };
        let votes = StageRow { stage: "eval".into(), accuracy: Some(0.1 * seed as f64), n: 20, ..StageRow::default() };
        Draw {
            seed,
            baselines: Vec::new(),
            stages: vec![row, sample, votes],
            cases: cases.iter().map(|id| id.to_string()).collect(),
        }
    }

    #[test]
    fn a_row_pools_its_draws_and_names_their_spread() {
        let cases = ["a", "b", "c", "d"];
        let draws = [draw(1, "1111", &cases), draw(2, "0011", &cases), draw(3, "1110", &["d", "c", "b", "a"])];
        let (_, rows) = rows(&draws);
        assert_eq!(
            rows.iter().map(|row| row.stage.as_str()).collect::<Vec<_>>(),
            ["sft", "eval"],
            "no accuracy, no row"
        );
        assert_eq!(rows[0].accuracies, [Some(1.0), Some(0.5), Some(0.75)]);
        assert_eq!((rows[0].accuracy, rows[0].spread, rows[0].n, rows[0].high), (Some(0.75), Some(0.5), 12, Some(1.0)));
        // The third draw answered in another order. Case "a" was right, wrong, wrong.
        let matched = [
            [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)],
            [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 1.0)],
            [("d", 1.0), ("c", 1.0), ("b", 1.0), ("a", 0.0)],
        ];
        assert_eq!(rows[0].low, Some(over_seeds(&matched.map(Vec::from)).low));
        // Several samples per case: Student's interval of 0.1, 0.2 and 0.3, cut off at 0.
        assert_eq!((rows[1].accuracy.map(|mean| (100.0 * mean).round()), rows[1].low), (Some(20.0), Some(0.0)));
        let wilson = train::stats::wilson(12, 60).high;
        assert!((rows[1].high.expect("pooled") - 0.448_413_7f64.max(wilson)).abs() < 1e-6, "{:?}", rows[1]);
    }

    #[test]
    fn one_draw_is_shown_and_not_pooled() {
        let (_, rows) = rows(&[draw(1, "10", &["a", "b"])]);
        assert_eq!((rows[0].accuracies.as_slice(), rows[0].accuracy, rows[0].spread), (&[Some(0.5)][..], None, None));
    }
}
