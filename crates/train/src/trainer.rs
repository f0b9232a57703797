//! The trainer: what a stage works with, and the loop that every training stage runs.
//!
//! [`Trainer::train`] knows steps, learning rates, metrics, checkpoints and stopping, and no algorithm. A stage gives it a closure that
//! makes the batches and signals of one step. A checkpoint holds the trained weights, their moments, the step and the meters. Everything
//! else of a step is a function of the recipe, so a run that was killed resumes to the same bits.
//!
//! Read next: [`crate::stages::sft`], then [`crate::pipeline`], which calls the stages in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kernels::rng::Key;
use kernels::{Buffer, Queue, Real};
use lm::{Arena, Keep};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Blob, Checkpoint, Committed, RecordUse, Run, StepMetrics};

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::Outline;
use crate::recipe::settings::Settings;
use crate::step::{Learner, StepReport};
use crate::tally::Figures;
use crate::teacher::local::LocalTeacher;
use crate::teacher::{self, Teacher};
use tasks::{Case, Task};

/// What a stage has used so far. It is kept in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meters {
    /// Completions that were sampled.
    pub rollouts: u64,
    /// Tokens that a teacher sampled or scored.
    pub teacher_tokens: u64,
    /// Packed tokens that were trained on.
    pub train_tokens: u64,
    /// Floating-point operations of training, sampling and teachers.
    pub flops: f64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// One step as an [`Observer`] sees it.
pub struct StepView<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The step's metrics. A figure is none if the step does not have it.
    pub metrics: &'a [(String, Option<f64>)],
    /// A sample rollout, now and then.
    pub sample: Option<&'a str>,
    /// Seconds of this step.
    pub seconds: f64,
}

/// Shows the progress of a run: on a terminal, in a log, or nowhere.
pub trait Observer {
    /// A stage begins, or resumes after `from_step` steps.
    fn stage(&mut self, name: &str, from_step: u64);
    /// A step is done.
    fn step(&mut self, view: &StepView);
    /// A notice to show once.
    fn notice(&mut self, text: &str);
    /// A stage is done, with its row of the ladder.
    fn finished(&mut self, row: &store::StageRow);
}

/// The result of one step of a stage.
pub struct StepOutcome {
    /// The learner's report; none if the step made no update.
    pub report: Option<StepReport>,
    /// Further figures for the metrics.
    pub metrics: Figures,
    /// A sampled completion to show.
    pub sample: Option<String>,
}

impl From<StepReport> for StepOutcome {
    fn from(report: StepReport) -> Self {
        Self { report: Some(report), metrics: Vec::new(), sample: None }
    }
}

/// What a stage works with while it runs.
pub struct Trainer<'a> {
    /// The device queue.
    pub queue: &'a Queue,
    /// The recipe without its stages.
    pub settings: &'a Settings,
    /// The recipe's stages, in order.
    pub stages: &'a [Outline],
    /// The held-out cases behind every row of the ladder.
    pub heldout: &'a [Case],
    /// The run's store.
    pub run: &'a Run,
    /// The task.
    pub task: &'a dyn Task,
    /// The tokenizer and template; none while the tokenizer is not trained yet.
    pub prompting: Option<Arc<Prompting>>,
    /// The stage's index in the recipe.
    pub index: u64,
    /// The stage's name.
    pub stage: &'a str,
    /// Key of the stage's random numbers.
    pub key: Key,
    /// What it has used so far.
    pub meters: Meters,
    /// The stage's own position in its data, kept in checkpoints; for example the number of documents read.
    pub cursor: u64,
    /// Every model's weights by name. A stage takes out the model that it trains and puts it back.
    pub models: &'a mut BTreeMap<String, Arena>,
    /// Shows the progress.
    pub observer: &'a mut dyn Observer,
    /// Set when the user asks to stop.
    pub stop: &'a AtomicBool,
    /// The checkpoint to resume from, if this stage was interrupted.
    pub resume: Option<&'a Committed>,
}

/// What a checkpoint holds besides weights and moments.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether the stage is done, so that the next one begins.
    pub finished: bool,
    pub meters: Meters,
    pub cursor: u64,
    pub optimizer_steps: u32,
    /// The best validation accuracy so far.
    pub best: Option<f64>,
    /// The instruction path. Runs are equal bit for bit only on the same path.
    pub isa: String,
}

