//! Distillation on a data set of completions: hard labels, soft labels, hidden states, or any sum of them.
//!
//! 1. Hard labels: cross-entropy on the teacher's tokens (Kim & Rush 2016, sequence-level knowledge distillation).
//! 2. Soft labels with a `teacher`: a divergence from its whole distribution at every token: forward KL, reverse KL or generalised JSD at a
//!    temperature (arXiv 2306.13649). It is computed from the teacher's hidden rows and head, block by block, and is exact.
//! 3. Soft labels without a teacher: forward KL from the `top_k` tokens and the tail that the `sample` stage stored
//!    ([`crate::teacher::artefact`]). No teacher is loaded. The tail is one bucket, so this is a lower bound of the whole divergence. For
//!    k = V the two are equal.
//! 4. Hidden states: a learned projection of the student's residual stream is fitted to the teacher's ([`crate::step::HiddenSignal`]). The
//!    projection is a parameter like all others. It starts from random values with the stage and is dropped at its end.
//! 5. The three losses are added with `hard_weight`, `soft_weight` and `hidden_weight`. Prompts are never targets.
//! 6. The order within an epoch is a shuffle keyed by (seed, stage, epoch).

use kernels::{Queue, Real};
use lm::{Arena, Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::SoftLabels;

use crate::divergence::DivergenceName;
use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::{Made, Roles};
use crate::stage::estimate::{Estimate, Packed, Planning, Work};
use crate::stage::{Checking, Outcome, Place, Stage};
use crate::stages::sample::data_set;
use crate::step::{self, HiddenSignal, Signals, SoftSignal};
use crate::teacher::artefact;
use crate::teacher::local::LocalTeacher;
use crate::trainer::{Meters, StepOutcome, Trainer};
use tasks::refusal::Refusal;

/// Keys of a `distill` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distill {
    /// The student.
    pub model: String,
    /// The teacher. Its whole distribution is the soft label, and its hidden states are the hidden label. Without a teacher, the soft
    /// labels are those that the data set holds.
    #[serde(default)]
    pub teacher: Option<String>,
    /// The `sample` stage whose completions are trained on.
    pub data: String,
    /// Passes over the completions.
    #[serde(default = "epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u64,
    /// Completions per step.
    #[serde(default = "per_step")]
    #[schemars(range(min = 1, max = 65_536))]
    pub completions_per_step: usize,
    /// Weight of the cross-entropy on the teacher's tokens.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub hard_weight: f32,
    /// Weight of the divergence.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub soft_weight: f32,
    /// Weight of the squared error against the teacher's hidden states, which is divided by their mean square.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub hidden_weight: f32,
    /// The student's layer whose output is its hidden state, counted from 1; the last by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_024))]
    pub student_layer: Option<usize>,
    /// The teacher's layer whose output is its hidden state, counted from 1; the last by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_024))]
    pub teacher_layer: Option<usize>,
    /// The divergence of the soft labels; without a teacher only `forward_kl`.
    #[serde(default)]
    pub divergence: DivergenceName,
    /// The teacher's share of the mixture in `jsd`.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub jsd_beta: f32,
    /// Divides the logits of student and teacher. Without a teacher it must be the `soft_temperature` of the data set.
    #[serde(default = "one")]
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0, "hint" = "1 leaves the logits as they are"))]
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

/// A completion to train on, with the soft labels that the data set holds of it.
struct Example {
    sequence: Sequence,
    soft: Option<SoftLabels>,
}

impl Stage for Distill {
    const KIND: &'static str = "distill";
    const SUMMARY: &'static str =
        "Distillation on a data set of completions: hard labels, soft labels, hidden states, or any sum of them.";

    fn roles(&self) -> Roles {
        Roles { teacher: self.teacher.clone(), data: Some(self.data.clone()), ..Roles::trains(&self.model) }
    }

    fn optimisation(&self) -> Option<&Optimisation> {
        Some(&self.optimisation)
    }

    fn validate(&self, place: &Place) -> Result<(), Refusal> {
        if [self.hard_weight, self.soft_weight, self.hidden_weight].iter().all(|&weight| weight == 0.0) {
            let hint = "set `hard_weight = 1` for the teacher's text, `soft_weight = 1` for its distribution";
            return Err(place.refuse("soft_weight", "neither hard nor soft nor hidden labels have a weight", hint));
        }
        if self.hidden_weight != 0.0 && self.teacher.is_none() {
            return Err(place.refuse("teacher", "hidden states need a teacher", "name it with `teacher = \"…\"`"));
        }
        if self.hidden_weight != 0.0 && self.optimisation.lora_rank > 0 {
            let problem = "adapters learn alone, and hidden states need a projection that learns beside the model";
            return Err(place.refuse("lora_rank", problem, "leave one of `hidden_weight` and `lora_rank` out"));
        }
        if self.soft_weight != 0.0 && self.teacher.is_none() && self.divergence != DivergenceName::ForwardKl {
            let hint = "use `divergence = \"forward_kl\"`, or name the `teacher`";
            return Err(place.refuse("divergence", "the kept soft labels know the teacher's likely tokens only", hint));
        }
        Ok(())
    }

