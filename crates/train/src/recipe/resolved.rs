//! A recipe as it was read: settings and stages, every default filled in.

use serde::Serialize;

use super::outline::Outline;
use super::settings::Settings;
use crate::stage::{AnyStage, Place};

/// A resolved recipe.
#[derive(Clone, Serialize)]
pub struct Recipe {
    /// Everything but the stages.
    #[serde(flatten)]
    pub settings: Settings,
    /// The stages in order.
    pub stages: Vec<RecipeStage>,
    /// The stages as the rest of the recipe sees them, in the same order.
    #[serde(skip)]
    pub outlines: Vec<Outline>,
}

/// One stage: its name, unique in the recipe, and its keys.
#[derive(Clone, Serialize)]
pub struct RecipeStage {
    /// Its name; by default the kind and the model, as in `sft-teacher`.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its keys and its algorithm.
    #[serde(flatten)]
    pub stage: Box<dyn AnyStage>,
}

impl RecipeStage {
    /// A stage under a name.
    pub fn new(name: impl Into<String>, stage: Box<dyn AnyStage>) -> RecipeStage {
        RecipeStage { name: name.into(), kind: stage.kind(), stage }
    }

    /// The stage as the rest of the recipe sees it.
    pub fn outline(&self) -> Outline {
        Outline { name: self.name.clone(), kind: self.kind, roles: self.stage.roles() }
    }
}

impl Recipe {
    /// A recipe of these stages, not validated. [`Recipe::read`] reads one from a file and validates it.
    pub fn new(settings: Settings, stages: Vec<RecipeStage>) -> Recipe {
        let outlines = stages.iter().map(RecipeStage::outline).collect();
        Recipe { settings, stages, outlines }
    }

    /// The place of stage `index`.
    pub fn place(&self, index: usize) -> Place<'_> {
        Place { settings: &self.settings, stages: &self.outlines, index }
    }

    /// The first stage of type `S`.
    pub fn find<S: 'static>(&self) -> Option<&S> {
        self.stages.iter().find_map(|stage| stage.stage.as_any().downcast_ref())
    }

    /// The recipe as TOML, every default written out.
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe is representable in TOML")
    }
}
