//! What the rest of a recipe may know of a stage: its name, its kind, which models it touches and what it makes.

use std::collections::BTreeSet;

use super::settings::Settings;

/// The part that models, data sets and other stages play in a stage. [`crate::stage::Stage::roles`] states it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roles {
    /// The model whose weights the stage changes.
    pub trains: Option<String>,
    /// The model that the stage samples from without changing it.
    pub samples: Option<String>,
    /// The model that the stage only measures.
    pub measures: Option<String>,
    /// The teacher that the stage learns from.
    pub teacher: Option<String>,
    /// The stage whose data set this one learns from.
    pub data: Option<String>,
    /// What the stage makes besides weights.
    pub makes: Option<Made>,
    /// Held-out cases that the stage measures on, where it chooses them itself.
    pub heldout_cases: Option<usize>,
}

impl Roles {
    /// Roles of a stage that trains `model` and reads no other.
    pub fn trains(model: &str) -> Roles {
        Roles { trains: Some(model.into()), ..Roles::default() }
    }
}

/// What a stage makes besides weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// The tokenizer of all models with random weights.
    Tokenizer {
        /// Its tokens.
        vocab_size: usize,
    },
    /// Completions that later stages learn from.
    DataSet {
        /// Cases of the training split that were asked.
        cases: usize,
        /// Completions of each.
        samples: usize,
        /// Longest completion, in tokens.
        max_new_tokens: usize,
    },
}

/// A stage as the rest of the recipe sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The stage's name, unique in the recipe.
    pub name: String,
    /// Its kind, such as `sft`.
    pub kind: &'static str,
    /// Models, data and products.
    pub roles: Roles,
}

impl Outline {
    /// The model that the stage trains, samples from or measures.
    pub fn model(&self) -> Option<&str> {
        self.roles.trains.as_deref().or(self.roles.samples.as_deref()).or(self.roles.measures.as_deref())
    }

    /// The model whose weights it changes.
    pub fn trained(&self) -> Option<&str> {
        self.roles.trains.as_deref()
    }

    /// The model whose accuracy its row of the ladder shows.
    pub fn measured(&self) -> Option<&str> {
        self.roles.trains.as_deref().or(self.roles.measures.as_deref())
    }

    /// The teacher that it learns from.
    pub fn teacher(&self) -> Option<&str> {
        self.roles.teacher.as_deref()
    }

    /// The size of the vocabulary that it makes, if it makes one.
    pub fn vocab_size(&self) -> Option<usize> {
        match self.roles.makes {
            Some(Made::Tokenizer { vocab_size }) => Some(vocab_size),
            _ => None,
        }
    }

    /// Whether it makes a data set.
    pub fn makes_data(&self) -> bool {
        matches!(self.roles.makes, Some(Made::DataSet { .. }))
    }
}

/// The stages that what stage `index` makes rests on, itself among them: those that made its weights, its data set, and its teachers.
pub fn behind<'a>(settings: &Settings, stages: &'a [Outline], index: usize) -> BTreeSet<&'a str> {
    let mut behind = BTreeSet::new();
    let mut open = vec![index];
    while let Some(index) = open.pop() {
        let stage = &stages[index];
        if !behind.insert(stage.name.as_str()) {
            continue;
        }
        let before = &stages[..index];
        let named = |name: &str| before.iter().position(|stage| stage.name == name);
        let made = |model: &str| {
            let trained = before.iter().rposition(|stage| stage.trained() == Some(model));
            trained.or_else(|| named(settings.models.get(model)?.copied_from()?))
        };
        open.extend([stage.model(), stage.teacher()].into_iter().flatten().filter_map(made));
        open.extend(stage.roles.data.as_deref().and_then(named));
    }
    behind
}

/// Held-out cases that any of a recipe's measurements may ask for.
pub fn heldout_cases(settings: &Settings, stages: &[Outline]) -> usize {
    stages.iter().filter_map(|stage| stage.roles.heldout_cases).fold(settings.eval.cases, usize::max)
}
