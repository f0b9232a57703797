//! The rules of a stage, and the rows that store their verdicts.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::VerdictOutcome;

use crate::rollout::{Group, Rollout};
use tasks::refusal::Refusal;
use tasks::rewards::{Judged, RuleConfig, RuleSet, Verdict};
use tasks::{Case, Task};

/// The rules of a stage: an arm of the task, or a list of rules by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Rules {
    /// `answers` or `answer_free`, as the task defines them.
    Arm(String),
    /// A list such as `[{ rule = "format", gate = true }, { rule = "exact" }]`.
    List(Vec<RuleConfig>),
}

impl Default for Rules {
    fn default() -> Self {
        Rules::Arm("answers".into())
    }
}

impl Rules {
    /// Builds the rules; relative paths in them start from `folder`.
    ///
    /// # Errors
    /// An arm that the task does not have, a rule that cannot be built.
    pub fn build(&self, task: &dyn Task, folder: &Path) -> Result<RuleSet, Refusal> {
        match self {
            Rules::Arm(arm) => Ok(task.rules(arm)?),
            Rules::List(configs) => RuleSet::from_config(configs, folder),
        }
    }
}

/// A rollout with its verdicts, reward and advantage, as the store keeps it.
pub(crate) type Row = store::Rollout;

/// The rows of a group after its completions were judged; each list has one entry per completion.
pub(crate) fn rows(
    case: &Case,
    group: &Group,
    judged: &[Judged],
    rewards: &[Option<f64>],
    advantages: &[Option<f64>],
) -> Vec<Row> {
    let prompt = case.prompt_text();
    let row = |(i, rollout): (usize, &Rollout)| store::Rollout {
        case_id: case.id.clone(),
        sample: i as u32,
        prompt: prompt.clone(),
        answer: case.answer.clone(),
        completion: rollout.text.clone(),
        tokens: rollout.tokens.clone(),
        logprobs: rollout.logprobs.clone(),
        given: (!rollout.given.is_empty()).then(|| rollout.given_mask()),
        logprobs_teacher: None,
        soft: None,
        reward: rewards[i],
        advantage: advantages[i].map(|advantage| advantage as f32),
        finished: rollout.finished,
        verdicts: judged[i].verdicts.iter().map(|(rule, verdict)| stored(rule, verdict)).collect(),
    };
    group.rollouts.iter().enumerate().map(row).collect()
}

fn stored(rule: &str, verdict: &Verdict) -> store::Verdict {
    let outcome = match verdict {
        Verdict::Score { .. } => VerdictOutcome::Score,
        Verdict::Abstain { .. } => VerdictOutcome::Abstain,
        Verdict::Failed { .. } => VerdictOutcome::Failed,
        Verdict::TimedOut { .. } => VerdictOutcome::TimedOut,
    };
    store::Verdict { rule: rule.into(), outcome, value: verdict.value(), reason: verdict.reason().into() }
}
