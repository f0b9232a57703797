//! What a stage is checked against before any work is done: the task's cases, the models' shapes, the tokenizer.

use std::collections::BTreeMap;

use lm::Config;
use tasks::{Case, Split, Task, TaskError};

use super::place::Place;
use crate::error::TrainError;
use crate::evaluate::{Ungraded, gradable};
use crate::prompting::Prompting;
use crate::rules::Rules;

/// A stage's place in the recipe, with the task and the models' files opened.
pub struct Checking<'a> {
    /// The place in the recipe.
    pub place: Place<'a>,
    /// The task.
    pub task: &'a dyn Task,
    /// The shape of every model.
    pub configs: &'a BTreeMap<String, Config>,
    /// How prompts become tokens; none until the tokenizer is trained. The check runs again then.
    pub prompting: Option<&'a Prompting>,
}

impl Checking<'_> {
    /// The first cases of a split.
    ///
    /// # Errors
    /// As [`Task::cases`].
    pub fn cases(&self, split: Split, n: usize) -> Result<Vec<Case>, TaskError> {
        self.task.cases(split, n, self.place.settings.seed)
    }

    /// Tokens of the longest prompt among the first `n` cases of a split; 0 while there is no tokenizer.
    ///
    /// # Errors
    /// As [`Task::cases`] and [`Prompting::prompt`].
    pub fn longest_prompt(&self, split: Split, n: usize) -> Result<usize, TrainError> {
        let Some(prompting) = self.prompting else { return Ok(0) };
        let cases = self.cases(split, n)?;
        let lengths = cases.iter().map(|case| Ok(prompting.prompt(&case.prompt)?.len()));
        Ok(lengths.collect::<Result<Vec<usize>, TrainError>>()?.into_iter().max().unwrap_or(0))
    }

    /// Refuses a validation that has no cases, or none that can be graded.
    ///
    /// # Errors
    /// As [`Task::cases`]; a refusal at the stage's `validation_cases`.
    pub fn validation(&self, every_steps: u64, cases: usize) -> Result<(), TrainError> {
        if every_steps == 0 || cases == 0 {
            return Ok(());
        }
        match gradable(self.task, self.cases(Split::Validation, cases)?) {
            (graded, Some(Ungraded { reason, .. })) if graded.is_empty() => {
                let problem = format!("no validation case can be graded: {reason}");
                let hint = "set `validate_every_steps = 0`, or give the cases what their grading needs";
                Err(self.place.refuse("validation_cases", problem, hint).into())
            }
            _ => Ok(()),
        }
    }

    /// Refuses rules that cannot be built. Refuses rules that read answers if none of the first `cases` training cases has one.
    ///
    /// # Errors
    /// A refusal at the stage's `rules`, or at the task's own.
    pub fn rules(&self, rules: &Rules, cases: usize) -> Result<(), TrainError> {
        let settings = self.place.settings;
        let set = rules.build(self.task, &settings.folder).map_err(|refusal| {
            // A refusal that begins with a key is about the rules in the task's own table.
            match refusal.place.key().is_empty() {
                true => settings.refuse_at(&format!("stages[{}].rules", self.place.index), refusal),
                false => settings.refuse_at("task", refusal),
            }
        })?;
        if !set.reads_answers() {
            return Ok(());
        }
        let cases = self.cases(Split::Train, cases)?;
        if cases.iter().all(|case| case.answer.is_none()) {
            let hint = "give the cases an `answer`, or use rules that read the prompt alone";
            let problem = "they read the known answer, and no training case has one";
            return Err(self.place.refuse("rules", problem, hint).into());
        }
        Ok(())
    }

    /// Refuses sequences that are longer than a model's `max_position_embeddings`.
    ///
    /// # Errors
    /// A refusal at `key`.
    pub fn context(&self, model: &str, key: &str, tokens: usize) -> Result<(), TrainError> {
        let limit = self.configs[model].max_position_embeddings;
        if tokens <= limit {
            return Ok(());
        }
        let hint = format!("set it to at most {limit}, or give the model more `max_position_embeddings`");
        Err(self.place.refuse(key, format!("{tokens} tokens in a model of {limit} positions"), hint).into())
    }

    /// Refuses micro-batches that are smaller than the longest sequence, in tokens.
    ///
    /// # Errors
    /// A refusal at `tokens_per_micro_batch`.
    pub fn micro_batch(&self, tokens_per_micro_batch: usize, longest: usize) -> Result<(), TrainError> {
        if tokens_per_micro_batch >= longest {
            return Ok(());
        }
        let problem = format!("{tokens_per_micro_batch} tokens do not hold one sequence of up to {longest}");
        let hint = format!("set it to {longest} or more");
        Err(self.place.refuse("tokens_per_micro_batch", problem, hint).into())
    }

    /// Refuses completions that, with their prompt, exceed the `max_position_embeddings` of any of the models.
    ///
    /// * `prompt`: tokens of the longest prompt; 0 while there is no tokenizer.
    ///
    /// # Errors
    /// A refusal at `max_new_tokens`.
    pub fn completion(&self, models: &[&str], prompt: usize, max_new_tokens: usize) -> Result<(), TrainError> {
        let limits = models.iter().map(|model| self.configs[*model].max_position_embeddings);
        let Some(limit) = limits.min().filter(|&limit| prompt + max_new_tokens > limit) else { return Ok(()) };
        let problem = match prompt {
            0 => format!("{max_new_tokens} new tokens after any prompt exceed the model's {limit} positions"),
            _ => {
                format!(
                    "a prompt of {prompt} tokens and {max_new_tokens} new ones exceed the model's {limit} positions"
                )
            }
        };
        let hint = "lower it, shorten the prompts, or give the model more positions";
        Err(self.place.refuse("max_new_tokens", problem, hint).into())
    }
}
