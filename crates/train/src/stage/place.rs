//! A stage's place in its recipe: what the stage knows about the rest of the recipe, and where its refusals point.

use crate::recipe::outline::Outline;
use crate::recipe::settings::Settings;
use tasks::refusal::Refusal;

/// A stage's place. It is made from the recipe alone; no other file has been opened.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The recipe without its stages.
    pub settings: &'a Settings,
    /// Every stage, in order.
    pub stages: &'a [Outline],
    /// Index of the stage itself.
    pub index: usize,
}

impl<'a> Place<'a> {
    /// The stage itself.
    pub fn own(&self) -> &'a Outline {
        &self.stages[self.index]
    }

    /// The stages that run before it.
    pub fn before(&self) -> &'a [Outline] {
        &self.stages[..self.index]
    }

    /// The stage with a name.
    pub fn stage(&self, name: &str) -> Option<&'a Outline> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// A refusal that points to a key of the stage.
    pub fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.settings.refuse(&format!("stages[{}].{key}", self.index), problem, hint)
    }
}
