//! What must hold before any work: the files are there, the labels exist, prompts and completions fit.
//!
//! [`check`] is called before a run's folder is made. Where models start from random weights there is no tokenizer yet, so [`lengths`] is asked again
//! when there is one, before anything is trained. Errors name the recipe's line and key.
//!
//! Read next: `recipe/sense.rs`, for what can be told from the recipe alone.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::rng::Key;
use lm::FormatError;
use lm::checkpoint::Checkpoint;
use lm::config::{Config, Shape};

use crate::episodes::REPLY_TOKENS;
use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::{ModelSource, Recipe, RecipeError, StageKind};
use crate::rules::Rules;
use crate::stages::distill::Distill;
use crate::stages::sft::Sft;
use tasks::paths::located;
use tasks::{Case, Split, Task, TaskError, first_written, registry};

impl Recipe {
    /// The recipe's task, its files read.
    ///
    /// # Errors
    /// A task or a key that there is not, with the recipe's line; a file that cannot be read; a bad line in it, by the file's name and line.
    pub fn build_task(&self) -> Result<Box<dyn Task>, TrainError> {
        registry::build(&self.task, &self.folder).map_err(|error| match error {
            TaskError::Setting { field, message, hint, .. } => {
                self.wrong(&format!("task.{field}"), message, hint).into()
            }
            TaskError::Read { path, source, hint } => {
                let key = ["path", "files", "dictionary"].into_iter().find(|key| self.task.contains_key(*key));
                let key = key.map_or("task".to_string(), |key| format!("task.{key}"));
                self.wrong(&key, format!("{}: {source}", path.display()), hint).into()
            }
            error => error.into(),
        })
    }
}

/// The models that come from files, opened, and the prompting that they share.
pub(crate) struct Sources {
    /// Name and files of each.
    pub checkpoints: Vec<(String, Checkpoint)>,
    /// None where no model comes from a file.
    pub prompting: Option<Prompting>,
}

impl Sources {
    /// Opens them; weights are not read yet.
    ///
    /// # Errors
    /// A path without a model, a model that cannot be read, tokenizers that differ.
    pub(crate) fn open(recipe: &Recipe) -> Result<Sources, TrainError> {
        let mut sources = Sources { checkpoints: Vec::new(), prompting: None };
        for (name, source) in &recipe.models {
            let ModelSource::Path { path } = source else { continue };
            let key = format!("models.{name}.path");
            let path = located(&recipe.folder, path);
            if !path.exists() {
                let hint =
                    "give a Hugging Face folder or a .gguf file, from the recipe's folder; `ferule pull` fetches one";
                return Err(recipe.wrong(&key, format!("there is nothing at {}", path.display()), hint).into());
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
                return Err(recipe.wrong(&key, problem, hint).into());
            }
            sources.prompting.get_or_insert(own);
            sources.checkpoints.push((name.clone(), checkpoint));
        }
        Ok(sources)
    }
}

