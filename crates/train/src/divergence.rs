//! Divergences as a recipe names them.

use kernels::ops::head::Divergence;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A divergence as a recipe names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceName {
    /// Mass wherever the teacher has it.
    #[default]
    ForwardKl,
    /// Mass only where the teacher has it.
    ReverseKl,
    /// Between the two, by `jsd_beta`.
    Jsd,
}

impl DivergenceName {
    /// The kernel's divergence.
    pub fn with_beta(self, beta: f32) -> Divergence {
        match self {
            DivergenceName::ForwardKl => Divergence::ForwardKl,
            DivergenceName::ReverseKl => Divergence::ReverseKl,
            DivergenceName::Jsd => Divergence::Jsd { beta },
        }
    }
}
