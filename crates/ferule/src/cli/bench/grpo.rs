//! Measures a whole step of reinforcement learning (sample, grade, train) with the code of a `grpo` stage.
//!
//! The task is as cheap as possible, so that only the step's own work is timed: random words, a tokenizer with a token for each, and a rule that
//! counts. Every completion has its full length. The files of the run are written as always, to a temporary folder. Nothing is validated, and no
//! checkpoint is written during the timed steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::Arena;
use lm::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Runs;
use tasks::rewards::{Evidence, Reads, Rule, RuleSet, Verdict};
use tasks::{Case, Completion, Grade, Prompt, Split, Task, TaskError};
use train::prompting::Prompting;
use train::recipe::{EvalSettings, Recipe, RecipeStage, Settings, Source};
use train::stage::Stage;
use train::stages::grpo::Grpo;
use train::trainer::{Meters, Observer, StepView, Trainer};

use super::arguments::Arguments;
use super::timing::median;
use crate::cli::machine;

const PROMPTS: usize = 16;
const GROUP: usize = 8;
const PROMPT_TOKENS: usize = 32;
const NEW_TOKENS: usize = 64;

/// The speed of a step; the field names are a contract with scripts.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub dtype: String,
    /// Prompts of a step.
    pub prompts: usize,
    /// Completions of each prompt.
    pub group: usize,
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Median of the rounds, after a step that is not counted.
    pub seconds_per_step: f64,
    /// The process's peak resident memory; none if the system does not report it.
    pub peak_bytes: Option<u64>,
}

/// Measures in a separate process, so that the peak of memory is that of this measurement alone.
///
/// # Errors
/// The errors of that process.
pub fn measure_apart(arguments: &Arguments, dtype: &str) -> anyhow::Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--json", "--only", "grpo", "--dtype", dtype, "--rounds", &arguments.rounds.to_string()]);
    if let Some(threads) = arguments.compute.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    for (name, path) in [("--model", &arguments.model), ("--shape", &arguments.shape)] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    let done = command.stderr(Stdio::inherit()).output().context("starting a process to measure grpo in")?;
    anyhow::ensure!(done.status.success(), "the process that measured grpo in {dtype} ended with {}", done.status);
    #[derive(Deserialize)]
    struct Measured {
        grpo: [Row; 1],
    }
    let Measured { grpo: [row] } = serde_json::from_slice(&done.stdout)?;
    Ok(row)
}

/// Runs a stage of `rounds` + 1 steps on the weights and returns the median of all but the first.
///
/// # Errors
/// A temporary folder that cannot be written, weights whose context is too short, and the errors of the stage.
pub fn measure<T: Real>(queue: &Queue, weights: Arena, rounds: usize) -> anyhow::Result<Row> {
    machine::forget_peak();
    let folder = tempfile::tempdir().context("a folder for the run that is measured")?;
    let vocabulary = weights.config().vocab_size;
    // The only end token is outside the vocabulary, so no completion ends early.
    let prompting = Prompting::new(word_tokenizer(folder.path(), vocabulary)?, None, &[vocabulary as u32])?;
    let stage = stage(rounds as u64 + 1)?;
    let recipe = recipe(stage.clone(), T::DTYPE.name());
    let run = Runs::open(folder.path()).create_or_resume("bench", &recipe.resolved())?;
    let mut clock = Clock::default();
    let mut trainer = Trainer {
        queue,
        settings: &recipe.settings,
        stages: &recipe.outlines,
        heldout: &[],
        run: &run,
        task: &Words { vocabulary },
        prompting: Some(Arc::new(prompting)),
        index: 0,
        stage: "grpo",
        key: Key::new(recipe.settings.seed).word("bench"),
        meters: Meters::default(),
        cursor: 0,
        models: &mut BTreeMap::from([("policy".to_string(), weights)]),
        observer: &mut clock,
        stop: &AtomicBool::new(false),
        resume: None,
    };
    stage.run::<T>(&mut trainer)?;
    Ok(Row {
        dtype: T::DTYPE.name().to_string(),
        prompts: PROMPTS,
        group: GROUP,
        prompt_tokens: PROMPT_TOKENS,
        new_tokens: NEW_TOKENS,
        seconds_per_step: median(clock.seconds.split_off(1)),
        peak_bytes: machine::peak_resident_bytes(),
    })
}