/// Refuses what cannot be done, before anything is.
///
/// # Errors
/// See the module.
pub fn check(recipe: &Recipe, task: &dyn Task) -> Result<(), TrainError> {
    let sources = Sources::open(recipe)?;
    let configs = configs(recipe, &sources, None)?;
    let cases = |split, n| task.cases(split, n, recipe.seed);
    cases(Split::Heldout, 1)?;
    if recipe.eval.unseen_cases > 0 {
        cases(Split::HeldoutUnseen, 1)?;
    }
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = Place { recipe, task, index };
        match &stage.kind {
            StageKind::Tokenizer(_) => {}
            StageKind::Pretrain(keys) => {
                place.context(&configs[&keys.model], "context", keys.context)?;
                place.micro_batch(keys.optimisation.tokens_per_micro_batch, keys.context)?;
                let texts = keys.texts.located(&recipe.folder);
                if let Some(missing) = texts.iter().find(|path| !path.exists()) {
                    let problem = format!("there is nothing at {}", missing.display());
                    return place.wrong("texts", problem, "give files or folders of text, from the recipe's folder");
                }
                if texts.is_empty() && task.corpus(0, recipe.seed).is_none() {
                    let hint = "give the stage `texts`, files or folders to pretrain on";
                    return place.wrong("kind", "the task has no text to pretrain on", hint);
                }
            }
            StageKind::Sft(keys) => place.labels(keys)?,
            StageKind::Grpo(keys) => {
                match keys.turns {
                    1 => place.rules(&keys.rules, keys.cases)?,
                    turns => {
                        let first = cases(Split::Train, 1)?;
                        if first.first().is_none_or(|case| task.game(case, turns, Key::new(0)).is_none()) {
                            let problem = format!("the task \"{}\" has no games", task.name());
                            return place.wrong(
                                "turns",
                                problem,
                                "idiom_chain has; leave it out for one completion a case",
                            );
                        }
                    }
                }
                if keys.validate_every_steps > 0 && keys.validation_cases > 0 {
                    cases(Split::Validation, 1)?;
                }
            }
            StageKind::Sample(keys) => {
                cases(Split::Train, 1)?;
                if keys.min_reward.is_some() {
                    place.rules(&keys.rules, keys.cases)?;
                }
            }
            StageKind::Distill(keys) => place.layers(keys, &configs)?,
            StageKind::Eval(_) => {}
            StageKind::Dialogue(keys) => {
                cases(Split::Train, 1)?;
                if keys.validate_every_steps > 0 && keys.validation_cases > 0 {
                    cases(Split::Validation, 1)?;
                }
            }
        }
    }
    fits(recipe, task, &configs, sources.prompting.as_ref())
}

/// Refuses prompts and completions that do not fit, now that the tokenizer is known.
///
/// # Errors
/// See the module.
pub fn lengths(recipe: &Recipe, task: &dyn Task, prompting: &Prompting) -> Result<(), TrainError> {
    let configs = configs(recipe, &Sources::open(recipe)?, Some(prompting))?;
    fits(recipe, task, &configs, Some(prompting))
}

/// The shape of every model; of random ones by the tokenizer's vocabulary, or that which its stage asks for.
pub(crate) fn configs(
    recipe: &Recipe,
    sources: &Sources,
    prompting: Option<&Prompting>,
) -> Result<BTreeMap<String, Config>, TrainError> {
    let asked = recipe.stages.iter().find_map(|stage| match &stage.kind {
        StageKind::Tokenizer(keys) => Some(keys.vocab_size),
        _ => None,
    });
    let known = prompting.or(sources.prompting.as_ref()).map(|prompting| prompting.tokenizer.vocab_size());
    let mut configs: BTreeMap<String, Config> =
        sources.checkpoints.iter().map(|(name, checkpoint)| (name.clone(), checkpoint.config().clone())).collect();
    for (name, source) in &recipe.models {
        if let ModelSource::Random(shape) = source {
            configs.insert(name.clone(), shaped(recipe, name, shape, known.or(asked))?);
        }
    }
    // A copy may be of a stage that trains a copy: as many passes as there are models reach all.
    for _ in 0..recipe.models.len() {
        for (name, source) in &recipe.models {
            let ModelSource::Stage { from } = source else { continue };
            let maker = recipe.stages.iter().find(|stage| stage.name == *from).and_then(|stage| stage.kind.trained());
            if let Some(config) = maker.and_then(|maker| configs.get(maker)).cloned() {
                configs.insert(name.clone(), config);
            }
        }
    }
    Ok(configs)
}

fn shaped(recipe: &Recipe, name: &str, shape: &Shape, vocabulary: Option<usize>) -> Result<Config, RecipeError> {
    Config::from_shape(shape, vocabulary, Path::new(&recipe.name)).map_err(|error| match error {
        FormatError::Config { field, problem, hint, .. } => {
            recipe.wrong(&format!("models.{name}.{field}"), problem, hint)
        }
        error => recipe.wrong(&format!("models.{name}"), error.to_string(), "see the names of a config.json"),
    })
}

