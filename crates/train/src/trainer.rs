//! What a stage is given to work with, and the loop that every training stage runs.
//!
//! [`Trainer::train`] knows steps, learning rates, metrics, checkpoints and stopping, and no algorithm; a stage's code is the closure that
//! makes one step's batches and signals. A checkpoint holds the weights that learn, their moments, the step and the meters; everything else
//! of a step is a function of the recipe, so that a run that was killed goes on bit for bit.
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

/// What a stage has spent; kept across restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meters {
    /// Completions sampled.
    pub rollouts: u64,
    /// Tokens a teacher generated or judged.
    pub teacher_tokens: u64,
    /// Packed tokens that were trained on.
    pub train_tokens: u64,
    /// Floating-point operations: training, sampling, teachers.
    pub flops: f64,
    /// Wall-clock time.
    pub seconds: f64,
}

/// One step as a person sees it.
pub struct StepView<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The step's metrics; none where the step has no such figure.
    pub metrics: &'a [(String, Option<f64>)],
    /// A sample rollout, now and then.
    pub sample: Option<&'a str>,
    /// Seconds of this step.
    pub seconds: f64,
}

/// Who watches: a terminal, a log, nobody.
pub trait Observer {
    /// A stage begins, or goes on from a step.
    fn stage(&mut self, name: &str, from_step: u64);
    /// A step is done.
    fn step(&mut self, view: &StepView);
    /// Something to be said once.
    fn notice(&mut self, text: &str);
    /// A stage is done, with its row of the ladder.
    fn finished(&mut self, row: &store::StageRow);
}

/// The step that a stage's closure ends with.
pub struct StepOutcome {
    /// What the learner reported; none where the step made no update.
    pub report: Option<StepReport>,
    /// Further figures for the metrics.
    pub metrics: Figures,
    /// A sample to show.
    pub sample: Option<String>,
}

impl From<StepReport> for StepOutcome {
    fn from(report: StepReport) -> Self {
        Self { report: Some(report), metrics: Vec::new(), sample: None }
    }
}

/// One stage at work.
pub struct Trainer<'a> {
    /// Where work runs.
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
    /// The tokenizer and template; none before the tokenizer stage of random models.
    pub prompting: Option<Arc<Prompting>>,
    /// The stage's place in the recipe.
    pub index: u64,
    /// The stage's name.
    pub stage: &'a str,
    /// Key of the stage's random numbers.
    pub key: Key,
    /// What it has spent.
    pub meters: Meters,
    /// A stage's own place in its data, kept in checkpoints: documents read, for example.
    pub cursor: u64,
    /// Every model's weights; a stage takes out what it trains and puts it back.
    pub models: &'a mut BTreeMap<String, Arena>,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Raised when the user asks to stop.
    pub stop: &'a AtomicBool,
    /// Where to go on from, when this stage was interrupted.
    pub resume: Option<&'a Committed>,
}

/// State of a checkpoint, beside the weights.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether the stage is done: then the next one begins.
    pub finished: bool,
    pub meters: Meters,
    pub cursor: u64,
    pub optimizer_steps: u32,
    pub best: Option<f64>,
    /// The instruction path; bits are equal within one.
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

    /// The weights of a model that is only read.
    ///
    /// # Panics
    /// For an unknown name: reading the recipe refuses those.
    pub fn weights(&self, model: &str) -> &Arena {
        self.models.get(model).unwrap_or_else(|| panic!("no model \"{model}\""))
    }

    /// The teacher that a model is.
    ///
    /// # Errors
    /// As [`teacher::open`].
    pub fn teacher<T: Real>(&self, model: &str) -> Result<Box<dyn Teacher<T>>, TrainError> {
        teacher::open(self.queue, self.weights(model))
    }

    /// The teacher that a model is, in this process; `layers` for hidden states of every layer.
    pub fn local_teacher<T: Real>(&self, model: &str, layers: bool) -> LocalTeacher<T> {
        match layers {
            true => LocalTeacher::with_layers(self.queue, self.weights(model)),
            false => LocalTeacher::new(self.queue, self.weights(model)),
        }
    }

    /// Notes the records that the stage learns from otherwise than as labels or answers, so that the weights they touched can be found.
    ///
    /// * `role`: as what: "prompt", "sample", "document".
    pub(crate) fn note_uses<'c>(&self, role: &str, ids: impl Iterator<Item = &'c String>) -> Result<(), TrainError> {
        let note = |id: &String| RecordUse { record_id: id.clone(), stage: self.stage.into(), role: role.into() };
        Ok(self.run.ledger().record_uses(&ids.map(note).collect::<Vec<_>>())?)
    }

    /// Runs `steps` training steps of a model: the loop of every recipe.
    ///
    /// `step` makes a step's gradients and ends with [`Learner::update`] at the rate it is given. `validate`, when present, is asked
    /// now and then for an accuracy; the weights with the best one are kept at the end.
    ///
    /// # Errors
    /// What the step or the store met; [`TrainError::Interrupted`] after a checkpoint, when the user asked to stop.
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
        self.models.insert(model.to_string(), learner.into_weights(self.queue));
        Ok(())
    }

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

    /// Logs a step of any stage, counts its seconds and shows it.
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
            let hint = "the checkpoint was written by another version; begin a new run with --name";
            TrainError::stage(self.stage, format!("its checkpoint cannot be understood: {error}"), hint)
        })
    }

    /// Steps already done of a stage whose every step ends with a commit; its meters are restored.
    ///
    /// # Errors
    /// A checkpoint that cannot be understood.
    pub(crate) fn resume_between_steps(&mut self) -> Result<u64, TrainError> {
        let Some(committed) = self.resume.take() else { return Ok(0) };
        let state = self.read_state(committed)?;
        self.meters = state.meters;
        self.cursor = state.cursor;
        Ok(committed.step())
    }

    /// Commits a step of such a stage.
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

/// Asks for an accuracy now and then.
pub struct Validation<'a, T: Real> {
    /// Steps between two measurements.
    pub every_steps: u64,
    /// Measures the weights as they are.
    pub measure: Measure<'a, T>,
}

/// How a validation measures.
pub type Measure<'a, T> = Box<dyn FnMut(&mut Trainer, &mut Learner<T>) -> Result<Validated, TrainError> + 'a>;

/// What a validation finds.
pub struct Validated {
    /// The share of cases that are right, or of games that were won.
    pub accuracy: f64,
    /// Completions sampled for it.
    pub completions: usize,
    /// Those that did not end.
    pub unfinished: usize,
}

/// Elements that are copied between host and device at a time: a second copy of all of them would be as large as a model.
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
/// When the lengths differ: the recipe that wrote the checkpoint is the one that reads it.
fn from_bytes(bytes: &[u8], values: &mut Buffer<f32>) {
    assert_eq!(bytes.len(), 4 * values.len(), "a checkpoint of another shape");
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    for (i, bytes) in bytes.chunks(4 * COPIED_AT_ONCE).enumerate() {
        let part: Vec<f32> = bytes.chunks_exact(4).map(value).collect();
        let start = i * COPIED_AT_ONCE;
        values.view_mut().col_range(start..start + part.len()).copy_from_host(&part);
    }
}