    fn check(&self, checking: &Checking) -> Result<(), TrainError> {
        let teacher = self.teacher.as_ref().map(|teacher| ("teacher_layer", self.teacher_layer, teacher));
        for (key, layer, model) in [("student_layer", self.student_layer, &self.model)].into_iter().chain(teacher) {
            let last = checking.configs[model].num_hidden_layers;
            if layer.is_some_and(|layer| !(1..=last).contains(&layer)) {
                let problem = format!("\"{model}\" has {last} layers");
                return Err(checking.place.refuse(key, problem, format!("choose from 1 to {last}")).into());
            }
        }
        Ok(())
    }

    fn estimate<T: Real>(&self, planning: &Planning) -> Estimate {
        let (lengths, keys) = (planning.lengths, &self.optimisation);
        let data = planning.stages.iter().find(|stage| stage.name == self.data);
        let (kept, completion) = match data.and_then(|stage| stage.roles.makes.as_ref()) {
            Some(Made::DataSet { cases, samples, max_new_tokens }) => {
                (cases * samples, lengths.completion(*max_new_tokens))
            }
            _ => (0, 0.0),
        };
        let packed = Packed::sequences((kept as u64 * self.epochs) as f64, lengths.prompt, completion);
        let mut work = Work {
            train_tokens: packed.tokens,
            training_flops: planning.training_flops(&self.model, keys, packed),
            ..Work::default()
        };
        let mut bytes = planning.learning_bytes::<T>(&self.model, keys);
        if let Some(teacher) = self.teacher_needed() {
            work.teacher_tokens = packed.tokens;
            work.reading_flops = planning.reading_flops(teacher, packed);
            bytes += planning.reading_bytes::<T>(teacher, keys.tokens_per_micro_batch);
        }
        Estimate { steps: kept.div_ceil(self.completions_per_step) as u64 * self.epochs, work, bytes }
    }

    fn run<T: Real>(&self, trainer: &mut Trainer) -> Result<Outcome, TrainError> {
        let prompting = trainer.prompting()?;
        let mut examples = Vec::new();
        let data = data_set(trainer, &self.data)?;
        trainer.note_uses("sample", data.iter().map(|(case, _)| &case.id))?;
        for (case, row) in data {
            let sequence = Sequence::completion(&prompting.prompt(&case.prompt)?, &row.tokens);
            examples.push(Example { sequence, soft: row.soft });
        }
        self.refuse_labels(trainer, &examples)?;
        let layers = self.layers(trainer);
        let mut teacher = self.teacher_needed().map(|name| trainer.local_teacher::<T>(name, layers.is_some()));
        if layers.is_some() {
            let width = trainer.weights(self.teacher.as_deref().expect("checked")).config().hidden_size;
            let key = trainer.key.word("projection");
            replace_weights(trainer, &self.model, |student| student.with_projection(width, key));
        }
        let per_epoch = examples.len().div_ceil(self.completions_per_step) as u64;
        trainer.train::<T>(
            &self.model,
            &self.optimisation,
            per_epoch * self.epochs,
            |trainer, learner, step, rate| {
                let mut order: Vec<usize> = (0..examples.len()).collect();
                trainer.key.word("epoch").number(step / per_epoch).stream().shuffle(&mut order);
                let first = (step % per_epoch) as usize * self.completions_per_step;
                let chosen: Vec<&Example> =
                    order.iter().skip(first).take(self.completions_per_step).map(|&i| &examples[i]).collect();
                let sequences: Vec<Sequence> = chosen.iter().map(|example| example.sequence.clone()).collect();
                let targets: usize = sequences.iter().map(Sequence::targets).sum();
                let mut kept = chosen.iter().filter_map(|example| example.soft.as_ref());
                let per_micro_batch = self.optimisation.tokens_per_micro_batch;
                for (batch, weights) in micro_batches(&sequences, per_micro_batch, 1.0 / targets.max(1) as f32) {
                    let labels = &mut kept;
                    let signals = self.signals(
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
                    (weight != 0.0).then(|| (name.to_string(), Some(value / f64::from(weight))))
                };
                let metrics = [
                    of("divergence", self.soft_weight, report.divergence),
                    of("hidden_error", self.hidden_weight, report.hidden_error),
                ];
                Ok(StepOutcome { report: Some(report), metrics: metrics.into_iter().flatten().collect(), sample: None })
            },
            None,
        )?;
        if layers.is_some() {
            replace_weights(trainer, &self.model, Arena::without_projection);
        }
        Ok(Outcome::default())
    }
}

impl Distill {
    /// The teacher, if its distribution or its hidden states are needed.
    fn teacher_needed(&self) -> Option<&str> {
        self.teacher.as_deref().filter(|_| self.soft_weight != 0.0 || self.hidden_weight != 0.0)
    }

