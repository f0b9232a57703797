//! The pipeline: runs a recipe's stages in order. Each ends in a row of the ladder.
//!
//! 1. Open the run, and resume from its last checkpoint if there is one.
//! 2. Load the weights of every model, from its source or from the last finished stage that trained it.
//! 3. Run each stage, export its model, measure it on the held-out cases, record the row, and commit.
//!
//! The commit after the row makes a stage done. A run that is killed before it repeats the stage's last steps, its export and its
//! measurement, to the same bits.
//!
//! Read next: [`crate::trainer`], the loop inside a stage.

mod baselines;
mod extent;
mod heldout;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::{Model, Role};
use serde_json::json;
use store::{Committed, Run, Runs, StageRow};

use crate::check;
use crate::error::TrainError;
use crate::evaluate::{Evaluation, Ungraded, evaluate};
use crate::inputs;
use crate::notices::notice;
use crate::prompting::Prompting;
use crate::recipe::outline::{Outline, behind};
use crate::recipe::resolved::Recipe;
use crate::recipe::settings::Settings;
use crate::trainer::{Meters, Observer, Trainer};
use tasks::withheld::Withheld;
use tasks::{Case, Task};

pub use extent::Extent;
use heldout::Heldout;
pub use weights::digest_of;

/// A finished pipeline.
#[derive(Debug)]
pub struct Finished {
    /// The run's folder.
    pub folder: PathBuf,
    /// The ladder's rows, in order.
    pub rows: Vec<StageRow>,
}

