//! Turns the end of a command into a message and an exit code.
//!
//! 0: done, or the reader of the output closed it. 1: the work failed. 2: wrong use, which is a [`WrongUse`] anywhere
//! in the error's chain, or a recipe that was refused. A message is one `error:` line with its causes, then `hint:`
//! lines.

use std::fmt;
use std::process::ExitCode;

use tasks::refusal::Refusal;
use train::TrainError;

/// The arguments contradict each other, or one of them has an invalid value.
#[derive(Debug)]
pub struct WrongUse(String);

impl WrongUse {
    /// The error, with what to write instead.
    pub fn error(problem: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
        Self(format!("{problem}\nhint: {hint}")).into()
    }
}

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// A failure, with a hint how to fix it.
pub fn failure(problem: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{problem}\nhint: {hint}")
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
    eprintln!("error: {}", message(&error));
    ExitCode::from(if error.chain().any(is_wrong_use) { 2 } else { 1 })
}

fn is_wrong_use(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<WrongUse>()
        || cause.is::<Refusal>()
        || cause.downcast_ref::<TrainError>().is_some_and(TrainError::is_wrong_use)
}

/// The causes joined by colons, with each cause's hints moved to the end.
fn message(error: &anyhow::Error) -> String {
    let (mut problems, mut hints): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for cause in error.chain() {
        let text = cause.to_string();
        let (hint_lines, problem_lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("hint:"));
        let problem = problem_lines.join("\n");
        // The message of a library error often ends with its source already.
        if !problems.last().is_some_and(|above| above.ends_with(&problem)) {
            problems.push(problem);
        }
        hints.extend(hint_lines.into_iter().map(String::from));
    }
    let mut lines = vec![problems.join(": ")];
    lines.append(&mut hints);
    lines.join("\n")
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
