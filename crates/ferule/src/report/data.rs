//! Gathers from a run what the page shows.
//!
//! The page has a section for the `calibration` of [`store::StageRow::extra`], if a stage wrote it; it lists the other
//! numbers.
//!
//! Read next: [`super::page`].

use std::collections::BTreeMap;

use serde::Deserialize;
use store::ledger::rows::Opening;
use store::{BaselineRow, Rollout, RunView, StageRow, StoreError, VerdictOutcome};
use train::snapshots::SUFFIX;
use train::stats::CalibrationBin;

use super::findings::{self, Finding, is_count};

/// Everything on the page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's name.
    pub name: String,
    /// The recipe's seed, if it has one.
    pub seed: Option<i64>,
    /// The recipe's task, if it names one.
    pub task: Option<String>,
    /// The resolved recipe.
    pub recipe: String,
    /// Whether a process worked on the run when the page was made.
    pub unfinished: bool,
    /// The cheap baselines.
    pub baselines: Vec<BaselineRow>,
    /// Finished stages.
    pub stages: Vec<StageRow>,
    /// Curves by stage, in the order in which the stages ran.
    pub curves: Vec<StageCurves>,
    /// Completions of the stages that stored some.
    pub transcripts: Vec<StageTranscripts>,
    /// The findings.
    pub findings: Vec<Finding>,
    /// Every time that a process opened the run for work.
    pub openings: Vec<Opening>,
}

/// The curves of one stage.
#[derive(Clone, Debug, Default)]
pub struct StageCurves {
    /// The stage.
    pub stage: String,
    /// One curve for each number that was logged more than once, in the order of the log; then the rules' mean scores.
    pub curves: Vec<Curve>,
}

/// One number over the steps of a stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The number's name.
    pub name: String,
    /// (step, value), in increasing order of steps. A value is NaN if the step does not have the number.
    pub points: Vec<(f64, f64)>,
}

/// Completions of one stage.
#[derive(Clone, Debug, Default)]
pub struct StageTranscripts {
    /// The stage.
    pub stage: String,
    /// Whether all entries answer the same prompt.
    pub same_prompt: bool,
    /// The completions at a few steps, in increasing order of steps.
    pub entries: Vec<Transcript>,
}

/// One completion at one step.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// The step.
    pub step: u64,
    /// The completion with its verdicts.
    pub rollout: Rollout,
    /// The text of each token, if the run's tokenizer was available.
    pub pieces: Option<Vec<String>>,
}

/// The calibration of a row; see [`train::evaluate::Calibration`].
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Calibration {
    /// Expected calibration error.
    pub ece: f64,
    /// The bins that hold a case.
    pub bins: Vec<CalibrationBin>,
    /// The accuracy that is required of the answers that are given.
    pub target_accuracy: f64,
    /// The share of cases that can be answered at that accuracy.
    pub coverage: f64,
    /// The confidence below which the model should abstain.
    pub threshold: Option<f64>,
}

/// Splits a completion of a stage into the texts of its tokens; none without a tokenizer.
pub type Pieces<'a> = &'a dyn Fn(&str, &[u32]) -> Option<Vec<String>>;

/// The number of a stage's steps whose completions are shown.
const SHOWN_STEPS: usize = 4;

impl Report {
    /// Gathers everything that the page needs. `pieces` splits completions into the texts of their tokens.
    ///
    /// # Errors
    /// The errors of reading the run.
    pub fn gather(view: &RunView, pieces: Pieces) -> Result<Self, StoreError> {
        let recipe = view.recipe()?;
        let mut report = Report {
            name: view.name().to_owned(),
            seed: seed_of(&recipe),
            task: task_of(&recipe),
            recipe: view.recipe_text().to_owned(),
            unfinished: view.is_locked(),
            baselines: view.ledger().baselines()?,
            stages: view.ledger().stages()?,
            curves: curves_of(view)?,
            transcripts: Vec::new(),
            findings: findings::gather(view)?,
            openings: view.ledger().openings()?,
        };
        let stages = rollout_stages(view)?;
        for stage in &stages {
            let sampled = sampled_of(view, stage)?;
            let watched = format!("{stage}{SUFFIX}");
            if let Some(owner) = stage.strip_suffix(SUFFIX) {
                report.transcripts.push(transcripts_of(owner, sampled, pieces));
                continue;
            }
            report.add_curves(stage, rollout_curves(&sampled));
            if !stages.contains(&watched) {
                report.transcripts.push(transcripts_of(stage, sampled, pieces));
            }
        }
        let place = |stage: &str| report.stages.iter().position(|row| row.stage == stage).unwrap_or(usize::MAX);
        report.curves.sort_by_key(|curves| place(&curves.stage));
        report.transcripts.sort_by_key(|transcripts| place(&transcripts.stage));
        Ok(report)
    }

    /// Adds curves to a stage's, except those whose names it has already.
    fn add_curves(&mut self, stage: &str, more: Vec<Curve>) {
        let entry = self.curves.iter().position(|c| c.stage == stage).unwrap_or_else(|| {
            self.curves.push(StageCurves { stage: stage.to_owned(), curves: Vec::new() });
            self.curves.len() - 1
        });
        for curve in more {
            let curves = &mut self.curves[entry].curves;
            if curves.iter().all(|c| c.name != curve.name) {
                curves.push(curve);
            }
        }
    }

    /// The calibration of a stage, if it wrote one.
    pub fn calibration(row: &StageRow) -> Option<Calibration> {
        row.extra.get("calibration").and_then(|v| serde_json::from_value(v.clone()).ok())
    }
}

