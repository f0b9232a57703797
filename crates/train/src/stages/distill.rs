//! Distillation on a teacher's completions: hard labels, soft labels, hidden states, or any sum of them.
//!
//! 1. Hard: cross-entropy on the teacher's tokens (Kim & Rush 2016, sequence-level).
//! 2. Soft, with a `teacher`: a divergence from its whole distribution at every token, computed from its hidden rows and head block by
//!    block, so exact; forward KL, reverse KL or generalised JSD at a temperature (arXiv 2306.13649).
//! 3. Soft, without one: forward KL from the `top_k` tokens and the tail that the `sample` stage kept ([`crate::teacher::artefact`]). No
//!    teacher is loaded. The tail is one bucket, so this is a lower bound of the whole divergence, and equal to it for k = V.
//! 4. Hidden: one learned projection of the student's residual stream is drawn to the teacher's ([`crate::step::HiddenSignal`]). The
//!    projection is a parameter like all others, begins at random with the stage, and is left behind at its end.
//! 5. The three add up with `hard_weight`, `soft_weight` and `hidden_weight`. Prompts are never targets.
//! 6. Order within an epoch is a shuffle keyed by (seed, stage, epoch).

use kernels::ops::head::Divergence;
use kernels::{Queue, Real};
use lm::{Arena, Batch};
use serde::{Deserialize, Serialize};
use store::SoftLabels;

use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::recipe::{Optimisation, StageFields};
use crate::stages::sample::data_set;
use crate::step::{self, HiddenSignal, Signals, SoftSignal};
use crate::teacher::{LocalTeacher, artefact};
use crate::trainer::{Meters, StepOutcome, Trainer};

/// A divergence as a recipe names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceName {
    /// Mass wherever the teacher has it.
    #[default]
    ForwardKl,
    /// Mass only where the teacher has it.
    ReverseKl,
    /// Between the two, by `jsd_beta`.
    Jsd,
}

impl DivergenceName {
    /// The kernel's divergence.
    pub fn with_beta(self, beta: f32) -> Divergence {
        match self {
            DivergenceName::ForwardKl => Divergence::ForwardKl,
            DivergenceName::ReverseKl => Divergence::ReverseKl,
            DivergenceName::Jsd => Divergence::Jsd { beta },
        }
    }
}

/// Keys of a `distill` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distill {
    /// The student.
    pub model: String,
    /// The teacher: its whole distribution is the soft label, its hidden states are the hidden one. Without it, soft labels are those
    /// that the data set holds.
    #[serde(default)]
    pub teacher: Option<String>,
    /// The `sample` stage whose completions are learned from.
    pub data: String,
    /// Times each completion is seen.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Completions a step.
    #[serde(default = "per_step")]
    pub completions_per_step: usize,
    /// Weight of the cross-entropy on the teacher's tokens.
    #[serde(default)]
    pub hard_weight: f32,
    /// Weight of the divergence.
    #[serde(default)]
    pub soft_weight: f32,
    /// Weight of the error against the teacher's hidden states, as a share of their mean square.
    #[serde(default)]
    pub hidden_weight: f32,
    /// The student's layer after which its hidden states are read, from 1; the last by default.
    #[serde(default)]
    pub student_layer: Option<usize>,
    /// The teacher's; the last by default.
    #[serde(default)]
    pub teacher_layer: Option<usize>,
    /// Which divergence; from a data set's soft labels only `forward_kl`.
    #[serde(default)]
    pub divergence: DivergenceName,
    /// The teacher's share of the mixture in `jsd`.
    #[serde(default = "half")]
    pub jsd_beta: f32,
    /// Divides both sides' logits; from a data set's soft labels it must be their `soft_temperature`.
    #[serde(default = "one")]
    pub temperature: f32,
    /// How steps are taken.
    #[serde(flatten)]
    pub optimisation: Optimisation,
}

fn epochs() -> u64 {
    4
}
fn per_step() -> usize {
    50
}
fn half() -> f32 {
    0.5
}
fn one() -> f32 {
    1.0
}