    /// The layers whose hidden states are matched, if any are.
    fn layers(&self, trainer: &Trainer) -> Option<Layers> {
        let teacher = self.teacher.as_deref().filter(|_| self.hidden_weight != 0.0)?;
        let last = |model: &str| trainer.weights(model).config().num_hidden_layers;
        Some(Layers {
            student: self.student_layer.unwrap_or_else(|| last(&self.model)),
            teacher: self.teacher_layer.unwrap_or_else(|| last(teacher)),
        })
    }

    /// Refuses to train on soft labels that the data set does not hold, or that it holds at another temperature.
    fn refuse_labels(&self, trainer: &Trainer, examples: &[Example]) -> Result<(), TrainError> {
        if self.soft_weight == 0.0 || self.teacher.is_some() {
            return Ok(());
        }
        let wrong = |problem: String, hint: &str| Err(TrainError::stage(trainer.stage, problem, hint));
        let Some(kept) = examples.iter().map(|example| example.soft.as_ref()).collect::<Option<Vec<_>>>() else {
            let hint = "name a `teacher = \"…\"`, or let the sample stage keep some with `top_k = 16`";
            return wrong(format!("soft labels without a teacher, and \"{}\" holds none", self.data), hint);
        };
        if let Some(other) = kept.iter().find(|soft| soft.temperature != self.temperature) {
            let problem = format!("temperature {} over soft labels taken at {}", self.temperature, other.temperature);
            return wrong(problem, "set `temperature` here, or `soft_temperature` in the sample stage");
        }
        Ok(())
    }

    /// The signals of one micro-batch; `kept` gives the soft labels of its sequences in order.
    fn signals<'a, T: Real>(
        &self,
        queue: &Queue,
        meters: &mut Meters,
        teacher: Option<&'a mut LocalTeacher<T>>,
        layers: Option<Layers>,
        batch: &Batch,
        weights: &[f32],
        kept: &mut dyn Iterator<Item = &SoftLabels>,
    ) -> Signals<'a, T> {
        let scaled = |by: f32| weights.iter().map(|weight| weight * by).collect::<Vec<f32>>();
        let mut signals = Signals { cross_entropy: scaled(self.hard_weight), ..Signals::none(0, self.temperature) };
        let weight = scaled(self.soft_weight);
        if let Some(teacher) = teacher {
            let targets = weights.iter().filter(|&&weight| weight != 0.0).count();
            let (model, activations) = teacher.forward(queue, batch);
            meters.teacher_tokens += batch.len() as u64;
            let rows = if self.soft_weight == 0.0 { 0 } else { targets };
            meters.flops += model.config().forward_flops(batch.len(), rows, batch.attention_pairs());
            if self.soft_weight != 0.0 {
                let divergence = self.divergence.with_beta(self.jsd_beta);
                signals.soft =
                    Some(SoftSignal { labels: step::SoftLabels::Teacher { model, activations, divergence }, weight });
            }
            signals.hidden = layers.map(|Layers { student, teacher }| HiddenSignal {
                layer: student,
                teacher: activations.residual(model.config(), teacher),
                weight: scaled(self.hidden_weight),
            });
        } else if self.soft_weight != 0.0 {
            let (k, ids, logprobs) = artefact::columns(batch, kept);
            signals.soft = Some(SoftSignal { labels: step::SoftLabels::TopK { k, ids, logprobs }, weight });
        }
        signals
    }
}

/// Replaces a model's weights by a function of them.
fn replace_weights(trainer: &mut Trainer, model: &str, replace: impl FnOnce(Arena) -> Arena) {
    let weights = trainer.models.remove(model).expect("validation refuses unknown models");
    trainer.models.insert(model.to_string(), replace(weights));
}

/// The layers whose hidden states are matched, counted from 1: the state is the residual stream after that layer.
#[derive(Clone, Copy)]
struct Layers {
    student: usize,
    teacher: usize,
}
