//! A recipe: one TOML file that describes the whole pipeline.
//!
//! It names a task, models and an ordered list of stages; each stage's keys are the fields of the struct beside its code in
//! [`crate::stages`]. Reading is in `read.rs`: unknown keys are refused with a suggestion, defaults stand in the structs
//! and nowhere else, and the resolved recipe, every default written out, lies beside every run.
//!
//! Read next: `recipes/judgment.toml` in the repository, then [`crate::pipeline`], which runs it.

mod foreign_names;
mod read;
mod source;
mod starter;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lm::config::Shape;
use lm::lora::LoraConfig;
use lm::optimizer::Hyperparameters;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;
use crate::stages::dialogue::Dialogue;
use crate::stages::distill::Distill;
use crate::stages::eval::Eval;
use crate::stages::grpo::Grpo;
use crate::stages::pretrain::Pretrain;
use crate::stages::sample::Sample;
use crate::stages::sft::Sft;
use crate::stages::tokenizer::TokenizerStage;

pub use read::{RecipeError, StageFields};
pub use source::Source;
pub use starter::starter;

/// A resolved recipe.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// The run's name; the file's by default.
    pub name: String,
    /// Every random number follows from it.
    pub seed: u64,
    /// `f32` or `bf16`: what products are computed in.
    pub dtype: String,
    /// What an hour of this machine costs, in the user's currency; 0 leaves the ladder's cost empty.
    pub cost_per_hour: f64,
    /// The task, and its own keys.
    pub task: toml::Table,
    /// The models by name.
    pub models: BTreeMap<String, ModelSource>,
    /// How the ladder's accuracies are measured.
    pub eval: EvalSettings,
    /// What is done, in order.
    pub stages: Vec<Stage>,
    /// The recipe's folder: relative paths start here.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The file as it was read, so that later messages can name the line.
    #[serde(skip)]
    pub source: Source,
}

/// Where a model's first weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelSource {
    /// A Hugging Face folder or a GGUF file.
    Path {
        /// The folder or file.
        path: PathBuf,
    },
    /// A copy of what a stage made, so that several pipelines may start from one model.
    Stage {
        /// The stage's name.
        from: String,
    },
    /// Random weights of a shape.
    Random(Shape),
}

/// How the ladder's accuracies are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSettings {
    /// Held-out cases behind every row of the ladder.
    pub cases: usize,
    /// Cases with unseen wordings and ranges, reported beside.
    pub unseen_cases: usize,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Demonstrations that the cheap baselines may learn from.
    pub baseline_demonstrations: usize,
    /// Examples in the prompt of the base model, a baseline too; 0 to leave it out.
    pub few_shot_examples: usize,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self { cases: 500, unseen_cases: 0, max_new_tokens: 64, baseline_demonstrations: 200, few_shot_examples: 4 }
    }
}

/// One stage: its name, unique in the recipe, and what it does.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// By default the kind and the model, as in `sft-teacher`.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub kind: StageKind,
}

/// What a stage does.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageKind {
    /// Trains the tokenizer of models with random weights.
    Tokenizer(TokenizerStage),
    /// Cross-entropy on the task's corpus, or on text.
    Pretrain(Pretrain),
    /// Cross-entropy on a few demonstrations.
    Sft(Sft),
    /// Reinforcement learning by rules.
    Grpo(Grpo),
    /// A teacher's completions, kept as a data set.
    Sample(Sample),
    /// Learning from such a data set: hard labels, soft labels, or both.
    Distill(Distill),
    /// The student speaks, the teacher judges every token.
    Dialogue(Dialogue),
    /// A measurement alone.
    Eval(Eval),
}

