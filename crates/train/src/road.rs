//! The road: a recipe's stages, walked in order, each ending in a row of the ladder.
//!
//! 1. Open the run; go on from its last checkpoint if there is one.
//! 2. Weights of every model come from its source, or from the last finished stage that made them.
//! 3. Walk each stage; export its model; measure it on the held-out cases; record the row; commit.
//!
//! The commit after the row is what makes a stage done. A run killed anywhere before it does the stage's last steps, export and
//! measurement again, to the same bits.
//!
//! Read next: [`crate::walk`], the loop inside a stage.

mod baselines;
mod extent;
mod weights;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use kernels::{Queue, Real};
use lm::rng::Key;
use lm::{Arena, Model, Role};
use serde_json::json;
use store::{Run, RunOptions, Runs, StageRow};

use crate::check;
use crate::codec::Codec;
use crate::error::TrainError;
use crate::evaluate::{Evaluation, evaluate};
use crate::recipe::{ModelSource, Recipe, Stage, StageKind};
use crate::recipes;
use crate::tasks::withheld::Withheld;
use crate::tasks::{Case, Split, Task};
use crate::walk::{Meters, Observer, Walk};

pub use extent::Extent;

/// A finished road.
#[derive(Debug)]
pub struct Finished {
    /// The run's folder.
    pub folder: PathBuf,
    /// The ladder's rows, in order.
    pub rows: Vec<StageRow>,
}

