//! The ledger's rows, as plain structs. The names of [`StageRow`]'s fields are those of `ferule report --json`.
//!
//! Read next: [`super`], which writes and reads them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One finished stage: one row of the ladder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageRow {
    /// Its place in the recipe, from 0.
    pub index: u64,
    /// Its name, unique in the recipe.
    pub stage: String,
    /// The kind of stage: "sft", "grpo", …
    pub kind: String,
    /// The model that it trained or measured, such as "teacher" or "student"; empty if there is none yet.
    pub model: String,
    /// The headline score on held-out cases after the stage, 0 to 1; none if nothing was evaluated.
    pub accuracy: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end of its interval.
    pub high: Option<f64>,
    /// Held-out cases evaluated.
    pub n: u64,
    /// Distinct cases that a person demonstrated or judged, in all stages behind this model.
    pub labels: u64,
    /// Distinct cases whose known answer a rule read, in all stages behind this model.
    pub answers_read: u64,
    /// Completions that the stage sampled.
    pub rollouts: u64,
    /// Tokens that a teacher sampled or scored in this stage.
    pub teacher_tokens: u64,
    /// Tokens trained on in this stage.
    pub train_tokens: u64,
    /// Floating-point operations of this stage: training, sampling and the teacher's forwards.
    pub flops: f64,
    /// Wall-clock seconds of this stage, without interruptions.
    pub seconds: f64,
    /// What the stage's seconds cost, in the user's currency; none if the recipe has no `cost_per_hour`.
    pub cost: Option<f64>,
    /// [`crate::ModelDigest`] of the exported model; none if the stage exports none.
    pub digest: Option<String>,
    /// Further figures of the stage: pass@k, calibration, score parts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A cheap baseline: the constant answer, an n-gram model, the base model with a few examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineRow {
    /// Its name, unique among baselines.
    pub name: String,
    /// The headline score on held-out cases, 0 to 1.
    pub accuracy: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Held-out cases evaluated.
    pub n: u64,
    /// Labels that it was given.
    pub labels: u64,
    /// Answers that it was given.
    pub answers_read: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Further figures.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// What a person did with a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// Wrote what the model should have written.
    Demonstration,
    /// Judged whether what was written is right.
    Judged,
}

/// One expert label used by a stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// The case.
    pub record_id: String,
    /// The stage that used it.
    pub stage: String,
    /// What the person did.
    pub kind: LabelKind,
}

/// How many distinct cases were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metered {
    /// Cases that a person demonstrated or judged.
    pub labels: u64,
    /// Cases whose known answer a rule read.
    pub answers_read: u64,
}

/// The outcome of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOutcome {
    /// A score was given.
    Score,
    /// The rule has nothing to say about this case.
    Abstain,
    /// It crashed.
    Failed,
    /// It was stopped before it ended.
    TimedOut,
}

/// One rule's verdict on one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule.
    pub rule: String,
    /// The outcome.
    pub outcome: VerdictOutcome,
    /// The score, 0 to 1; none unless the outcome is [`VerdictOutcome::Score`].
    pub value: Option<f64>,
    /// Why, in words.
    pub reason: String,
}

/// A record that a stage trained on other than as a label: a document, a prompt, a teacher's sample, a preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordUse {
    /// The record.
    pub record_id: String,
    /// The stage.
    pub stage: String,
    /// What it was used as: "document", "prompt", "sample" or "preference".
    pub role: String,
}

/// An event that the user must hear of: texts that were left out, a baseline that could not be measured, a damaged
/// checkpoint.
///
/// Events of single steps (truncated completions, groups with equal rewards) are counted in the metrics instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its kind, a fixed word: "texts_left_out", "baseline_left_out", "checkpoint_damaged".
    pub kind: String,
    /// The stage, if it belongs to one.
    pub stage: Option<String>,
    /// For a person to read.
    pub text: String,
    /// How many times.
    pub count: u64,
}

/// A rollout file as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutFile {
    /// The stage.
    pub stage: String,
    /// The step.
    pub step: u64,
    /// Completions in it.
    pub rows: u64,
    /// BLAKE3 of the file, hexadecimal.
    pub blake3: String,
}

/// One time that a process opened the run for work. It is kept when other rows are cut back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// When, in seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// The checkpoint from which it resumed, for a person to read.
    pub checkpoint: Option<String>,
    /// What it found on opening.
    pub notices: Vec<Notice>,
}
