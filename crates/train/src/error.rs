//! What can go wrong in training.

use tasks::TaskError;
use tasks::refusal::Refusal;

/// An error of training. Its message ends in a hint if the user can fix the cause.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A recipe, a command line, or a file of the user's that cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
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

impl From<TaskError> for TrainError {
    fn from(error: TaskError) -> TrainError {
        TrainError::Refused(error.into())
    }
}

impl TrainError {
    /// Whether the user's input is wrong: the recipe, the task's files or the command line.
    pub fn is_wrong_use(&self) -> bool {
        use TrainError::{NoTemplate, Refused, Store};
        matches!(self, Refused(_) | NoTemplate)
            || matches!(self, Store(store::StoreError::RecipeChanged { .. } | store::StoreError::BadName { .. }))
    }

    /// An error of a stage.
    pub fn stage(stage: &str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        TrainError::Stage(Refusal::new(problem, hint).in_stage(stage))
    }
}
