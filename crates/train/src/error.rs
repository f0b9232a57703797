//! What can go wrong in training.

use std::borrow::Cow;

use tasks::TaskError;
use tasks::refusal::Refusal;

/// An error of training. [`TrainError::hint`] says what the user can do about it.
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
    #[error("the tokenizer names no end token")]
    NoEndToken,
    /// Prompts that are conversations, for a model without a chat template.
    #[error("the task's prompts are conversations, and the model has no chat template")]
    NoTemplate,
    /// A stage that failed during its work.
    #[error(transparent)]
    Stage(Refusal),
    /// The user asked to stop. Everything up to the last finished step is saved.
    #[error("stopped at stage \"{stage}\", step {step}; everything up to there is saved")]
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

    /// What went wrong, without the hint.
    pub fn problem(&self) -> String {
        match self {
            TrainError::Refused(refusal) | TrainError::Stage(refusal) => refusal.problem_in_place(),
            other => other.to_string(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            TrainError::Refused(refusal) | TrainError::Stage(refusal) => Some((&refusal.hint).into()),
            TrainError::Format(error) => error.hint(),
            TrainError::Store(error) => error.hint(),
            TrainError::NoEndToken => Some("set `eos_token` in its tokenizer_config.json".into()),
            TrainError::NoTemplate => Some("use a model with one, or write `prompt` instead of `messages`".into()),
            TrainError::Interrupted { .. } => Some("the same command resumes the run".into()),
        }
    }

    /// An error of a stage.
    pub fn stage(stage: &str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        TrainError::Stage(Refusal::new(problem, hint).in_stage(stage))
    }
}
