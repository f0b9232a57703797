//! What can go wrong in training.

use tasks::TaskError;
use tasks::data::InspectError;
use tasks::refusal::Refusal;
use tasks::rewards::RuleError;

/// An error of training. Its message ends in a hint if the user can fix the cause.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A recipe or a command line that cannot be run.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A task's files.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The user's texts.
    #[error(transparent)]
    Texts(#[from] InspectError),
    /// A rule as configured.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A model's files.
    #[error(transparent)]
    Format(#[from] lm::FormatError),
    /// The run's folder.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A tokenizer that cannot end a text.
    #[error("the tokenizer names no end token\nhint: set `eos_token` in its tokenizer_config.json")]
    NoEndToken,
    /// Prompts that are conversations, for a model without a chat template.
    #[error(
        "the task's prompts are conversations, and the model has no chat template\nhint: use a model with one, or write `prompt` instead of `messages`"
    )]
    NoTemplate,
    /// A stage that failed during its work.
    #[error(transparent)]
    Stage(Refusal),
    /// The user asked to stop. Everything up to the last finished step is saved.
    #[error(
        "stopped at stage \"{stage}\", step {step}; everything up to there is saved\nhint: the same command resumes the run"
    )]
    Interrupted {
        /// The stage.
        stage: String,
        /// Steps of it that are done.
        step: u64,
    },
}

impl TrainError {
    /// Whether the user's input is wrong: the recipe, the task's files or the command line.
    pub fn is_wrong_use(&self) -> bool {
        use TrainError::{NoTemplate, Refused, Rule, Store, Task, Texts};
        matches!(self, Refused(_) | Task(_) | Texts(_) | Rule(_) | NoTemplate)
            || matches!(self, Store(store::StoreError::RecipeChanged { .. } | store::StoreError::BadName { .. }))
    }

    /// An error of a stage.
    pub fn stage(stage: &str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        TrainError::Stage(Refusal::new(problem, hint).in_stage(stage))
    }
}