impl Trainer<'_> {
    /// The tokenizer and template.
    ///
    /// # Errors
    /// When no stage before has made one.
    pub fn prompting(&self) -> Result<Arc<Prompting>, TrainError> {
        self.prompting.clone().ok_or_else(|| {
            TrainError::stage(
                self.stage,
                "there is no tokenizer yet",
                "put a stage of kind \"tokenizer\" before it, or start from a folder",
            )
        })
    }

    /// The weights of a model that the stage does not train.
    ///
    /// # Panics
    /// For a name that is not in the recipe. Validation refuses such a recipe.
    pub fn weights(&self, model: &str) -> &Arena {
        self.models.get(model).unwrap_or_else(|| panic!("no model \"{model}\""))
    }

    /// Opens a model as a teacher.
    ///
    /// # Errors
    /// As [`teacher::open`].
    pub fn teacher<T: Real>(&self, model: &str) -> Result<Box<dyn Teacher<T>>, TrainError> {
        teacher::open(self.queue, self.weights(model))
    }

    /// Opens a model as a teacher in this process; with `layers` it keeps the hidden states of every layer.
    pub fn local_teacher<T: Real>(&self, model: &str, layers: bool) -> LocalTeacher<T> {
        match layers {
            true => LocalTeacher::with_layers(self.queue, self.weights(model)),
            false => LocalTeacher::new(self.queue, self.weights(model)),
        }
    }

    /// Records in the ledger which records the stage learns from, other than labels and answers. With it, the weights
    /// that a record influenced can be found.
    ///
    /// * `role`: what the records are used as: "prompt", "sample", "document" or "preference".
    pub(crate) fn note_uses<'c>(&self, role: &str, ids: impl Iterator<Item = &'c String>) -> Result<(), TrainError> {
        let note = |id: &String| RecordUse { record_id: id.clone(), stage: self.stage.into(), role: role.into() };
        Ok(self.run.ledger().record_uses(&ids.map(note).collect::<Vec<_>>())?)
    }

    /// Runs `steps` training steps of a model. Every training stage runs this loop.
    ///
    /// * `step`: accumulates the gradients of one step and calls [`Learner::update`] with the learning rate that it is given.
    /// * `validate`: measures an accuracy every few steps. The model gets the weights with the best accuracy at the end.
    ///
    /// # Errors
    /// An error of the step or the store; [`TrainError::Interrupted`], after a checkpoint, when the user asked to stop.
    pub fn train<T: Real>(
        &mut self,
        model: &str,
        optimisation: &Optimisation,
        steps: u64,
        mut step: impl FnMut(&mut Self, &mut Learner<T>, u64, f32) -> Result<StepOutcome, TrainError>,
        mut validate: Option<Validation<'_, T>>,
    ) -> Result<(), TrainError> {
        let master = self.models.remove(model).unwrap_or_else(|| panic!("no model \"{model}\""));
        let keep = if optimisation.recompute { Keep::Residuals } else { Keep::Everything };
        let mut learner = match optimisation.adapters() {
            None => Learner::<T>::new(self.queue, master, optimisation.hyperparameters(), keep),
            Some(lora) => {
                let key = self.key.word("adapters");
                Learner::<T>::with_adapters(self.queue, master, lora, key, optimisation.hyperparameters(), keep)
            }
        };
        let mut best: Option<(f64, Vec<u8>)> = None;
        let mut start = 0;
        if let Some(committed) = self.resume.take() {
            start = committed.step();
            best = self.restore(&mut learner, committed)?;
        }
        self.observer.stage(self.stage, start);
        for index in start..steps {
            let began = Instant::now();
            let rate = optimisation.schedule.rate(optimisation.learning_rate, index, steps, optimisation.warmup_steps);
            let mut outcome = step(self, &mut learner, index, rate)?;
            let done = index + 1;
            if let Some(found) = outcome.report.as_ref().and_then(|report| report.not_finite.as_ref()) {
                return Err(self.diverged(
                    done,
                    rate,
                    format!("the gradient is not finite: {found}; its update was not made"),
                ));
            }
            if let Some(validation) = validate.as_mut().filter(|v| done % v.every_steps == 0 || done == steps) {
                let Validated { accuracy, completions, unfinished } = (validation.measure)(self, &mut learner)?;
                outcome.metrics.extend([
                    ("validation_accuracy".into(), Some(accuracy)),
                    ("validation_completions".into(), Some(completions as f64)),
                    ("validation_unfinished".into(), Some(unfinished as f64)),
                ]);
                if best.as_ref().is_none_or(|(most, _)| accuracy > *most) {
                    best = Some((accuracy, to_bytes(learner.trained().values())));
                }
            }
            self.log(done, steps, rate, &outcome, began.elapsed().as_secs_f64())?;
            let stopping = self.stop.load(Ordering::Relaxed);
            if done < steps && (stopping || done % optimisation.checkpoint_every_steps == 0) {
                self.check_finite(done, rate, &learner)?;
                self.save(done, &learner, best.as_ref())?;
            }
            if stopping && done < steps {
                self.run.flush()?;
                return Err(TrainError::Interrupted { stage: self.stage.into(), step: done });
            }
        }
        if let Some((_, bytes)) = best {
            from_bytes(&bytes, learner.trained_mut().values_mut());
        }
        self.check_finite(steps, optimisation.learning_rate, &learner)?;
        self.models.insert(model.to_string(), learner.into_weights(self.queue));
        Ok(())
    }

    /// The error of a step that has diverged. Checkpoints hold finite values only, so the last one is still good.
    fn diverged(&self, step: u64, rate: f32, problem: String) -> TrainError {
        let stage = self.stage;
        let hint = format!(
            "training has diverged at the learning rate {rate}: set `learning_rate` lower (--set stages.{stage}.learning_rate=…), and begin a new \
             run with --name, or repeat the stage with --from {stage}; the same command would stop at the same step"
        );
        TrainError::stage(stage, format!("step {step}: {problem}"), hint)
    }

    /// Refuses weights and moments that are not finite, before they are kept.
    fn check_finite<T: Real>(&self, step: u64, rate: f32, learner: &Learner<T>) -> Result<(), TrainError> {
        let (trained, moments) = (learner.trained(), &learner.optimizer);
        let parts =
            [("weights", trained.values()), ("first moments", &moments.first), ("second moments", &moments.second)];
        for (what, values) in parts {
            if let Some((tensor, at, value)) = trained.first_not_finite(values) {
                let problem = format!("the {what} are not finite: {tensor} holds {value} at element {at}");
                return Err(self.diverged(step, rate, problem));
            }
        }
        Ok(())
    }

    /// Logs a training step.
    fn log(&mut self, done: u64, steps: u64, rate: f32, outcome: &StepOutcome, seconds: f64) -> Result<(), TrainError> {
        let report = outcome.report.as_ref();
        let (tokens, targets) = report.map_or((0, 0), |report| (report.tokens, report.targets));
        self.meters.train_tokens += tokens as u64;
        let mut metrics = vec![
            ("loss".to_string(), report.map(|report| report.loss)),
            ("gradient_norm".to_string(), report.map(|report| f64::from(report.gradient_norm))),
            ("entropy".to_string(), report.and_then(StepReport::mean_entropy)),
            ("learning_rate".to_string(), Some(f64::from(rate))),
            ("tokens".to_string(), Some(tokens as f64)),
            ("targets".to_string(), Some(targets as f64)),
        ];
        metrics.extend(outcome.metrics.iter().cloned());
        self.finish_step(done, steps, metrics, outcome.sample.as_deref(), seconds)
    }

    /// Logs and shows a step of any stage, and adds its seconds to the meters.
    pub(crate) fn finish_step(
        &mut self,
        step: u64,
        steps: u64,
        metrics: Figures,
        sample: Option<&str>,
        seconds: f64,
    ) -> Result<(), TrainError> {
        self.meters.seconds += seconds;
        let mut row = StepMetrics::new(self.stage, step).with("step_seconds", seconds);
        row.values.splice(..0, metrics.iter().cloned());
        self.run.log_step(&row)?;
        self.observer.step(&StepView { stage: self.stage, step, steps, metrics: &metrics, sample, seconds });
        Ok(())
    }

    fn save<T: Real>(&self, step: u64, learner: &Learner<T>, best: Option<&(f64, Vec<u8>)>) -> Result<(), TrainError> {
        let mut blobs = vec![
            Blob::bytes("weights", to_bytes(learner.trained().values())),
            Blob::bytes("first_moments", to_bytes(&learner.optimizer.first)),
            Blob::bytes("second_moments", to_bytes(&learner.optimizer.second)),
        ];
        if let Some((_, bytes)) = best {
            blobs.push(Blob::bytes("best_weights", bytes.clone()));
        }
        let state = self.state(false, learner.optimizer.steps, best.map(|(accuracy, _)| *accuracy));
        let stage = self.stage.to_string();
        Ok(self.run.commit(Checkpoint { stage_index: self.index, stage, step, blobs, state, ends_stage: false })?)
    }

    /// Commits the end of the stage.
    pub(crate) fn commit_finished(&self) -> Result<(), TrainError> {
        let stage = self.stage.to_string();
        let state = self.state(true, 0, None);
        let blobs = Vec::new();
        self.run.commit(Checkpoint { stage_index: self.index, stage, step: 0, blobs, state, ends_stage: true })?;
        Ok(self.run.flush()?)
    }

    pub(crate) fn state(&self, finished: bool, optimizer_steps: u32, best: Option<f64>) -> Value {
        let isa = self.queue.isa().name().to_string();
        let state = State { finished, meters: self.meters.clone(), cursor: self.cursor, optimizer_steps, best, isa };
        json!(state)
    }

    pub(crate) fn read_state(&self, committed: &Committed) -> Result<State, TrainError> {
        serde_json::from_value(committed.state().clone()).map_err(|error| {
            let hint = "another version has written it; begin a new run with --name";
            TrainError::stage(self.stage, format!("its checkpoint cannot be read: {error}"), hint)
        })
    }

    /// Resumes a stage that commits every step: restores its meters and returns the steps that are done.
    ///
    /// # Errors
    /// The checkpoint cannot be read.
    pub(crate) fn resume_between_steps(&mut self) -> Result<u64, TrainError> {
        let Some(committed) = self.resume.take() else { return Ok(0) };
        let state = self.read_state(committed)?;
        self.meters = state.meters;
        self.cursor = state.cursor;
        Ok(committed.step())
    }

    /// Commits a step of a stage that commits every step and trains no weights.
    pub(crate) fn commit_step(&self, step: u64) -> Result<(), TrainError> {
        let state = self.state(false, 0, None);
        let stage = self.stage.to_string();
        Ok(self.run.commit(Checkpoint {
            stage_index: self.index,
            stage,
            step,
            blobs: Vec::new(),
            state,
            ends_stage: false,
        })?)
    }

    fn restore<T: Real>(
        &mut self,
        learner: &mut Learner<T>,
        committed: &Committed,
    ) -> Result<Option<(f64, Vec<u8>)>, TrainError> {
        let state = self.read_state(committed)?;
        self.meters = state.meters;
        self.cursor = state.cursor;
        from_bytes(&committed.read("weights")?, learner.trained_mut().values_mut());
        from_bytes(&committed.read("first_moments")?, &mut learner.optimizer.first);
        from_bytes(&committed.read("second_moments")?, &mut learner.optimizer.second);
        learner.optimizer.steps = state.optimizer_steps;
        learner.repack(self.queue);
        match state.best {
            Some(accuracy) => Ok(Some((accuracy, committed.read("best_weights")?))),
            None => Ok(None),
        }
    }
}

