//! One rule of a recipe, as written: `{ rule = "number", weight = 1.0, gate = true, tolerance = 0.01 }`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Table;

/// A rule's name and all its keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleConfig {
    /// The rule's name.
    pub rule: String,
    /// All its other keys.
    #[serde(flatten)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub keys: Table,
}

/// The keys that every rule has.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Shared {
    /// How much the rule counts beside the others.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub weight: f64,
    /// Makes the reward 0 unless this rule gives the full score (`true`), or at least this one.
    pub gate: Gate,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared { weight: 1.0, gate: Gate::Full(false) }
    }
}

/// Whether a rule is a gate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Gate {
    /// `true`: only the full score passes.
    Full(bool),
    /// The least score that passes.
    AtLeast(#[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))] f64),
}

impl Gate {
    /// The lowest score that passes; none if the rule is not a gate.
    pub fn threshold(self) -> Option<f64> {
        match self {
            Gate::Full(full) => full.then_some(1.0),
            Gate::AtLeast(least) => Some(least),
        }
    }
}