/// A stage's place, where something may be wrong.
struct Place<'a> {
    recipe: &'a Recipe,
    task: &'a dyn Task,
    index: usize,
}

impl Place<'_> {
    fn wrong<T>(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Result<T, TrainError> {
        Err(self.recipe.wrong(&format!("stages[{}].{key}", self.index), problem, hint).into())
    }

    fn labels(&self, keys: &Sft) -> Result<(), TrainError> {
        let there = written(self.task, keys, self.recipe.seed)?.len();
        if there == keys.demonstrations {
            return Ok(());
        }
        let what = if keys.bare_answers { "known answers" } else { "demonstrations" };
        let problem = format!("{} {what} asked for, and the training split has {there}", keys.demonstrations);
        self.wrong("demonstrations", problem, format!("ask for at most {there}, or give more cases one"))
    }

    fn rules(&self, rules: &Rules, cases: usize) -> Result<(), TrainError> {
        let set = match rules.build(self.task, &self.recipe.folder) {
            Ok(set) => set,
            Err(error) => {
                let text = error.to_string();
                let mut lines = text.lines().filter_map(|line| line.strip_prefix("hint: "));
                let hint = lines.next().unwrap_or("see the rules in the README");
                let problem = text.split("\nhint: ").next().unwrap_or(&text);
                // Rules that stand in the task's own table are wrong there.
                let own = matches!(rules, Rules::Arm(_)) && self.recipe.task.contains_key("rules");
                let problem = problem.strip_prefix("jsonl: rules: ").filter(|_| own).unwrap_or(problem);
                let key = if own { "task.rules".to_string() } else { format!("stages[{}].rules", self.index) };
                return Err(self.recipe.wrong(&key, problem.trim_start_matches("rules: "), hint).into());
            }
        };
        let cases = self.task.cases(Split::Train, cases, self.recipe.seed)?;
        if set.reads_answers() && cases.iter().all(|case| case.answer.is_none()) {
            let hint = "give the cases an `answer`, or use rules that read the prompt alone";
            return self.wrong("rules", "they read the known answer, and no training case has one", hint);
        }
        Ok(())
    }

    fn layers(&self, keys: &Distill, configs: &BTreeMap<String, Config>) -> Result<(), TrainError> {
        let teacher = keys.teacher.as_ref().map(|teacher| ("teacher_layer", keys.teacher_layer, teacher));
        for (key, layer, model) in [("student_layer", keys.student_layer, &keys.model)].into_iter().chain(teacher) {
            let last = configs[model].num_hidden_layers;
            if layer.is_some_and(|layer| !(1..=last).contains(&layer)) {
                let problem = format!("\"{model}\" has {last} layers");
                return self.wrong(key, problem, format!("choose from 1 to {last}"));
            }
        }
        Ok(())
    }

    fn context(&self, config: &Config, key: &str, tokens: usize) -> Result<(), TrainError> {
        let limit = config.max_position_embeddings;
        if tokens <= limit {
            return Ok(());
        }
        let hint = format!("set it to at most {limit}, or give the model more `max_position_embeddings`");
        self.wrong(key, format!("{tokens} tokens in a model of {limit} positions"), hint)
    }

    fn micro_batch(&self, tokens_per_micro_batch: usize, longest: usize) -> Result<(), TrainError> {
        if tokens_per_micro_batch >= longest {
            return Ok(());
        }
        let problem = format!("{tokens_per_micro_batch} tokens do not hold one sequence of up to {longest}");
        self.wrong("tokens_per_micro_batch", problem, format!("set it to {longest} or more"))
    }

    /// Prompt and completion in each of the models, and in a micro-batch where they are trained.
    fn fits(
        &self,
        configs: &[&Config],
        prompt: usize,
        max_new_tokens: usize,
        micro_batch: Option<usize>,
    ) -> Result<(), TrainError> {
        for config in configs {
            let limit = config.max_position_embeddings;
            if prompt + max_new_tokens > limit {
                let problem = match prompt {
                    0 => format!("{max_new_tokens} new tokens after any prompt exceed the model's {limit} positions"),
                    _ => format!(
                        "a prompt of {prompt} tokens and {max_new_tokens} new ones exceed the model's {limit} positions"
                    ),
                };
                return self.wrong(
                    "max_new_tokens",
                    problem,
                    "lower it, shorten the prompts, or give the model more positions",
                );
            }
        }
        micro_batch.map_or(Ok(()), |tokens| self.micro_batch(tokens, prompt + max_new_tokens))
    }
}

