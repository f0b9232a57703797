//! A task without its withdrawn records, that is, without the records whose owners do not want them used.
//!
//! Everything that a run learns from or is measured on comes through here. So a run on the whole file equals, bit for
//! bit, a run on a file without those records: the list of cases is the same, and order and random numbers are derived
//! from the records' ids.
//!
//! Texts for pretraining must not contain the words of a held-out case, even if that case was withdrawn, because the
//! words are its owner's there too.

use std::collections::BTreeSet;

use crate::case::{Case, Completion, Grade, Prompt, Split};
use crate::environment::Environment;
use crate::rewards::RuleSet;
use crate::task::{Task, TaskError, withdrawn};
use kernels::rng::Key;

/// A task without its withdrawn records.
pub struct Withheld<'a> {
    task: &'a dyn Task,
    withdrawn: BTreeSet<String>,
    withdrawn_since: BTreeSet<String>,
}

impl<'a> Withheld<'a> {
    /// The task without the records in `withdrawn`. A case in `withdrawn_since` is refused, because the run may have
    /// used it already.
    pub fn new(task: &'a dyn Task, withdrawn: BTreeSet<String>, withdrawn_since: BTreeSet<String>) -> Self {
        Self { task, withdrawn, withdrawn_since }
    }
}

impl Task for Withheld<'_> {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut cases = self.task.cases(split, n.saturating_add(self.withdrawn.len()), seed)?;
        cases.retain(|case| !self.withdrawn.contains(&case.id));
        cases.truncate(n);
        if let Some(case) = cases.iter().find(|case| self.withdrawn_since.contains(&case.id)) {
            return Err(withdrawn(&case.id).into());
        }
        if cases.is_empty() && n > 0 {
            let hint = "all of its cases were withdrawn; give the file more";
            return Err(TaskError::empty_split(self.name(), split, hint));
        }
        Ok(cases)
    }

    fn demonstration(&self, case: &Case) -> Option<String> {
        self.task.demonstration(case)
    }

    fn bare_answer(&self, case: &Case) -> Option<String> {
        self.task.bare_answer(case)
    }

    fn corpus(&self, index: u64, seed: u64) -> Option<String> {
        self.task.corpus(index, seed)
    }

    fn kept_out(&self, n: usize, seed: u64) -> Result<Vec<String>, TaskError> {
        self.task.kept_out(n, seed)
    }

    fn asked(&self, prompt: &Prompt) -> (String, Prompt) {
        self.task.asked(prompt)
    }

    fn notices(&self) -> Vec<String> {
        self.task.notices()
    }

    fn ungradable(&self, case: &Case) -> Option<String> {
        self.task.ungradable(case)
    }

    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        self.task.grade(case, completion)
    }

    fn game(&self, case: &Case, turns: usize, key: Key) -> Option<Box<dyn Environment>> {
        self.task.game(case, turns, key)
    }

    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError> {
        self.task.rules(arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::countdown::{Countdown, CountdownKeys};

    #[test]
    fn the_rest_moves_up() {
        let task = Countdown::new(CountdownKeys::default()).expect("valid settings");
        let ids = |task: &dyn Task, n| -> Vec<String> {
            task.cases(Split::Train, n, 1).expect("cases").into_iter().map(|case| case.id).collect()
        };
        let all = ids(&task, 6);
        let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        let without = Withheld::new(&task, set(&all[1..3]), BTreeSet::new());
        assert_eq!(ids(&without, 4), [&all[..1], &all[3..]].concat());
        let since = Withheld::new(&task, BTreeSet::new(), set(&all[5..]));
        assert_eq!(ids(&since, 5), all[..5], "what is not asked for does no harm");
        let error = since.cases(Split::Train, 6, 1).expect_err("withdrawn").to_string();
        assert!(error.contains(&all[5]) && error.contains("hint: "), "{error}");
    }
}