/// Walks a recipe to its end. What [`check::check`] refuses should have been refused before.
///
/// # Errors
/// Whatever a stage meets; [`TrainError::Interrupted`] when `stop` was raised. The same call goes on.
pub fn walk<T: Real>(
    queue: &Queue,
    recipe: &Recipe,
    task: &dyn Task,
    runs: &Runs,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Finished, TrainError> {
    walk_part::<T>(queue, recipe, task, runs, &Extent::default(), observer, stop)
}

/// Walks a part of a recipe.
///
/// # Errors
/// As [`walk`]; [`TrainError::Extent`], before anything is done, where the part cannot be walked.
pub fn walk_part<T: Real>(
    queue: &Queue,
    recipe: &Recipe,
    task: &dyn Task,
    runs: &Runs,
    extent: &Extent,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Finished, TrainError> {
    let is_new = !runs.names()?.contains(&recipe.name);
    extent.check(recipe, if is_new { 0 } else { recipe.stages.len() })?;
    extent.rewind(recipe, runs)?;
    let run = runs.create_or_resume(&recipe.name, &recipe.resolved(), &RunOptions::default())?;
    run.notices().iter().for_each(|notice| observer.notice(&notice.text));
    task.notices().iter().for_each(|notice| observer.notice(notice));
    let withdrawn = run.ledger().withdrawn()?.into_iter().collect();
    let task: &dyn Task = &Withheld::new(task, withdrawn, run.withdrawn_since().clone());
    let heldout = Heldout::of(recipe, task)?;
    let (mut first, mut resume) = (0, None);
    if let Some(committed) = run.resumed() {
        let finished = committed.state()["finished"].as_bool().unwrap_or(false);
        first = committed.stage_index() as usize + usize::from(finished);
        resume = (!finished).then_some(committed);
    } else {
        baselines::record(recipe, task, &heldout, &run)?;
    }
    extent.check(recipe, first)?;
    let base = baselines::base(recipe);
    let (mut models, mut codec) = weights::restore(queue, recipe, &run, first)?;
    for (index, stage) in recipe.stages.iter().enumerate().skip(first).take_while(|(_, stage)| extent.holds(stage)) {
        if let Some((_, base)) = base.filter(|(place, _)| *place == index)
            && let Some(codec) = &codec
            && !baselines::few_shot::<T>(queue, recipe, task, &heldout, (&models[base], codec), &run)?
        {
            observer
                .notice("the baseline of the base model with examples is left out: not one example fits its context");
        }
        let mut walk = Walk {
            queue,
            recipe,
            run: &run,
            task,
            codec: codec.clone(),
            index: index as u64,
            stage: &stage.name,
            key: Key::new(recipe.seed).word("stage").word(&stage.name),
            meters: Meters::default(),
            cursor: 0,
            models: &mut models,
            observer: &mut *observer,
            stop,
            resume: resume.take(),
        };
        if let Some(made) = step_of::<T>(stage, &mut walk)? {
            codec = Some(Arc::new(made));
            walk.codec = codec.clone();
            let codec = walk.codec()?;
            check::lengths(recipe, task, &codec)?;
            weights::random(recipe, &mut walk)?;
        }
        let row = finish::<T>(stage, &mut walk, &heldout)?;
        walk.commit_finished()?;
        weights::copy(recipe, stage, walk.models);
        walk.observer.finished(&row);
    }
    Ok(Finished { folder: run.folder().to_path_buf(), rows: run.ledger().stages()? })
}

/// Runs one stage; a tokenizer stage returns the codec it made.
fn step_of<T: Real>(stage: &Stage, walk: &mut Walk) -> Result<Option<Codec>, TrainError> {
    match &stage.kind {
        StageKind::Tokenizer(keys) => {
            let began = Instant::now();
            walk.observer.stage(walk.stage, "tokenizer", 0);
            let codec = recipes::tokenizer::run(keys, walk)?;
            walk.meters.seconds += began.elapsed().as_secs_f64();
            return Ok(Some(codec));
        }
        StageKind::Pretrain(keys) => recipes::pretrain::run::<T>(keys, walk)?,
        StageKind::Sft(keys) => recipes::sft::run::<T>(keys, walk)?,
        StageKind::Grpo(keys) => recipes::grpo::run::<T>(keys, walk)?,
        StageKind::Sample(keys) => recipes::sample::run::<T>(keys, walk)?,
        StageKind::Distill(keys) => recipes::distill::run::<T>(keys, walk)?,
        StageKind::Dialogue(keys) => recipes::dialogue::run::<T>(keys, walk)?,
        // All that it does is the measurement, below.
        StageKind::Eval(_) => {}
    }
    Ok(None)
}

/// The cases behind every row; the same for all of them.
struct Heldout {
    cases: Vec<Case>,
    unseen: Vec<Case>,
}

impl Heldout {
    fn of(recipe: &Recipe, task: &dyn Task) -> Result<Heldout, TrainError> {
        let cases = task.cases(Split::Heldout, recipe.eval.cases, recipe.seed)?;
        let unseen = match recipe.eval.unseen_cases {
            0 => Vec::new(),
            n => task.cases(Split::HeldoutUnseen, n, recipe.seed)?,
        };
        Ok(Heldout { cases, unseen })
    }
}

/// Export, measurement and the ladder's row.
fn finish<T: Real>(stage: &Stage, walk: &mut Walk, heldout: &Heldout) -> Result<StageRow, TrainError> {
    let trained = stage.kind.trained();
    let (mut digest, mut measured, mut unseen) = (None, None, None);
    if let StageKind::Tokenizer(_) = stage.kind {
        let export = walk.run.begin_export(&stage.name)?;
        walk.codec()?.tokenizer.save(export.folder())?;
        export.finish()?;
    }
    if let Some(name) = trained {
        digest = Some(weights::export(walk, name)?);
        let mut model = Model::<T>::new(walk.queue, walk.weights(name), Role::Inference);
        measured = Some(measure(walk, &mut model, &heldout.cases)?);
        if !heldout.unseen.is_empty() {
            unseen = Some(measure(walk, &mut model, &heldout.unseen)?);
        }
    }
    if let StageKind::Eval(keys) = &stage.kind {
        measured = Some(recipes::eval::run::<T>(keys, walk, &heldout.cases)?);
    }
    let metered = walk.run.ledger().metered(&Vec::from_iter(walk.recipe.behind(walk.index as usize)))?;
    let meters = &walk.meters;
    let mut extra = serde_json::Map::new();
    if let Some(evaluation) = &measured {
        let mut figures = json!(evaluation);
        // The report gives calibration a place of its own.
        let calibration = figures.as_object_mut().and_then(|figures| figures.remove("calibration"));
        extra.insert("evaluation".into(), figures);
        extra.insert("calibration".into(), calibration.unwrap_or_default());
        // Rows are paired by greedy answers; one of several samples would stand for nothing that the row shows.
        if evaluation.k == 1 {
            let correct: String = evaluation.correct.iter().map(|&right| if right { '1' } else { '0' }).collect();
            extra.insert("correct".into(), correct.into());
        }
    }
    if let Some(evaluation) = &unseen {
        extra.insert("unseen".into(), json!(evaluation));
    }
    let row = StageRow {
        index: walk.index,
        stage: stage.name.clone(),
        recipe: stage.kind.name().into(),
        model: stage.kind.model().unwrap_or("").into(),
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
        cost: meters.seconds / 3600.0 * walk.recipe.cost_per_hour,
        digest: digest.clone(),
        extra,
    };
    walk.run.ledger().record_stage(&row)?;
    if let Some(digest) = &digest {
        lineage(walk.run, walk.recipe, stage, digest)?;
    }
    Ok(row)
}

fn measure<T: Real>(walk: &Walk, model: &mut Model<T>, cases: &[Case]) -> Result<Evaluation, TrainError> {
    let codec = walk.codec()?;
    let key = Key::new(walk.recipe.seed).word("held out");
    evaluate(walk.queue, model, &codec, walk.task, cases, 1, walk.recipe.eval.max_new_tokens, key)
}

/// Records which weights these were made from: the model's last ones, and its teacher's. The tokenizer's records are behind them too.
fn lineage(run: &Run, recipe: &Recipe, stage: &Stage, digest: &str) -> Result<(), TrainError> {
    let rows = run.ledger().stages()?;
    let latest = |model: &str| {
        let origin = match recipe.models.get(model) {
            Some(ModelSource::Stage { from }) => Some(from),
            _ => None,
        };
        let made = |row: &&StageRow| row.model == model || Some(&row.stage) == origin;
        rows.iter().rev().filter(|row| row.stage != stage.name).filter(made).find_map(|row| row.digest.as_deref())
    };
    let data = match &stage.kind {
        StageKind::Distill(keys) => recipe.stages.iter().find(|s| s.name == keys.data).map(|s| &s.kind),
        _ => None,
    };
    let (speaker, listener) = (data.and_then(StageKind::model), data.and_then(StageKind::teacher));
    let sources = [stage.kind.model(), stage.kind.teacher(), speaker, listener];
    let mut parents: Vec<&str> = sources.into_iter().flatten().filter_map(latest).collect();
    parents.sort_unstable();
    parents.dedup();
    if let Some(tokenizer) = recipe.stages.iter().find(|stage| matches!(stage.kind, StageKind::Tokenizer(_))) {
        run.ledger().record_lineage(digest, &tokenizer.name, &[])?;
    }
    Ok(run.ledger().record_lineage(digest, &stage.name, &parents)?)
}

/// Every model's weights by name.
pub(crate) type Models = BTreeMap<String, Arena>;