impl StageFields for Distill {
    const FIELDS: &'static [&'static str] = &[
        "model",
        "teacher",
        "data",
        "epochs",
        "completions_per_step",
        "hard_weight",
        "soft_weight",
        "hidden_weight",
        "student_layer",
        "teacher_layer",
        "divergence",
        "jsd_beta",
        "temperature",
    ];
}

/// A completion to learn from, with the soft labels that were kept of it.
struct Example {
    sequence: Sequence,
    soft: Option<SoftLabels>,
}

/// Runs the stage.
///
/// # Errors
/// Weights that ask for nothing or for what is not there (see [`refuse`]), an empty data set, and whatever the loop meets.
pub fn run<T: Real>(stage: &Distill, trainer: &mut Trainer) -> Result<(), TrainError> {
    let prompting = trainer.prompting()?;
    let mut examples = Vec::new();
    let data = data_set(trainer, &stage.data)?;
    trainer.note_uses("sample", data.iter().map(|(case, _)| &case.id))?;
    for (case, row) in data {
        let sequence = Sequence::completion(&prompting.prompt(&case.prompt)?, &row.tokens);
        examples.push(Example { sequence, soft: row.soft });
    }
    let layers = refuse(stage, trainer, &examples)?;
    let mut teacher = stage.teacher.as_deref().filter(|_| stage.soft_weight != 0.0 || layers.is_some()).map(|name| {
        let weights = trainer.weights(name);
        match layers {
            Some(_) => LocalTeacher::<T>::with_layers(trainer.queue, weights),
            None => LocalTeacher::<T>::new(trainer.queue, weights),
        }
    });
    if layers.is_some() {
        let width = trainer.weights(stage.teacher.as_deref().expect("checked")).config().hidden_size;
        let key = trainer.key.word("projection");
        change(trainer, &stage.model, |student| student.with_projection(width, key));
    }
    let per_epoch = examples.len().div_ceil(stage.completions_per_step) as u64;
    let walked = trainer.train::<T>(
        &stage.model,
        &stage.optimisation,
        per_epoch * stage.epochs,
        |trainer, learner, step, rate| {
            let mut order: Vec<usize> = (0..examples.len()).collect();
            trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
            let first = (step % per_epoch) as usize * stage.completions_per_step;
            let chosen: Vec<&Example> =
                order.iter().skip(first).take(stage.completions_per_step).map(|&i| &examples[i]).collect();
            let sequences: Vec<Sequence> = chosen.iter().map(|example| example.sequence.clone()).collect();
            let targets: usize = sequences.iter().map(Sequence::targets).sum();
            let mut kept = chosen.iter().filter_map(|example| example.soft.as_ref());
            let per_micro_batch = stage.optimisation.tokens_per_micro_batch;
            for (batch, weights) in micro_batches(&sequences, per_micro_batch, 1.0 / targets.max(1) as f32) {
                let labels = &mut kept;
                let signals = signals(
                    stage,
                    trainer.queue,
                    &mut trainer.meters,
                    teacher.as_mut(),
                    layers,
                    &batch,
                    &weights,
                    labels,
                );
                learner.accumulate(trainer.queue, &batch, &signals);
            }
            let report = learner.update(trainer.queue, rate);
            trainer.meters.flops += learner.flops(&report);
            let of = |name: &str, weight: f32, value: f64| {
                (weight != 0.0).then(|| (name.to_string(), value / f64::from(weight)))
            };
            let metrics = [
                of("divergence", stage.soft_weight, report.divergence),
                of("hidden_error", stage.hidden_weight, report.hidden_error),
            ];
            Ok(StepOutcome { report, metrics: metrics.into_iter().flatten().collect(), sample: None })
        },
        None,
    );
    if layers.is_some() && walked.is_ok() {
        change(trainer, &stage.model, Arena::without_projection);
    }
    walked
}

