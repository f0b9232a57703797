//! Everything in a recipe but its stages: the seed, the task, the models, the evaluation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model_source::ModelSource;
use super::source::Source;
use tasks::refusal::Refusal;

/// Everything of a resolved recipe but its stages.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The run's name; the file's name by default.
    pub name: String,
    /// The seed of every random number.
    pub seed: u64,
    /// What products are computed in: `f32` or `bf16`.
    pub dtype: String,
    /// What an hour of this machine costs, in the user's currency; with 0 the ladder shows no cost.
    pub cost_per_hour: f64,
    /// The task, and its own keys.
    pub task: toml::Table,
    /// The models by name.
    pub models: BTreeMap<String, ModelSource>,
    /// How the ladder's accuracies are measured.
    pub eval: EvalSettings,
    /// The recipe's folder; relative paths start there.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The file as it was read, so that later messages can name the line.
    #[serde(skip)]
    pub source: Source,
}

impl Settings {
    /// A refusal at a key such as `stages[2].epochs`, with the key's file and line.
    pub fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.source.refuse(key, problem, hint)
    }

    /// Places a refusal that was found inside the value of a key, such as a rule's, at that key. A refusal that names a file of its own
    /// stays as it is.
    pub fn refuse_at(&self, key: &str, refusal: Refusal) -> Refusal {
        if refusal.place.file().is_some() { refusal } else { self.source.at(key, refusal) }
    }
}

/// How the ladder's accuracies are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSettings {
    /// Held-out cases behind every row of the ladder.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cases: usize,
    /// Held-out cases with unseen wordings and ranges, reported separately.
    #[schemars(range(max = 1_000_000))]
    pub unseen_cases: usize,
    /// Longest completion, in tokens.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_new_tokens: usize,
    /// Demonstrations that the cheap baselines may learn from.
    #[schemars(range(max = 1_000_000))]
    pub baseline_demonstrations: usize,
    /// Examples in the prompt of the base model, which is a baseline too; 0 leaves that baseline out.
    #[schemars(range(max = 1_000))]
    pub few_shot_examples: usize,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self { cases: 500, unseen_cases: 0, max_new_tokens: 64, baseline_demonstrations: 200, few_shot_examples: 4 }
    }
}
