//! The divergences that a recipe can name, for distillation.
//!
//! `p` is the teacher's distribution over the vocabulary, `q` the student's. Read next: [`kernels::ops::head::Divergence`], which computes
//! them.

use kernels::ops::head::Divergence;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A divergence as a recipe names it.
///
/// # Source
/// Agarwal et al. 2024 (GKD), arXiv 2306.13649.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceName {
    /// Σ p · ln(p / q): the student puts probability wherever the teacher has some.
    #[default]
    ForwardKl,
    /// Σ q · ln(q / p): the student puts probability only where the teacher has some.
    ReverseKl,
    /// The generalised Jensen–Shannon divergence, between the two; `jsd_beta` is the teacher's share of the mixture.
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
