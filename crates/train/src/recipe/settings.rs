//! What a recipe says besides its stages: the seed, the task, the models, the evaluation.

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
    /// The run's name; the file's by default.
    pub name: String,
    /// Every random number follows from it.
    pub seed: u64,
    /// `f32` or `bf16`: what products are computed in.
    pub dtype: String,
    /// What an hour of this machine costs, in the user's currency; 0 leaves the ladder's cost empty.
    pub cost_per_hour: f64,
    /// The task, and its own keys.
    pub task: toml::Table,
    /// The models by name.
    pub models: BTreeMap<String, ModelSource>,
    /// How the ladder's accuracies are measured.
    pub eval: EvalSettings,
    /// The recipe's folder: relative paths start here.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The file as it was read, so that later messages can name the line.
    #[serde(skip)]
    pub source: Source,
}

impl Settings {
    /// A refusal at a key such as `stages[2].epochs`, with the file and the line where it stands.
    pub fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.source.refuse(key, problem, hint)
    }

    /// A refusal found inside the value of a key, such as a rule's; as it is where it names a file of its own.
    pub fn refuse_at(&self, key: &str, refusal: Refusal) -> Refusal {
        if refusal.place.file().is_some() { refusal } else { self.source.at(key, refusal) }
    }
}

/// How the ladder's accuracies are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSettings {
    /// Held-out cases behind every row of the ladder.
    #[schemars(range(min = 1))]
    pub cases: usize,
    /// Cases with unseen wordings and ranges, reported beside.
    pub unseen_cases: usize,
    /// Longest completion, in tokens.
    #[schemars(range(min = 1))]
    pub max_new_tokens: usize,
    /// Demonstrations that the cheap baselines may learn from.
    pub baseline_demonstrations: usize,
    /// Examples in the prompt of the base model, a baseline too; 0 to leave it out.
    pub few_shot_examples: usize,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self { cases: 500, unseen_cases: 0, max_new_tokens: 64, baseline_demonstrations: 200, few_shot_examples: 4 }
    }
}
