//! The keys at the top of a recipe's file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

/// The keys at the top of a recipe's file, as they are written.
#[derive(Deserialize, JsonSchema)]
pub struct RecipeKeys {
    /// The run's name; the file's name by default.
    pub name: Option<String>,
    /// The seed of every random number.
    #[serde(default)]
    #[schemars(range(max = 9_223_372_036_854_775_807u64))]
    pub seed: u64,
    /// What products are computed in: `bf16`, or `f32`, which is slower and exact.
    #[serde(default = "dtype")]
    pub dtype: String,
    /// What an hour of this machine costs, in your currency; without it the ladder shows no cost.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e9))]
    pub cost_per_hour: f64,
    /// The task: its `name`, and its own keys.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub task: Option<Table>,
    /// The models by name: `path`, `from`, or the keys of a shape.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub models: Table,
    /// How the ladder's accuracies are measured.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub eval: Table,
    /// The stages in order. Each has a `kind`, a `name` if you like, and the keys of its kind.
    #[serde(default)]
    #[schemars(with = "Vec<BTreeMap<String, serde_json::Value>>")]
    pub stages: Vec<Table>,
}

fn dtype() -> String {
    "bf16".into()
}
