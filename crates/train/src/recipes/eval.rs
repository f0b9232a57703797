//! Measuring a model as it stands: before anything has trained it, on more cases, or with several samples of each (pass@k, maj@k).
//!
//! Every training stage ends in a greedy measurement of its own, so most recipes need no such stage.

use std::time::Instant;

use kernels::Real;
use lm::{Model, Role};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::evaluate::{Evaluation, evaluate};
use crate::recipe::StageFields;
use crate::tasks::{Case, Split};
use crate::walk::Walk;

/// Keys of an `eval` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// The model that is measured.
    pub model: String,
    /// Held-out cases; by default those behind every row of the ladder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// Samples of each case: 1 is greedy, more are drawn at temperature 1 and give pass@k and maj@k.
    #[serde(default = "greedy")]
    pub samples: usize,
}

fn greedy() -> usize {
    1
}

impl StageFields for Eval {
    const FIELDS: &'static [&'static str] = &["model", "cases", "samples"];
}

/// Runs the stage; `heldout` are the cases behind every row.
///
/// # Errors
/// As [`evaluate`].
pub fn run<T: Real>(stage: &Eval, walk: &mut Walk, heldout: &[Case]) -> Result<Evaluation, TrainError> {
    let began = Instant::now();
    walk.observer.stage(walk.stage, "eval", 0);
    let own = stage.cases.map(|n| walk.task.cases(Split::Heldout, n, walk.recipe.seed)).transpose()?;
    let cases = own.as_deref().unwrap_or(heldout);
    let codec = walk.codec()?;
    let mut model = Model::<T>::new(walk.queue, walk.weights(&stage.model), Role::Inference);
    let max_new_tokens = walk.recipe.eval.max_new_tokens;
    let measured = evaluate(walk.queue, &mut model, &codec, walk.task, cases, stage.samples, max_new_tokens, walk.key)?;
    for case in cases {
        let prompt = codec.prompt(&case.prompt)?.len();
        let made = measured.tokens / cases.len();
        let pairs = prompt * prompt / 2 + made * (prompt + made / (2 * stage.samples));
        walk.meters.flops += model.config().forward_flops(prompt + made, made, pairs);
    }
    walk.meters.rollouts += (cases.len() * stage.samples) as u64;
    walk.meters.seconds += began.elapsed().as_secs_f64();
    Ok(measured)
}
