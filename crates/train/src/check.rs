//! What must hold before any work is done: the files exist, there are enough labels, prompts and completions fit.
//!
//! [`check`] runs before a run's folder is made. If all models start from random weights, there is no tokenizer yet. The same checks then
//! run again once there is one, before a model is trained. Errors name the recipe's line and key.
//!
//! Checks of a single stage are in its own [`crate::stage::Stage::check`]. Checks that need the recipe alone are in `recipe/validate.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use lm::FormatError;
use lm::checkpoint::Checkpoint;
use lm::config::{Config, Shape};

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::outline::heldout_cases;
use crate::recipe::resolved::Recipe;
use crate::recipe::settings::Settings;
use crate::stage::Checking;
use tasks::paths::located;
use tasks::refusal::Refusal;
use tasks::{Split, Task, registry};

impl Recipe {
    /// Builds the recipe's task and reads its files.
    ///
    /// # Errors
    /// An unknown task or key, at the recipe's line; a file that cannot be read; a wrong line in a file, with the file's name and line.
    pub fn build_task(&self) -> Result<Box<dyn Task>, TrainError> {
        let settings = &self.settings;
        let task = registry::build(&settings.task, &settings.folder);
        Ok(task.map_err(|refusal| settings.refuse_at("task", refusal))?)
    }
}

/// The opened files of the models that are read from files, and the prompting that these models share.
pub(crate) struct Sources {
    /// Name and files of each model.
    pub checkpoints: Vec<(String, Checkpoint)>,
    /// The shared prompting; none if no model is read from a file.
    pub prompting: Option<Prompting>,
}

impl Sources {
    /// Opens the files. The weights are not read yet.
    ///
    /// # Errors
    /// A path without a model, a model that cannot be read, or models whose tokenizers differ.
    pub(crate) fn open(settings: &Settings) -> Result<Sources, TrainError> {
        let mut sources = Sources { checkpoints: Vec::new(), prompting: None };
        for (name, source) in &settings.models {
            let Some(path) = source.path() else { continue };
            let key = format!("models.{name}.path");
            let path = located(&settings.folder, path);
            if !path.exists() {
                let hint =
                    "give a Hugging Face folder or a .gguf file, from the recipe's folder; `ferule pull` fetches one";
                return Err(settings.refuse(&key, format!("there is nothing at {}", path.display()), hint).into());
            }
            let checkpoint = lm::checkpoint::open(&path)?;
            let ends = checkpoint.generation().eos_token_id.clone();
            let own = Prompting::new(checkpoint.tokenizer()?, checkpoint.template()?, &ends)?;
            if let Some(prompting) = &sources.prompting
                && !prompting.same_vocabulary(&own)
            {
                let problem = format!("its tokenizer is not the one of \"{}\"", sources.checkpoints[0].0);
                let hint =
                    "teacher and student must share one; take both from one family, or train both from random weights";
                return Err(settings.refuse(&key, problem, hint).into());
            }
            sources.prompting.get_or_insert(own);
            sources.checkpoints.push((name.clone(), checkpoint));
        }
        Ok(sources)
    }
}

/// Refuses a recipe that cannot be run, before any work is done.
///
/// # Errors
/// The first check that fails, at its key; or a file that cannot be read.
pub fn check(recipe: &Recipe, task: &dyn Task) -> Result<(), TrainError> {
    let sources = Sources::open(&recipe.settings)?;
    let seed = recipe.settings.seed;
    task.cases(Split::Heldout, 1, seed)?;
    if recipe.settings.eval.unseen_cases > 0 {
        task.cases(Split::HeldoutUnseen, 1, seed)?;
    }
    stages(recipe, task, &configs(recipe, &sources, None)?, sources.prompting.as_ref())
}

/// Checks a recipe again once its tokenizer is trained: whether prompts and completions fit.
///
/// # Errors
/// As [`check`].
pub fn check_lengths(recipe: &Recipe, task: &dyn Task, prompting: &Prompting) -> Result<(), TrainError> {
    let configs = configs(recipe, &Sources::open(&recipe.settings)?, Some(prompting))?;
    stages(recipe, task, &configs, Some(prompting))
}

fn stages(
    recipe: &Recipe,
    task: &dyn Task,
    configs: &BTreeMap<String, Config>,
    prompting: Option<&Prompting>,
) -> Result<(), TrainError> {
    let checking = |index| Checking { place: recipe.place(index), task, configs, prompting };
    for (index, stage) in recipe.stages.iter().enumerate() {
        stage.stage.check(&checking(index))?;
    }
    // Every stage's model is measured on the same held-out cases.
    let settings = &recipe.settings;
    let heldout = checking(0).longest_prompt(Split::Heldout, heldout_cases(settings, &recipe.outlines))?;
    let new = settings.eval.max_new_tokens;
    for model in recipe.outlines.iter().filter_map(|stage| stage.measured()) {
        let limit = configs[model].max_position_embeddings;
        if heldout + new > limit {
            let problem = format!(
                "a held-out prompt of {heldout} tokens and {new} new ones exceed the {limit} positions of \"{model}\""
            );
            let hint = "lower it, or give the model more positions";
            return Err(settings.refuse("eval.max_new_tokens", problem, hint).into());
        }
    }
    Ok(())
}

/// The shape of every model. The vocabulary of models with random weights is the tokenizer's, or the size that the tokenizer stage names
/// while there is no tokenizer.
pub(crate) fn configs(
    recipe: &Recipe,
    sources: &Sources,
    prompting: Option<&Prompting>,
) -> Result<BTreeMap<String, Config>, TrainError> {
    let models = &recipe.settings.models;
    let planned = recipe.outlines.iter().find_map(|stage| stage.vocab_size());
    let known = prompting.or(sources.prompting.as_ref()).map(|prompting| prompting.tokenizer.vocab_size());
    let mut configs: BTreeMap<String, Config> =
        sources.checkpoints.iter().map(|(name, checkpoint)| (name.clone(), checkpoint.config().clone())).collect();
    for (name, source) in models {
        if let Some(shape) = source.shape() {
            configs.insert(name.clone(), shaped(&recipe.settings, name, shape, known.or(planned))?);
        }
    }
    // A copy may be of a stage that trains another copy. As many passes as there are models resolve every chain of copies.
    for _ in 0..models.len() {
        for (name, source) in models {
            let Some(from) = source.copied_from() else { continue };
            let maker = recipe.outlines.iter().find(|stage| stage.name == from).and_then(|stage| stage.trained());
            if let Some(config) = maker.and_then(|maker| configs.get(maker)).cloned() {
                configs.insert(name.clone(), config);
            }
        }
    }
    Ok(configs)
}

fn shaped(settings: &Settings, name: &str, shape: &Shape, vocabulary: Option<usize>) -> Result<Config, Refusal> {
    Config::from_shape(shape, vocabulary, Path::new(&settings.name)).map_err(|error| match error {
        FormatError::Config { field, problem, hint, .. } => {
            settings.refuse(&format!("models.{name}.{field}"), problem, hint)
        }
        error => settings.refuse(&format!("models.{name}"), error.to_string(), "see the names of a config.json"),
    })
}
