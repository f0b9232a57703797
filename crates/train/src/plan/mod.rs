//! What a recipe will cost, before anything is spent: steps, tokens, floating-point operations, memory, time.
//!
//! Tokens are counted on a few of the task's own texts. If the recipe trains a tokenizer, a small one is trained for the count, in memory.
//! Operations are counted by the same formulas as a run's meters. Time is operations divided by the rate that a short probe
//! reaches now, on this machine, with models of these shapes ([`probe`]). Nothing is written to disk.
//!
//! The estimate assumes that every group of a `grpo` stage is trained on, and that every completion is as long as a demonstration. Without
//! demonstrations it assumes completions of `max_new_tokens`. A real run therefore tends to cost less than the estimate.
//!
//! Read next: [`crate::check`], which must pass first, and [`crate::stage::estimate`], the formulas.

pub mod lengths;
pub mod probe;
mod texts;

use std::collections::BTreeMap;

use kernels::{Queue, Real};
use lm::Config;

use crate::check::{Sources, configs};
use crate::error::TrainError;
use crate::recipe::outline::Outline;
use crate::recipe::resolved::Recipe;
use crate::stage::estimate::{Estimate, Planning, Work, sampling_flops};
use lengths::Lengths;
use probe::Speed;
use tasks::Task;

/// The whole estimate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The models in the order of their names.
    pub models: Vec<PlannedModel>,
    /// Lengths of the task's texts, in tokens.
    pub lengths: Lengths,
    /// The stages in order.
    pub stages: Vec<PlannedStage>,
    /// The cost of evaluating every row of the ladder, all stages together.
    pub measuring: Cost,
}

/// A model and the speed that the probe measured for its shape.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    /// Its name in the recipe.
    pub name: String,
    /// Where its first weights come from, in words.
    pub source: String,
    /// Its shape. Before the tokenizer is trained, the vocabulary is the size that the tokenizer stage names.
    pub config: Config,
    /// This machine's rates for the shape.
    pub speed: Speed,
}

/// One stage's estimate.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its name.
    pub name: String,
    /// The model that it trains, samples from or measures; empty for a tokenizer.
    pub model: String,
    /// Optimiser steps, or files of completions; 0 for a stage without steps.
    pub steps: u64,
    /// Its tokens, completions and operations.
    pub work: Work,
    /// Its operations and its time.
    pub cost: Cost,
    /// Peak memory in bytes, without the program itself.
    pub bytes: u64,
}

/// Operations and time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Plan {
    /// Estimates a recipe that [`crate::check::check`] has accepted, in dtype `T`.
    ///
    /// # Errors
    /// The task or a model's files cannot be read.
    pub fn of<T: Real>(queue: &Queue, recipe: &Recipe, task: &dyn Task) -> Result<Plan, TrainError> {
        let settings = &recipe.settings;
        let mut sources = Sources::open(settings)?;
        let configs = configs(recipe, &sources, None)?;
        let lengths = texts::measure(recipe, task, sources.prompting.take())?;
        // One probe serves all models of the same shape. A copy has the shape of what it copies.
        let mut probed: Vec<(Config, Speed)> = Vec::new();
        let mut models = Vec::new();
        for (name, config) in &configs {
            let known = probed.iter().find(|(shape, _)| shape == config).map(|(_, speed)| *speed);
            let speed = known.unwrap_or_else(|| probe::measure::<T>(queue, config, &lengths));
            probed.push((config.clone(), speed));
            let source = settings.models[name].to_string();
            models.push(PlannedModel { name: name.clone(), source, config: config.clone(), speed });
        }
        let speeds: BTreeMap<&str, Speed> = models.iter().map(|model| (model.name.as_str(), model.speed)).collect();
        let masters: usize = configs.values().map(|config| 4 * config.parameters()).sum();
        let planning = Planning { settings, stages: &recipe.outlines, configs: &configs, lengths: &lengths };
        let stages = recipe.stages.iter().zip(&recipe.outlines);
        let stages = stages.map(|(stage, outline)| {
            planned(outline, stage.stage.estimate(T::DTYPE, &planning), &speeds, masters, lengths.tokenizer_seconds)
        });
        let cases = settings.eval.cases + settings.eval.unseen_cases;
        let completion = lengths.completion(settings.eval.max_new_tokens);
        let measuring = recipe.outlines.iter().filter_map(|stage| stage.trained()).map(|model| {
            let flops = sampling_flops(&configs[model], cases, 1, lengths.prompt, completion);
            Cost { flops, seconds: speeds[model].sampling_seconds(flops) }
        });
        Ok(Plan { lengths, stages: stages.collect(), measuring: measuring.fold(Cost::default(), Cost::plus), models })
    }

    /// The pipeline's cost, evaluation included.
    pub fn total(&self) -> Cost {
        self.stages.iter().map(|stage| stage.cost).fold(self.measuring, Cost::plus)
    }

    /// Peak memory of the pipeline, in bytes.
    pub fn bytes(&self) -> u64 {
        self.stages.iter().map(|stage| stage.bytes).max().unwrap_or(0)
    }
}

impl Cost {
    fn plus(self, other: Cost) -> Cost {
        Cost { flops: self.flops + other.flops, seconds: self.seconds + other.seconds }
    }
}

fn planned(
    stage: &Outline,
    estimate: Estimate,
    speeds: &BTreeMap<&str, Speed>,
    masters: usize,
    tokenizer_seconds: f64,
) -> PlannedStage {
    let speed = |model: Option<&str>| model.map(|model| speeds[model]);
    let (work, teacher) = (estimate.work, speed(stage.teacher()));
    let seconds = match speed(stage.model()) {
        Some(speed) => {
            speed.training_seconds(work.training_flops)
                + speed.sampling_seconds(work.sampling_flops)
                + teacher.unwrap_or(speed).training_seconds(work.reading_flops)
        }
        None => tokenizer_seconds,
    };
    PlannedStage {
        name: stage.name.clone(),
        model: stage.model().unwrap_or("").to_string(),
        steps: estimate.steps,
        cost: Cost { flops: work.flops(), seconds },
        bytes: (masters + estimate.bytes) as u64,
        work,
    }
}
