//! What the rest of a recipe knows about a stage: its name, its kind, the models that it uses and what it makes.

use std::collections::BTreeSet;

use super::settings::Settings;

/// The models and the data set that a stage uses, and what it makes. [`crate::stage::Stage::roles`] returns it.
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
    /// The number of held-out cases that the stage measures on, if it chooses it itself.
    pub heldout_cases: Option<usize>,
}

impl Roles {
    /// Roles of a stage that trains `model` and uses no other.
    pub fn trains(model: &str) -> Roles {
        Roles { trains: Some(model.into()), ..Roles::default() }
    }
}

/// What a stage makes besides weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// The tokenizer of all models with random weights.
    Tokenizer {
        /// The size of its vocabulary.
        vocab_size: usize,
    },
    /// Completions that later stages learn from.
    DataSet {
        /// Cases of the training split whose prompts are completed.
        cases: usize,
        /// Completions of each prompt.
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
    /// The models and the data set that it uses, and what it makes.
    pub roles: Roles,
}

impl Outline {
    /// The model that the stage trains, samples from or measures.
    pub fn model(&self) -> Option<&str> {
        self.roles.trains.as_deref().or(self.roles.samples.as_deref()).or(self.roles.measures.as_deref())
    }

    /// The model that it trains.
    pub fn trained(&self) -> Option<&str> {
        self.roles.trains.as_deref()
    }

    /// Whether it leaves a model or a tokenizer in the run's folder.
    pub fn exports(&self) -> bool {
        self.trained().is_some() || self.vocab_size().is_some()
    }

    /// The model whose accuracy its row of the ladder shows.
    pub fn measured(&self) -> Option<&str> {
        self.roles.trains.as_deref().or(self.roles.measures.as_deref())
    }

    /// The teacher that it learns from.
    pub fn teacher(&self) -> Option<&str> {
        self.roles.teacher.as_deref()
    }

    /// The size of the vocabulary, if it makes a tokenizer.
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

/// The stages that the result of stage `index` depends on, that stage included: those that made its weights, its data set and its
/// teacher's weights, and so on back.
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

/// The largest number of held-out cases that any measurement of a recipe uses.
pub fn heldout_cases(settings: &Settings, stages: &[Outline]) -> usize {
    stages.iter().filter_map(|stage| stage.roles.heldout_cases).fold(settings.eval.cases, usize::max)
}