/// The seed that a resolved recipe names.
pub fn seed_of(recipe: &store::recipe::Table) -> Option<i64> {
    recipe.get("seed").and_then(|v| v.as_integer())
}

/// The task that a resolved recipe names, written `task = "…"` or `[task] name = "…"`.
fn task_of(recipe: &store::recipe::Table) -> Option<String> {
    let task = recipe.get("task")?;
    let name = task.as_str().or_else(|| task.get("name")?.as_str());
    name.map(str::to_owned)
}

fn curves_of(view: &RunView) -> Result<Vec<StageCurves>, StoreError> {
    let mut stages: Vec<StageCurves> = Vec::new();
    for step in view.metrics()? {
        if stages.last().is_none_or(|last| last.stage != step.stage) {
            stages.push(StageCurves { stage: step.stage.clone(), curves: Vec::new() });
        }
        let curves = &mut stages.last_mut().expect("just pushed").curves;
        for (name, value) in step.values {
            let at = curves.iter().position(|c| c.name == name).unwrap_or_else(|| {
                curves.push(Curve { name, points: Vec::new() });
                curves.len() - 1
            });
            curves[at].points.push((step.step as f64, value.unwrap_or(f64::NAN)));
        }
    }
    // A count that is always 0 gets no curve.
    let never = |curve: &Curve| is_count(&curve.name) && curve.points.iter().all(|point| point.1 == 0.0);
    stages.iter_mut().for_each(|s| s.curves.retain(|c| c.points.len() > 1 && !never(c)));
    Ok(stages)
}

fn rollout_stages(view: &RunView) -> Result<Vec<String>, StoreError> {
    let mut stages: Vec<String> = Vec::new();
    for file in view.ledger().rollout_files()? {
        if !stages.contains(&file.stage) {
            stages.push(file.stage);
        }
    }
    Ok(stages)
}

fn sampled_of(view: &RunView, stage: &str) -> Result<Vec<(u64, Vec<Rollout>)>, StoreError> {
    view.rollout_steps(stage)?.into_iter().map(|step| Ok((step, view.rollouts(stage, step)?))).collect()
}

/// Curves from the stored completions: each rule's mean score, its abstentions and failures, lengths.
fn rollout_curves(sampled: &[(u64, Vec<Rollout>)]) -> Vec<Curve> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (step, rows) in sampled.iter().filter(|(_, rows)| !rows.is_empty()) {
        let (step, n) = (*step as f64, rows.len() as f64);
        let mut put = |name: String, value: f64| curves.entry(name).or_default().push((step, value));
        put("completion_tokens".to_owned(), rows.iter().map(|r| r.tokens.len() as f64).sum::<f64>() / n);
        put("finished".to_owned(), rows.iter().filter(|r| r.finished).count() as f64 / n);
        let mut rules: BTreeMap<&str, Vec<&store::Verdict>> = BTreeMap::new();
        rows.iter().flat_map(|r| &r.verdicts).for_each(|v| rules.entry(&v.rule).or_default().push(v));
        for (rule, verdicts) in rules {
            let scores: Vec<f64> = verdicts.iter().filter_map(|v| v.value).collect();
            if !scores.is_empty() {
                put(format!("rule {rule}"), scores.iter().sum::<f64>() / scores.len() as f64);
            }
            let silent = verdicts.iter().filter(|v| v.outcome != VerdictOutcome::Score).count();
            put(format!("rule {rule}, no score"), silent as f64 / verdicts.len() as f64);
        }
    }
    let tells = |points: &[(f64, f64)]| points.len() > 1 && points.iter().any(|p| p.1 != 0.0);
    curves.into_iter().filter(|(_, p)| tells(p)).map(|(name, points)| Curve { name, points }).collect()
}

/// Completions of the same prompt at several steps, if a prompt recurs; otherwise the first completion of each step.
fn transcripts_of(stage: &str, sampled: Vec<(u64, Vec<Rollout>)>, pieces: Pieces) -> StageTranscripts {
    let mut steps_with: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (_, rows)) in sampled.iter().enumerate() {
        for row in rows {
            let seen = steps_with.entry(&row.case_id).or_default();
            if seen.last() != Some(&i) {
                seen.push(i);
            }
        }
    }
    let often = steps_with.iter().max_by_key(|(id, steps)| (steps.len(), std::cmp::Reverse(**id)));
    let shared = often.filter(|(_, steps)| steps.len() > 1).map(|(id, steps)| ((*id).to_owned(), steps.clone()));
    let from = shared.as_ref().map_or_else(|| (0..sampled.len()).collect(), |(_, steps)| steps.clone());
    let entry = |i: usize| {
        let (step, rows) = &sampled[i];
        let row = rows.iter().find(|r| shared.as_ref().is_none_or(|(id, _)| r.case_id == *id))?;
        Some(Transcript { step: *step, pieces: pieces(stage, &row.tokens), rollout: row.clone() })
    };
    StageTranscripts {
        stage: stage.to_owned(),
        same_prompt: shared.is_some(),
        entries: spread(&from, SHOWN_STEPS).into_iter().filter_map(entry).collect(),
    }
}

/// At most `n` of `from`, evenly spread, including the first and the last.
fn spread(from: &[usize], n: usize) -> Vec<usize> {
    if from.len() <= n {
        return from.to_vec();
    }
    (0..n).map(|i| from[i * (from.len() - 1) / (n - 1)]).collect()
}