/// The signals of one micro-batch; `kept` gives the soft labels of its sequences in order.
fn signals<'a, T: Real>(
    stage: &Distill,
    queue: &Queue,
    meters: &mut Meters,
    teacher: Option<&'a mut LocalTeacher<T>>,
    layers: Option<Layers>,
    batch: &Batch,
    weights: &[f32],
    kept: &mut dyn Iterator<Item = &SoftLabels>,
) -> Signals<'a, T> {
    let scaled = |by: f32| weights.iter().map(|weight| weight * by).collect::<Vec<f32>>();
    let mut signals = Signals { cross_entropy: scaled(stage.hard_weight), ..Signals::none(0, stage.temperature) };
    let weight = scaled(stage.soft_weight);
    if let Some(teacher) = teacher {
        let targets = weights.iter().filter(|&&weight| weight != 0.0).count();
        let (model, activations) = teacher.read(queue, batch);
        meters.teacher_tokens += batch.len() as u64;
        let rows = if stage.soft_weight == 0.0 { 0 } else { targets };
        meters.flops += model.config().forward_flops(batch.len(), rows, batch.attention_pairs());
        if stage.soft_weight != 0.0 {
            let divergence = stage.divergence.with_beta(stage.jsd_beta);
            signals.soft =
                Some(SoftSignal { labels: step::SoftLabels::Teacher { model, activations, divergence }, weight });
        }
        signals.hidden = layers.map(|Layers { student, teacher }| HiddenSignal {
            layer: student,
            teacher: activations.residual(model.config(), teacher),
            weight: scaled(stage.hidden_weight),
        });
    } else if stage.soft_weight != 0.0 {
        let (k, ids, logprobs) = artefact::columns(batch, kept);
        signals.soft = Some(SoftSignal { labels: step::SoftLabels::TopK { k, ids, logprobs }, weight });
    }
    signals
}

fn change(trainer: &mut Trainer, model: &str, how: impl FnOnce(Arena) -> Arena) {
    let weights = trainer.models.remove(model).expect("reading the recipe refuses unknown models");
    trainer.models.insert(model.to_string(), how(weights));
}

/// Where hidden states are read, as layers that have passed.
#[derive(Clone, Copy)]
struct Layers {
    student: usize,
    teacher: usize,
}

/// Everything that can be wrong before the first step; else where hidden states are read, if they are.
fn refuse(stage: &Distill, trainer: &Trainer, examples: &[Example]) -> Result<Option<Layers>, TrainError> {
    let wrong = |problem: String, hint: &str| Err(TrainError::stage(trainer.stage, problem, hint));
    if [stage.hard_weight, stage.soft_weight, stage.hidden_weight].iter().all(|&weight| weight == 0.0) {
        let hint = "set `hard_weight = 1` for the teacher's text, `soft_weight = 1` for its distribution";
        return wrong("neither hard nor soft nor hidden labels have a weight".into(), hint);
    }
    if stage.soft_weight != 0.0 && stage.teacher.is_none() {
        let Some(kept) = examples.iter().map(|example| example.soft.as_ref()).collect::<Option<Vec<_>>>() else {
            let hint = "name a `teacher = \"…\"`, or let the sample stage keep some with `top_k = 16`";
            return wrong(format!("soft labels without a teacher, and \"{}\" holds none", stage.data), hint);
        };
        if stage.divergence != DivergenceName::ForwardKl {
            let hint = "use `divergence = \"forward_kl\"`, or name the `teacher`";
            return wrong("the kept soft labels know the teacher's likely tokens only".into(), hint);
        }
        if let Some(other) = kept.iter().find(|soft| soft.temperature != stage.temperature) {
            let problem = format!("temperature {} over soft labels taken at {}", stage.temperature, other.temperature);
            return wrong(problem, "set `temperature` here, or `soft_temperature` in the sample stage");
        }
    }
    if stage.hidden_weight == 0.0 {
        return Ok(None);
    }
    let Some(teacher) = &stage.teacher else {
        return wrong("hidden states need a teacher".into(), "name it with `teacher = \"…\"`");
    };
    let layer = |model: &str, key: &str, chosen: Option<usize>| {
        let last = trainer.weights(model).config().num_hidden_layers;
        match chosen.unwrap_or(last) {
            layer if (1..=last).contains(&layer) => Ok(layer),
            layer => Err(TrainError::stage(
                trainer.stage,
                format!("{key} = {layer}, and \"{model}\" has {last} layers"),
                format!("choose from 1 to {last}"),
            )),
        }
    };
    Ok(Some(Layers {
        student: layer(&stage.model, "student_layer", stage.student_layer)?,
        teacher: layer(teacher, "teacher_layer", stage.teacher_layer)?,
    }))
}
