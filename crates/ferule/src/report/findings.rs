//! Findings: what a run must report, each with its count: completions that did not end or have no reward, groups that
//! taught nothing, steps without an update, texts that were left out, damaged checkpoints.
//!
//! Counts of single steps are added up from the metrics; single events are notices of the ledger. Nothing is estimated:
//! if a run did not count something, the finding says so.
//!
//! Read next: [`super::page`], which shows the findings.

use std::collections::BTreeMap;

use serde::Serialize;
use store::{BaselineRow, Notice, RunView, StageRow, StepMetrics, StoreError};
use train::snapshots::SUFFIX;

use super::words::Language;

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Its kind: the name of a count in the metrics, or a notice's kind.
    pub kind: String,
    /// The stage, if it belongs to one.
    pub stage: Option<String>,
    /// How many there are.
    pub count: u64,
    /// The number that they are a part of, if it is known.
    pub of: Option<u64>,
    /// The same as an English sentence.
    pub text: String,
}

/// Counts of a step that are added up over a stage, each with the name of the total that it is a part of.
const COUNTS: [(&str, &str); 9] = [
    ("completions_unfinished", "completions"),
    ("completions_abstained", "completions"),
    ("completions_failed", "completions"),
    ("completions_timed_out", "completions"),
    ("completions_not_kept", "completions"),
    ("groups_all_equal", "groups"),
    ("groups_all_best", "groups"),
    ("groups_too_small", "groups"),
    ("validation_unfinished", "validation_completions"),
];

/// Whether a metric is a count that makes a finding if it is not 0.
pub fn is_count(metric: &str) -> bool {
    COUNTS.iter().any(|(name, _)| *name == metric)
}

/// All findings of a run: those from opening it, then those of each stage.
///
/// # Errors
/// The errors of reading the run.
pub fn gather(view: &RunView) -> Result<Vec<Finding>, StoreError> {
    let mut found = Vec::new();
    for opening in view.ledger().openings()? {
        // The top of the page already says that a run was resumed.
        found.extend(opening.notices.into_iter().filter(|notice| notice.kind != "resumed").map(of_notice));
    }
    found.extend(view.ledger().notices()?.into_iter().map(of_notice));
    let rows = view.ledger().stages()?;
    for (stage, steps) in by_stage(view.metrics()?) {
        found.extend(of_steps(&stage, &steps));
    }
    found.extend(of_watched(view)?);
    found.extend(rows.iter().flat_map(of_row));
    found.extend(view.ledger().baselines()?.iter().filter_map(of_baseline));
    found.retain(|finding| finding.count > 0);
    let place = |finding: &Finding| {
        let stage = finding.stage.as_ref()?;
        Some(rows.iter().position(|row| row.stage == *stage).unwrap_or(usize::MAX))
    };
    found.sort_by_key(place);
    Ok(found)
}

fn of_notice(notice: Notice) -> Finding {
    Finding { kind: notice.kind, stage: notice.stage, count: notice.count, of: None, text: notice.text }
}

fn finding(kind: &str, stage: Option<&str>, count: u64, of: u64) -> Finding {
    let text = Language::English.words().finding(kind, count, of).expect("a kind with a sentence");
    Finding { kind: kind.to_owned(), stage: stage.map(str::to_owned), count, of: Some(of), text }
}

fn by_stage(metrics: Vec<StepMetrics>) -> BTreeMap<String, Vec<StepMetrics>> {
    let mut stages: BTreeMap<String, Vec<StepMetrics>> = BTreeMap::new();
    metrics.into_iter().for_each(|step| stages.entry(step.stage.clone()).or_default().push(step));
    stages
}

fn of_steps(stage: &str, steps: &[StepMetrics]) -> Vec<Finding> {
    let sum = |name: &str| steps.iter().filter_map(|step| step.get(name)).sum::<f64>() as u64;
    let mut found: Vec<Finding> = COUNTS.map(|(name, whole)| finding(name, Some(stage), sum(name), sum(whole))).into();
    let idle = steps.iter().filter(|step| step.get("updates") == Some(0.0)).count();
    let kind = if idle == steps.len() { "stage_without_update" } else { "steps_without_update" };
    found.push(finding(kind, Some(stage), idle as u64, steps.len() as u64));
    // Older versions of Ferule logged the share of completions that did not end, and counted nothing else.
    let uncounted = |step: &&StepMetrics| step.get("unfinished").is_some() && step.get("completions").is_none();
    found.push(finding("not_counted", Some(stage), steps.iter().filter(uncounted).count() as u64, steps.len() as u64));
    found
}

/// Completions of the prompts that a stage watches.
fn of_watched(view: &RunView) -> Result<Vec<Finding>, StoreError> {
    let mut stages: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for file in view.ledger().rollout_files()? {
        let Some(stage) = file.stage.strip_suffix(SUFFIX) else { continue };
        let rows = view.rollouts(&file.stage, file.step)?;
        let (unfinished, all) = stages.entry(stage.to_owned()).or_default();
        *unfinished += rows.iter().filter(|row| !row.finished).count() as u64;
        *all += rows.len() as u64;
    }
    let found = stages.iter().map(|(stage, (n, of))| finding("watched_unfinished", Some(stage), *n, *of));
    Ok(found.collect())
}

/// Completions of the few-shot baseline that did not end.
fn of_baseline(row: &BaselineRow) -> Option<Finding> {
    Some(finding("baseline_unfinished", None, row.extra.get("unfinished")?.as_u64()?, row.n))
}

/// Completions of held-out cases that did not end, from the measurement at the end of a stage.
fn of_row(row: &StageRow) -> Vec<Finding> {
    let of = |part: &str, kind: &str| {
        let measured = row.extra.get(part)?;
        let count = |name: &str| measured[name].as_u64();
        Some(finding(kind, Some(&row.stage), count("unfinished")?, count("n")? * count("k")?))
    };
    [of("evaluation", "heldout_unfinished"), of("unseen", "unseen_unfinished")].into_iter().flatten().collect()
}