/// The stage as a recipe would write it; all other keys have their defaults.
fn stage(steps: u64) -> anyhow::Result<Grpo> {
    let keys = json!({
        "model": "policy", "steps": steps, "prompts_per_step": PROMPTS, "completions_per_prompt": GROUP,
        "max_new_tokens": NEW_TOKENS, "tokens_per_micro_batch": 2048, "validate_every_steps": 0, "watched_prompts": 0, "checkpoint_every_steps": steps, "learning_rate": 1e-5,
    });
    Ok(serde_json::from_value(keys)?)
}

fn recipe(stage: Grpo, dtype: &str) -> Recipe {
    let settings = Settings {
        name: "bench".into(),
        seed: 1,
        dtype: dtype.into(),
        cost_per_hour: 0.0,
        task: toml::Table::new(),
        models: BTreeMap::new(),
        eval: EvalSettings::default(),
        folder: ".".into(),
        source: Source::default(),
    };
    Recipe::new(settings, vec![RecipeStage::new("grpo", Box::new(stage))])
}

/// A tokenizer whose token `n` is the word `wn`.
fn word_tokenizer(folder: &Path, vocabulary: usize) -> anyhow::Result<Tokenizer> {
    let words: serde_json::Map<String, serde_json::Value> = (0..vocabulary).map(|n| (word(n), n.into())).collect();
    let pipeline = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": words, "unk_token": word(0) },
    });
    std::fs::write(folder.join("tokenizer.json"), pipeline.to_string())?;
    Ok(Tokenizer::open_folder(folder)?)
}

fn word(n: usize) -> String {
    format!("w{n}")
}

/// Prompts of random words.
struct Words {
    vocabulary: usize,
}

impl Task for Words {
    fn name(&self) -> &str {
        "words"
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let case = |index: usize| {
            let mut draws = Key::new(seed).word(split.name()).number(index as u64).stream();
            let words: Vec<String> =
                (0..PROMPT_TOKENS).map(|_| word((draws.bits() % self.vocabulary as u64) as usize)).collect();
            let (id, prompt) = (index.to_string(), Prompt::Text(words.join(" ")));
            Case { id, prompt, answer: None, record: serde_json::Value::Null }
        };
        Ok((0..n).map(case).collect())
    }

    fn demonstration(&self, _: &Case) -> Option<String> {
        None
    }

    fn bare_answer(&self, _: &Case) -> Option<String> {
        None
    }

    fn corpus(&self, _: u64, _: u64) -> Option<String> {
        None
    }

    fn grade(&self, _: &Case, completion: &Completion) -> Grade {
        let correct = share_of_even_words(completion.text) > 0.5;
        Grade { correct, parts: BTreeMap::new(), reason: String::new(), answer_key: None }
    }

    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        Ok(RuleSet::new().with(Arc::new(EvenWords), 1.0))
    }
}

/// The share of words with an even number. It differs between completions, so that every group is informative.
struct EvenWords;

impl Rule for EvenWords {
    fn name(&self) -> &str {
        "even_words"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        Verdict::score(share_of_even_words(evidence.completion.text), "the share of even words")
    }
}

fn share_of_even_words(text: &str) -> f64 {
    let even = text.split(' ').filter(|word| word.ends_with(['0', '2', '4', '6', '8'])).count();
    even as f64 / text.split(' ').count() as f64
}

/// The time at which each step was done.
#[derive(Default)]
struct Clock {
    seconds: Vec<f64>,
}

impl Observer for Clock {
    fn stage(&mut self, _: &str, _: u64) {}
    fn step(&mut self, view: &StepView) {
        self.seconds.push(view.seconds);
    }
    fn notice(&mut self, _: &str) {}
    fn finished(&mut self, _: &store::StageRow) {}
}