impl StageKind {
    /// The word that a recipe uses.
    pub fn name(&self) -> &'static str {
        match self {
            StageKind::Tokenizer(_) => "tokenizer",
            StageKind::Pretrain(_) => "pretrain",
            StageKind::Sft(_) => "sft",
            StageKind::Grpo(_) => "grpo",
            StageKind::Sample(_) => "sample",
            StageKind::Distill(_) => "distill",
            StageKind::Dialogue(_) => "dialogue",
            StageKind::Eval(_) => "eval",
        }
    }

    /// The model that the stage trains, samples from or measures.
    pub fn model(&self) -> Option<&str> {
        match self {
            StageKind::Tokenizer(_) => None,
            StageKind::Pretrain(stage) => Some(&stage.model),
            StageKind::Sft(stage) => Some(&stage.model),
            StageKind::Grpo(stage) => Some(&stage.model),
            StageKind::Sample(stage) => Some(&stage.model),
            StageKind::Distill(stage) => Some(&stage.model),
            StageKind::Dialogue(stage) => Some(&stage.model),
            StageKind::Eval(stage) => Some(&stage.model),
        }
    }

    /// The model whose weights the stage changes; none for those that only make a tokenizer or a data set, or measure.
    pub fn trained(&self) -> Option<&str> {
        match self {
            StageKind::Tokenizer(_) | StageKind::Sample(_) | StageKind::Eval(_) => None,
            kind => kind.model(),
        }
    }

    /// The model whose accuracy its row shows.
    pub fn measured(&self) -> Option<&str> {
        match self {
            StageKind::Eval(stage) => Some(&stage.model),
            kind => kind.trained(),
        }
    }

    /// How its steps are taken, where it trains.
    pub fn optimisation(&self) -> Option<&Optimisation> {
        match self {
            StageKind::Pretrain(stage) => Some(&stage.optimisation),
            StageKind::Sft(stage) => Some(&stage.optimisation),
            StageKind::Grpo(stage) => Some(&stage.optimisation),
            StageKind::Distill(stage) => Some(&stage.optimisation),
            StageKind::Dialogue(stage) => Some(&stage.optimisation),
            StageKind::Tokenizer(_) | StageKind::Sample(_) | StageKind::Eval(_) => None,
        }
    }

    /// The teacher that it reads, if any.
    pub fn teacher(&self) -> Option<&str> {
        match self {
            StageKind::Sample(stage) => stage.teacher.as_deref(),
            StageKind::Distill(stage) => stage.teacher.as_deref(),
            StageKind::Dialogue(stage) => Some(&stage.teacher),
            _ => None,
        }
    }
}

/// How a stage's steps are taken; the same keys in every training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Optimisation {
    /// The schedule's highest rate.
    pub learning_rate: f32,
    /// How the rate goes after warm-up.
    pub schedule: Schedule,
    /// Steps over which the rate rises.
    pub warmup_steps: u64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: f32,
    /// Packed tokens that go through the model at a time.
    pub tokens_per_micro_batch: usize,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Recompute layers in backward: slower, a fraction of the memory.
    pub recompute: bool,
    /// Width of low-rank adapters that learn in place of the weights (LoRA); 0 for none.
    pub lora_rank: usize,
    /// What adapters add is weighed by `lora_alpha / lora_rank`.
    pub lora_alpha: f32,
}

impl Default for Optimisation {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 10,
            weight_decay: 0.1,
            beta2: 0.95,
            max_grad_norm: 1.0,
            tokens_per_micro_batch: 4096,
            checkpoint_every_steps: 25,
            recompute: false,
            lora_rank: 0,
            lora_alpha: 16.0,
        }
    }
}

impl Optimisation {
    /// The adapters that learn in place of the weights, where there are any.
    pub fn adapters(&self) -> Option<LoraConfig> {
        (self.lora_rank > 0).then_some(LoraConfig { rank: self.lora_rank, alpha: self.lora_alpha })
    }

    /// The optimiser's part.
    pub fn hyperparameters(&self) -> Hyperparameters {
        Hyperparameters {
            beta2: self.beta2,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            ..Hyperparameters::default()
        }
    }
}

impl Recipe {
    /// An error at a key such as `stages[2].epochs`, with the file and the line where it stands.
    pub fn wrong(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> RecipeError {
        self.source.wrong(key, problem, hint)
    }

    /// The stages that what stage `index` makes rests on, itself among them: those that made its weights, its data set, and its teachers.
    pub fn behind(&self, index: usize) -> BTreeSet<&str> {
        let mut behind = BTreeSet::new();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            let stage = &self.stages[index];
            if !behind.insert(stage.name.as_str()) {
                continue;
            }
            let before = &self.stages[..index];
            let origin = |model: &str| match self.models.get(model) {
                Some(ModelSource::Stage { from }) => before.iter().position(|stage| stage.name == *from),
                _ => None,
            };
            let made = |model| before.iter().rposition(|stage| stage.kind.trained() == Some(model)).or(origin(model));
            open.extend([stage.kind.model(), stage.kind.teacher()].into_iter().flatten().filter_map(made));
            if let StageKind::Distill(keys) = &stage.kind {
                open.extend(before.iter().position(|stage| stage.name == keys.data));
            }
        }
        behind
    }

    /// Held-out cases that any of its measurements may ask for.
    pub fn heldout_cases(&self) -> usize {
        let own = self.stages.iter().filter_map(|stage| match &stage.kind {
            StageKind::Eval(keys) => keys.cases,
            _ => None,
        });
        own.fold(self.eval.cases, usize::max)
    }

    /// The recipe as TOML, every default written out.
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe is representable in TOML")
    }
}
