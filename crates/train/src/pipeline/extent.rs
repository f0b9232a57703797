//! Which stages of a pipeline run: all of them, some of them, or again all from a given stage on.
//!
//! Stages run in the recipe's order, since each may depend on those before it. So `only` can name the next stages, but it cannot skip one.
//! Stages that are done already are left as they are. `from` first takes the run back to the beginning of a stage.

use std::collections::BTreeSet;

use store::{Runs, StageEnd};

use super::heldout::Heldout;
use crate::error::TrainError;
use crate::inputs;
use crate::recipe::resolved::Recipe;
use tasks::refusal::Refusal;
use tasks::withheld::Withheld;
use tasks::{Task, suggest};

/// Which stages to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Run this stage and those after it again, from the weights before it.
    pub from: Option<String>,
    /// Run these stages and no others; empty for all.
    pub only: Vec<String>,
}

impl Extent {
    /// Whether a stage is among those to run.
    pub(super) fn holds(&self, stage: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == stage)
    }

    /// Refuses names that no stage has, and stages with an earlier stage that is neither done nor run; `first` is the first stage that is
    /// not done.
    pub(super) fn check(&self, recipe: &Recipe, first: usize) -> Result<(), TrainError> {
        let names = || recipe.stages.iter().map(|stage| stage.name.as_str());
        for name in self.only.iter().chain(&self.from) {
            if !names().any(|known| known == name) {
                let known: Vec<&str> = names().collect();
                return refuse(format!("there is no stage \"{name}\""), suggest::hint(name, known));
            }
        }
        if self.only.is_empty() {
            return Ok(());
        }
        let begin = self.first(recipe).unwrap_or(first).min(first);
        let mut missing = recipe.stages.iter().skip(begin).skip_while(|stage| self.holds(&stage.name));
        let Some(gap) = missing.next() else { return Ok(()) };
        match missing.find(|stage| self.holds(&stage.name)) {
            None => Ok(()),
            Some(beyond) => refuse(
                format!("\"{}\" comes before \"{}\" and is not done", gap.name, beyond.name),
                format!(
                    "name it too: --only {}",
                    self.only.iter().chain([&gap.name]).cloned().collect::<Vec<_>>().join(" ")
                ),
            ),
        }
    }

    /// The index of the stage that `from` names.
    fn first(&self, recipe: &Recipe) -> Option<usize> {
        recipe.stages.iter().position(|stage| Some(&stage.name) == self.from.as_ref())
    }

    /// Takes the run back to the stage that `from` names, if any. First it checks that the stages can be repeated; a run that is refused
    /// is as it was.
    ///
    /// # Errors
    /// [`TrainError::Refused`], before any work is done, if the stages cannot be run: wrong names, a changed file, a record that was
    /// withdrawn since. Otherwise an error of the store.
    pub fn rewind(&self, recipe: &Recipe, task: &dyn Task, runs: &Runs) -> Result<(), TrainError> {
        let is_new = !runs.names()?.contains(&recipe.settings.name);
        self.check(recipe, if is_new { 0 } else { recipe.stages.len() })?;
        let Some(first) = self.first(recipe) else { return Ok(()) };
        let end = recipe.stages[..first].last().map(|stage| StageEnd { index: first as u64 - 1, stage: &stage.name });
        if first == 0 && is_new {
            return Ok(());
        }
        rehearse(recipe, task, runs, first)?;
        let later = |key: &str| {
            let stage = key.strip_prefix("stages[").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
            let model = key.strip_prefix("models.").and_then(|rest| rest.split('.').next());
            stage.is_some_and(|stage| stage >= first) || model.is_some_and(|model| !needs(recipe, first, model))
        };
        Ok(runs.rewind(&recipe.settings.name, &recipe.resolved(), end, later)?)
    }
}

/// Refuses what would stop the stages from `first` on at their start, before the finished ones are removed.
fn rehearse(recipe: &Recipe, task: &dyn Task, runs: &Runs, first: usize) -> Result<(), TrainError> {
    let run = runs.view(&recipe.settings.name)?;
    if first > 0 {
        inputs::unchanged(recipe, run.ledger())?;
    }
    for stage in recipe.outlines[..first].iter().filter(|stage| stage.exports()) {
        run.exported_model(&stage.name)?;
    }
    let known = BTreeSet::from_iter(run.ledger().withdrawn()?);
    let since: BTreeSet<String> = runs.withdrawn()?.difference(&known).cloned().collect();
    for record in &since {
        let stages = run.ledger().used_by(record)?;
        if recipe.outlines[first..].iter().any(|stage| stages.contains(&stage.name)) {
            return Err(tasks::withdrawn(record).into());
        }
    }
    Heldout::of(&recipe.settings, &Withheld::new(task, known, since)).map(drop)
}

/// Whether a stage before `first` depends on a model's first weights.
fn needs(recipe: &Recipe, first: usize, model: &str) -> bool {
    let before = &recipe.outlines[..first];
    let brings_tokenizer = recipe.settings.models.get(model).is_some_and(|source| source.path().is_some())
        && !before.iter().any(|stage| stage.vocab_size().is_some());
    brings_tokenizer || before.iter().any(|stage| [stage.model(), stage.teacher()].contains(&Some(model)))
}

fn refuse<T>(problem: String, hint: impl Into<String>) -> Result<T, TrainError> {
    Err(Refusal::new(problem, hint).into())
}