/// What fine-tuning will read: at most as many as it asks for.
fn written(task: &dyn Task, keys: &Sft, seed: u64) -> Result<Vec<(Case, String)>, TaskError> {
    let text = |case: &Case| if keys.bare_answers { task.bare_answer(case) } else { task.demonstration(case) };
    first_written(task, keys.demonstrations, seed, text)
}

/// Whether everything fits: exactly where a prompting is known, otherwise as far as sizes alone tell.
fn fits(
    recipe: &Recipe,
    task: &dyn Task,
    configs: &BTreeMap<String, Config>,
    prompting: Option<&Prompting>,
) -> Result<(), TrainError> {
    let longest = |split, n| -> Result<usize, TrainError> {
        let Some(prompting) = prompting else { return Ok(0) };
        let mut longest = 0;
        for case in task.cases(split, n, recipe.seed)? {
            longest = longest.max(prompting.prompt(&case.prompt)?.len());
        }
        Ok(longest)
    };
    let heldout = longest(Split::Heldout, recipe.heldout_cases())?;
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = Place { recipe, task, index };
        if let Some(config) = stage.kind.measured().map(|model| &configs[model])
            && heldout + recipe.eval.max_new_tokens > config.max_position_embeddings
        {
            let limit = config.max_position_embeddings;
            let new = recipe.eval.max_new_tokens;
            let problem = format!(
                "a held-out prompt of {heldout} tokens and {new} new ones exceed the {limit} positions of \"{}\"",
                stage.kind.model().unwrap_or("")
            );
            return Err(recipe
                .wrong("eval.max_new_tokens", problem, "lower it, or give the model more positions")
                .into());
        }
        match &stage.kind {
            StageKind::Grpo(keys) => {
                let prompt = longest(Split::Train, keys.cases)?;
                let micro_batch = keys.optimisation.tokens_per_micro_batch;
                let whole = keys.turns * keys.max_new_tokens + (keys.turns - 1) * REPLY_TOKENS;
                place.fits(&[&configs[&keys.model]], prompt, whole, Some(micro_batch))?;
            }
            StageKind::Sample(keys) => {
                let models: Vec<&Config> = [Some(&keys.model), keys.teacher.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|model| &configs[model])
                    .collect();
                place.fits(&models, longest(Split::Train, keys.cases)?, keys.max_new_tokens, None)?;
            }
            StageKind::Dialogue(keys) => {
                let prompt = longest(Split::Train, keys.cases)?;
                let micro_batch = keys.optimisation.tokens_per_micro_batch;
                let models = [&configs[&keys.model], &configs[&keys.teacher]];
                place.fits(&models, prompt, keys.max_new_tokens, Some(micro_batch))?;
            }
            StageKind::Sft(keys) => {
                let Some(prompting) = prompting else { continue };
                let mut longest = 0;
                for (case, text) in written(task, keys, recipe.seed)? {
                    longest = longest.max(prompting.prompt(&case.prompt)?.len() + prompting.completion(&text).len());
                }
                place.context(&configs[&keys.model], "demonstrations", longest)?;
                place.micro_batch(keys.optimisation.tokens_per_micro_batch, longest)?;
            }
            StageKind::Tokenizer(_) | StageKind::Pretrain(_) | StageKind::Distill(_) | StageKind::Eval(_) => {}
        }
    }
    Ok(())
}
