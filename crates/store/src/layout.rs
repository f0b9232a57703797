//! The names of a run's files and folders.
//!
//! Read next: [`crate::run`].

use std::path::{Path, PathBuf};

pub(crate) const RECIPE: &str = "recipe.toml";
pub(crate) const LEDGER: &str = "ledger.sqlite";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
pub(crate) const ROLLOUTS: &str = "rollouts";
pub(crate) const MODELS: &str = "models";

/// The file of a step's completions.
pub(crate) fn rollout_path(run: &Path, stage: &str, step: u64) -> PathBuf {
    run.join(ROLLOUTS).join(stage).join(format!("step-{step:06}.parquet"))
}

/// The folder of a stage's exported model.
pub(crate) fn model_path(run: &Path, stage: &str) -> PathBuf {
    run.join(MODELS).join(stage)
}