/// Runs a recipe to its end. The recipe must have passed [`check::check`].
///
/// # Errors
/// The first error of a stage; [`TrainError::Interrupted`] when `stop` was set. The same call resumes the run.
pub fn run<T: Real>(
    queue: &Queue,
    recipe: &Recipe,
    task: &dyn Task,
    runs: &Runs,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Finished, TrainError> {
    run_part::<T>(queue, recipe, task, runs, &Extent::default(), observer, stop)
}

/// Runs a part of a recipe.
///
/// # Errors
/// As [`run`]; [`TrainError::Refused`], before any work is done, if the part cannot be run.
pub fn run_part<T: Real>(
    queue: &Queue,
    recipe: &Recipe,
    task: &dyn Task,
    runs: &Runs,
    extent: &Extent,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Finished, TrainError> {
    let settings = &recipe.settings;
    extent.rewind(recipe, task, runs)?;
    let run = runs.create_or_resume(&settings.name, &recipe.resolved())?;
    inputs::settle(recipe, run.ledger())?;
    run.notices().iter().for_each(|notice| observer.notice(&notice.text));
    for text in task.notices() {
        notice(&run, observer, "task", None, 1, text)?;
    }
    let withdrawn = run.ledger().withdrawn()?.into_iter().collect();
    let task: &dyn Task = &Withheld::new(task, withdrawn, run.withdrawn_since().clone());
    let (heldout, ungraded) = Heldout::of(settings, task)?;
    for Ungraded { count, reason } in ungraded {
        let text = format!("{count} held-out cases are left out of every accuracy: {reason}");
        notice(&run, observer, "heldout_ungraded", None, count as u64, text)?;
    }
    let (mut first, mut resume) = (0, None);
    if let Some(committed) = run.resumed() {
        let finished = committed.state()["finished"].as_bool().unwrap_or(false);
        first = committed.stage_index() as usize + usize::from(finished);
        resume = (!finished).then_some(committed);
        same_path(queue, &run, committed, observer)?;
    } else if !heldout.cases.is_empty() && !baselines::record(settings, task, &heldout, &run)? {
        let text = "the baselines on demonstrations are left out: the task shows no answer of a training case".into();
        notice(&run, observer, "baseline_left_out", None, 1, text)?;
    }
    extent.check(recipe, first)?;
    let base = baselines::base(recipe);
    let (mut models, mut prompting) = weights::restore(queue, recipe, &run, first)?;
    for (index, stage) in
        recipe.stages.iter().enumerate().skip(first).take_while(|(_, stage)| extent.holds(&stage.name))
    {
        if let Some((_, base)) = base.filter(|(place, _)| *place == index)
            && let Some(prompting) = prompting.as_ref().filter(|_| !heldout.cases.is_empty())
            && !baselines::few_shot::<T>(queue, settings, task, &heldout, (&models[base], prompting), &run)?
        {
            let text =
                "the baseline of the base model with examples is left out: not one example fits its context".into();
            notice(&run, observer, "baseline_left_out", Some(&stage.name), 1, text)?;
        }
        let mut trainer = Trainer {
            queue,
            settings,
            stages: &recipe.outlines,
            heldout: &heldout.cases,
            run: &run,
            task,
            prompting: prompting.clone(),
            index: index as u64,
            stage: &stage.name,
            key: Key::new(settings.seed).word("stage").word(&stage.name),
            meters: Meters::default(),
            cursor: 0,
            models: &mut models,
            observer: &mut *observer,
            stop,
            resume: resume.take(),
        };
        let outcome = stage.stage.run(T::DTYPE, &mut trainer)?;
        if let Some(made) = outcome.prompting {
            prompting = Some(Arc::new(made));
            trainer.prompting = prompting.clone();
            let prompting = trainer.prompting()?;
            check::check_lengths(recipe, task, &prompting)?;
            export_tokenizer(&trainer, &prompting)?;
            weights::random(&mut trainer)?;
        }
        let row = finish::<T>(&recipe.outlines[index], &mut trainer, &heldout, outcome.evaluation)?;
        trainer.commit_finished()?;
        weights::copy(settings, &recipe.outlines[index], trainer.models);
        trainer.observer.finished(&row);
    }
    Ok(Finished { folder: run.folder().to_path_buf(), rows: run.ledger().stages()? })
}

fn export_tokenizer(trainer: &Trainer, prompting: &Prompting) -> Result<(), TrainError> {
    let export = trainer.run.begin_export(trainer.stage)?;
    prompting.tokenizer.save(export.folder())?;
    export.finish()?;
    Ok(())
}

/// Notes that a run resumes on another instruction path than it began on.
fn same_path(queue: &Queue, run: &Run, committed: &Committed, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let (now, before) = (queue.isa().name(), committed.state()["isa"].as_str().unwrap_or_default());
    if now == before {
        return Ok(());
    }
    let text = format!("resuming on {now} what began on {before}: bits will differ from an unbroken run");
    notice(run, observer, "other_instructions", Some(committed.stage()), 1, text)
}

/// The cost of some seconds, in the user's currency; none if the recipe does not name the cost of an hour.
fn cost(settings: &Settings, seconds: f64) -> Option<f64> {
    (settings.cost_per_hour > 0.0).then(|| seconds / 3600.0 * settings.cost_per_hour)
}

/// Exports and measures the stage's model and records the ladder's row; `evaluation` is the stage's own measurement, if it made one.
fn finish<T: Real>(
    stage: &Outline,
    trainer: &mut Trainer,
    heldout: &Heldout,
    evaluation: Option<Evaluation>,
) -> Result<StageRow, TrainError> {
    let (mut digest, mut measured, mut unseen) = (None, evaluation, None);
    if let Some(name) = stage.trained() {
        digest = Some(weights::export(trainer, name)?);
        let mut model = Model::<T>::new(trainer.queue, trainer.weights(name), Role::Inference);
        measured = measure(trainer, &mut model, &heldout.cases)?;
        unseen = measure(trainer, &mut model, &heldout.unseen)?;
    }
    let metered = trainer.run.ledger().metered(&Vec::from_iter(behind(
        trainer.settings,
        trainer.stages,
        trainer.index as usize,
    )))?;
    let meters = &trainer.meters;
    let mut extra = serde_json::Map::new();
    if let Some(evaluation) = &measured {
        let mut figures = json!(evaluation);
        // The report shows calibration separately.
        let calibration = figures.as_object_mut().and_then(|figures| figures.remove("calibration"));
        extra.insert("evaluation".into(), figures);
        extra.insert("calibration".into(), calibration.unwrap_or_default());
        // Rows are compared by their greedy answers. With several samples, the first one alone is not what the row shows.
        if evaluation.k == 1 {
            let correct: String = evaluation.correct.iter().map(|&right| if right { '1' } else { '0' }).collect();
            extra.insert("correct".into(), correct.into());
        }
    }
    if let Some(evaluation) = &unseen {
        extra.insert("unseen".into(), json!(evaluation));
    }
    let row = StageRow {
        index: trainer.index,
        stage: stage.name.clone(),
        kind: stage.kind.into(),
        model: stage.model().unwrap_or("").into(),
        accuracy: measured.as_ref().map(|e| e.accuracy),
        low: measured.as_ref().map(|e| e.low),
        high: measured.as_ref().map(|e| e.high),
        n: measured.as_ref().map_or(0, |e| e.n as u64),
        labels: metered.labels,
        answers_read: metered.answers_read,
        rollouts: meters.rollouts,
        teacher_tokens: meters.teacher_tokens,
        train_tokens: meters.train_tokens,
        flops: meters.flops,
        seconds: meters.seconds,
        cost: cost(trainer.settings, meters.seconds),
        digest: digest.clone(),
        extra,
    };
    trainer.run.ledger().record_stage(&row)?;
    if let Some(digest) = &digest {
        lineage(trainer, stage, digest)?;
    }
    Ok(row)
}

/// Measures the model on the cases; none without cases.
fn measure<T: Real>(trainer: &Trainer, model: &mut Model<T>, cases: &[Case]) -> Result<Option<Evaluation>, TrainError> {
    if cases.is_empty() {
        return Ok(None);
    }
    let prompting = trainer.prompting()?;
    let key = Key::new(trainer.settings.seed).word("held out");
    let most = trainer.settings.eval.max_new_tokens;
    evaluate(trainer.queue, model, &prompting, trainer.task, cases, 1, most, key).map(Some)
}

/// Records in the ledger what the stage's weights were made from: the previous weights of its model, those of its
/// teacher, those of the models behind its data set, and the tokenizer stage.
fn lineage(trainer: &Trainer, stage: &Outline, digest: &str) -> Result<(), TrainError> {
    let ledger = trainer.run.ledger();
    let rows = ledger.stages()?;
    let latest = |model: &str| {
        let origin = trainer.settings.models.get(model).and_then(|source| source.copied_from());
        let made = |row: &&StageRow| row.model == model || Some(row.stage.as_str()) == origin;
        rows.iter().rev().filter(|row| row.stage != stage.name).filter(made).find_map(|row| row.digest.as_deref())
    };
    let data = stage.roles.data.as_ref().and_then(|name| trainer.stages.iter().find(|stage| stage.name == *name));
    let sources = [Some(stage), data].into_iter().flatten().flat_map(|stage| [stage.model(), stage.teacher()]);
    let mut parents: Vec<&str> = sources.flatten().filter_map(latest).collect();
    parents.sort_unstable();
    parents.dedup();
    if let Some(tokenizer) = trainer.stages.iter().find(|stage| stage.vocab_size().is_some()) {
        ledger.record_lineage(digest, &tokenizer.name, &[])?;
    }
    Ok(ledger.record_lineage(digest, &stage.name, &parents)?)
}
