//! Evaluates a policy on the validation split during its training.

use kernels::Real;
use tasks::Split;

use crate::error::TrainError;
use crate::evaluate::{Ungraded, evaluate, gradable};
use crate::trainer::{Trainer, Validated, Validation};

/// A validation that evaluates greedily on the first `cases` validation cases; none if `every_steps` or `cases` is 0. The answers that it
/// reads are metered like all others.
///
/// # Errors
/// The task has no validation cases, or the ledger cannot be written.
pub(super) fn greedy<'a, T: Real>(
    every_steps: u64,
    cases: usize,
    max_new_tokens: usize,
    trainer: &mut Trainer,
) -> Result<Option<Validation<'a, T>>, TrainError> {
    if every_steps == 0 || cases == 0 {
        return Ok(None);
    }
    let prompting = trainer.prompting()?;
    let cases = trainer.task.cases(Split::Validation, cases, trainer.settings.seed)?;
    let (cases, ungraded) = gradable(trainer.task, cases);
    if let Some(Ungraded { count, reason }) = ungraded {
        let text = format!("{}: {count} validation cases are left out: {reason}", trainer.stage);
        trainer.notice("validation_ungraded", count as u64, text)?;
    }
    let read: Vec<&str> = cases.iter().filter(|case| case.answer.is_some()).map(|case| case.id.as_str()).collect();
    trainer.run.ledger().meter_answers(trainer.stage, &read)?;
    Ok(Some(Validation {
        every_steps,
        measure: Box::new(move |trainer, learner| {
            let (queue, task) = (trainer.queue, trainer.task);
            let key = trainer.key.word("validation");
            evaluate(queue, &mut learner.model, &prompting, task, &cases, 1, max_new_tokens, key).map(|e| Validated {
                accuracy: e.accuracy,
                completions: e.n * e.k,
                unfinished: e.unfinished,
            })
        }),
    }))
}
