//! A stage's place in its recipe: what the stage knows about the rest of the recipe, and where its refusals point.

use crate::recipe::outline::Outline;
use crate::recipe::settings::Settings;
use tasks::refusal::Refusal;

/// The most completions of one step: a step's completions are in memory together.
const MOST_COMPLETIONS: usize = 1 << 20;

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

    /// Refuses a step of more completions than [`MOST_COMPLETIONS`].
    pub fn completions(&self, prompts_per_step: usize, completions_per_prompt: usize) -> Result<(), Refusal> {
        let all = prompts_per_step * completions_per_prompt;
        if all <= MOST_COMPLETIONS {
            return Ok(());
        }
        let problem =
            format!("{prompts_per_step} prompts of {completions_per_prompt} completions each are {all} in a step");
        let hint = format!("a step takes at most {MOST_COMPLETIONS} completions");
        Err(self.refuse("completions_per_prompt", problem, hint))
    }

    /// A refusal that points to a key of the stage.
    pub fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.settings.refuse(&format!("stages[{}].{key}", self.index), problem, hint)
    }
}