/// Measures an accuracy every few steps of a training stage.
pub struct Validation<'a, T: Real> {
    /// Steps between two measurements.
    pub every_steps: u64,
    /// Measures the current weights.
    pub measure: Measure<'a, T>,
}

/// The function of a [`Validation`].
pub type Measure<'a, T> = Box<dyn FnMut(&mut Trainer, &mut Learner<T>) -> Result<Validated, TrainError> + 'a>;

/// The result of one validation.
pub struct Validated {
    /// The share of cases that are right, or of episodes with the full reward.
    pub accuracy: f64,
    /// Completions that were sampled for it.
    pub completions: usize,
    /// Those of them that did not end.
    pub unfinished: usize,
}

/// Elements that are copied between host and device at a time, since a second copy of all of them would be as large as a model.
const COPIED_AT_ONCE: usize = 1 << 20;

fn to_bytes(values: &Buffer<f32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * values.len());
    for start in (0..values.len()).step_by(COPIED_AT_ONCE) {
        let part = values.view().col_range(start..values.len().min(start + COPIED_AT_ONCE)).to_host();
        bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// # Panics
/// When the lengths differ. They cannot, since a checkpoint is resumed with the recipe that wrote it.
fn from_bytes(bytes: &[u8], values: &mut Buffer<f32>) {
    assert_eq!(bytes.len(), 4 * values.len(), "a checkpoint of another shape");
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    for (i, bytes) in bytes.chunks(4 * COPIED_AT_ONCE).enumerate() {
        let part: Vec<f32> = bytes.chunks_exact(4).map(value).collect();
        let start = i * COPIED_AT_ONCE;
        values.view_mut().col_range(start..start + part.len()).copy_from_host(&part);
    }
}
