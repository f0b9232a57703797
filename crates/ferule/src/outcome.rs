//! Turns the end of a command into a message and an exit code.
//!
//! 0: done, or the reader of the output closed it. 1: the work failed. 2: wrong use, which is a [`WrongUse`] anywhere
//! in the error's chain, or a recipe that was refused. A message is one `error:` line with its causes, then `hint:`
//! lines.

use std::borrow::Cow;
use std::fmt;
use std::process::ExitCode;

use lm::FormatError;
use store::StoreError;
use tasks::refusal::Refusal;
use train::TrainError;

use crate::visible::note;

/// The arguments make no sense together, or a value among them makes none.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct WrongUse {
    problem: String,
    hint: String,
}

impl WrongUse {
    /// The error, with what to write instead.
    pub fn error(problem: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
        Self { problem: problem.to_string(), hint: hint.to_string() }.into()
    }
}

/// The work failed, and the user can do something about it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
struct Failure {
    problem: String,
    hint: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A failure with its mend.
pub fn failure(problem: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
    Failure { problem: problem.to_string(), hint: hint.to_string(), source: None }.into()
}

/// A failure with its mend, and what caused it.
pub fn failure_because(cause: anyhow::Error, problem: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
    Failure { problem: problem.to_string(), hint: hint.to_string(), source: Some(cause.into()) }.into()
}

/// The reader of the output has closed it (`ferule … | head`). This ends the command and is no error.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of the output is gone")
    }
}

impl std::error::Error for ReaderGone {}

/// Prints the error, if there is one, and returns the exit code.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.chain().any(|cause| cause.is::<ReaderGone>()) {
        return ExitCode::SUCCESS;
    }
    note!("error: {}", message(&error));
    ExitCode::from(if error.chain().any(is_wrong_use) { 2 } else { 1 })
}

fn is_wrong_use(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<WrongUse>()
        || cause.is::<Refusal>()
        || cause.downcast_ref::<TrainError>().is_some_and(TrainError::is_wrong_use)
}

/// A cause's problem, and its hint where it has one.
fn told<'a>(cause: &'a (dyn std::error::Error + 'static)) -> (String, Option<Cow<'a, str>>) {
    if let Some(WrongUse { hint, .. }) = cause.downcast_ref() {
        (cause.to_string(), Some(hint.into()))
    } else if let Some(Failure { hint, .. }) = cause.downcast_ref() {
        (cause.to_string(), Some(hint.into()))
    } else if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        (refusal.problem_in_place(), Some((&refusal.hint).into()))
    } else if let Some(error) = cause.downcast_ref::<TrainError>() {
        (error.problem(), error.hint())
    } else if let Some(error) = cause.downcast_ref::<FormatError>() {
        (error.to_string(), error.hint())
    } else if let Some(error) = cause.downcast_ref::<StoreError>() {
        (error.to_string(), error.hint())
    } else {
        (cause.to_string(), None)
    }
}

/// Causes joined by colons, then their hints.
pub fn message(error: &anyhow::Error) -> String {
    let (mut problems, mut hints): (Vec<String>, Vec<Cow<str>>) = (Vec::new(), Vec::new());
    for cause in error.chain() {
        let (problem, hint) = told(cause);
        // Library errors often end with their source already.
        if !problems.last().is_some_and(|above| above.ends_with(&problem)) {
            problems.push(problem);
        }
        hints.extend(hint);
        // What is below it says the same in codes.
        if let Some(StoreError::Ledger { .. }) = cause.downcast_ref() {
            break;
        }
    }
    let hints: String = hints.iter().map(|hint| format!("\nhint: {hint}")).collect();
    problems.join(": ") + &hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn hints_come_after_all_causes() {
        let error = Err::<(), _>(failure("the file is short", "fetch it again")).context("model.safetensors");
        assert_eq!(message(&error.unwrap_err()), "model.safetensors: the file is short\nhint: fetch it again");
    }

    #[test]
    fn wrong_use_is_found_below_context() {
        let error = Err::<(), _>(WrongUse::error("no", "yes")).context("while");
        assert_eq!(report(error), ExitCode::from(2));
        assert_eq!(report(Err(failure("no", "yes"))), ExitCode::from(1));
        assert_eq!(report(Err(ReaderGone.into())), ExitCode::SUCCESS);
        assert_eq!(report(Ok(())), ExitCode::SUCCESS);
    }
}
