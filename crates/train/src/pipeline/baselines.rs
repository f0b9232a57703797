//! Measures the cheap baselines of every ladder: the constant answer, a linear model over characters, the vote of the nearest cases, and
//! the base model with a few examples in its prompt.
//!
//! The first three learn from the answers of the training cases that fine-tuning may use. The last is the model before any label has changed
//! its weights, given or pretrained. All are graded by the same strict grader on the same held-out cases as the models. A model that does
//! not beat them has not paid for its compute.

use std::time::Instant;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::generate::Sampling;
use lm::{Arena, Model, Role};
use serde_json::json;
use store::{BaselineRow, Run};

use super::heldout::Heldout;
use crate::baselines::{CONSTANT, FEW_SHOT, NEAREST, NGRAMS, Neighbours, NgramModel, NgramSettings, commonest};
use crate::error::TrainError;
use crate::evaluate::mean_parts;
use crate::prompting::{EXAMPLE_END, Prompting};
use crate::recipe::resolved::Recipe;
use crate::recipe::settings::Settings;
use crate::rollout::{EncodedPrompt, Group, Plan, sample_encoded};
use crate::stats::wilson;
use tasks::{Case, Completion, Grade, Prompt, Task, first_written};

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// The longest n-gram of their features, in characters.
const NEIGHBOUR_NGRAM: usize = 3;

/// Measures the first three baselines and records them. Returns false if the recipe wants them and the task shows no answer to learn from.
///
/// # Errors
/// The task's cases cannot be read, or the ledger cannot be written.
pub(super) fn record(settings: &Settings, task: &dyn Task, heldout: &Heldout, run: &Run) -> Result<bool, TrainError> {
    let labels = settings.eval.baseline_demonstrations;
    let demonstrated = first_written(task, labels, settings.seed, |case| task.bare_answer(case))?;
    if demonstrated.is_empty() {
        return Ok(labels == 0);
    }
    let texts: Vec<String> = demonstrated.iter().map(|(case, _)| case.prompt_text()).collect();
    let pairs: Vec<(&str, &str)> =
        texts.iter().map(String::as_str).zip(demonstrated.iter().map(|(_, answer)| answer.as_str())).collect();
    let record = |name: &str, grades: Vec<Grade>, began: Instant| {
        Ok::<_, TrainError>(run.ledger().record_baseline(&row(name, &grades, pairs.len(), began))?)
    };
    let began = Instant::now();
    if let Some(answer) = commonest(pairs.iter().map(|(_, answer)| *answer)) {
        record(CONSTANT, grades(task, &heldout.cases, |_| answer), began)?;
    }
    let began = Instant::now();
    let model = NgramModel::train(&pairs, NgramSettings::default());
    let graded = grades(task, &heldout.cases, |case| model.predict(&case.prompt_text()));
    record(NGRAMS, graded, began)?;
    let began = Instant::now();
    let texts: Vec<&str> = pairs.iter().map(|(text, _)| *text).collect();
    let neighbours = Neighbours::of(&texts, NEIGHBOUR_NGRAM);
    let graded = grades(task, &heldout.cases, |case| {
        voted(task, &demonstrated, &neighbours.nearest(&case.prompt_text(), NEIGHBOURS))
    });
    record(NEAREST, graded, began)?;
    Ok(true)
}

/// The neighbours' vote. Each neighbour proposes its own answer. An answer gets the vote of every neighbour for whose
/// case the task grades it as right; the vote's weight is that neighbour's cosine. On a tie the nearest proposer wins.
/// The vote does not count equal answers, because answers of several parts are rarely equal as a whole.
fn voted<'a>(task: &dyn Task, demonstrated: &'a [(Case, String)], near: &[(usize, f32)]) -> &'a str {
    let support = |answer: &str| {
        let right = |index: usize| task.grade(&demonstrated[index].0, &Completion::finished(answer)).correct;
        near.iter().filter(|(index, _)| right(*index)).map(|(_, cosine)| cosine).sum::<f32>()
    };
    let answers = near.iter().map(|(index, _)| demonstrated[*index].1.as_str());
    // `max_by` takes the last of equal ones, so the nearest comes last.
    let supported = answers.rev().map(|answer| (support(answer), answer)).max_by(|a, b| a.0.total_cmp(&b.0));
    supported.map_or("", |(_, answer)| answer)
}

/// The index of the first stage that tunes a model, and that model. None if the model has random weights there, or if the recipe wants no
/// few-shot baseline.
pub(super) fn base(recipe: &Recipe) -> Option<(usize, &str)> {
    let place = recipe.stages.iter().position(|stage| stage.stage.tunes())?;
    let model = recipe.outlines[place].model()?;
    let pretrained = recipe.outlines[..place].iter().any(|stage| stage.trained() == Some(model));
    let random = recipe.settings.models.get(model).is_some_and(|source| source.shape().is_some());
    (recipe.settings.eval.few_shot_examples > 0 && (pretrained || !random)).then_some((place, model))
}

/// Measures the base model with examples in its prompt: as many as the recipe wants and the context holds. Does nothing
/// if the ledger holds the result already. Returns whether the ledger holds it now; it does not if not even one example
/// fits.
///
/// # Errors
/// The task's cases cannot be read, a prompt cannot be encoded, or the ledger cannot be written.
pub(super) fn few_shot<T: Real>(
    queue: &Queue,
    settings: &Settings,
    task: &dyn Task,
    heldout: &Heldout,
    (weights, prompting): (&Arena, &Prompting),
    run: &Run,
) -> Result<bool, TrainError> {
    if run.ledger().baselines()?.iter().any(|row| row.name == FEW_SHOT) {
        return Ok(true);
    }
    let began = Instant::now();
    let written = |case: &Case| task.demonstration(case).or_else(|| task.bare_answer(case));
    let mut examples = first_written(task, settings.eval.few_shot_examples, settings.seed, written)?;
    let room = weights.config().max_position_embeddings.saturating_sub(settings.eval.max_new_tokens);
    let prompts = loop {
        let shown: Vec<(&Prompt, &str)> =
            examples.iter().map(|(case, answer)| (&case.prompt, answer.as_str())).collect();
        let encode =
            |case: &Case| Ok(EncodedPrompt { id: case.id.clone(), tokens: prompting.few_shot(&shown, &case.prompt)? });
        let prompts = heldout.cases.iter().map(encode).collect::<Result<Vec<EncodedPrompt>, TrainError>>()?;
        if examples.is_empty() || prompts.iter().all(|prompt| prompt.tokens.len() <= room) {
            break prompts;
        }
        examples.pop();
    };
    if examples.is_empty() {
        return Ok(false);
    }
    let key = Key::new(settings.seed).word("few-shot");
    let max_new_tokens = settings.eval.max_new_tokens;
    let plan = Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens, key };
    let mut model = Model::<T>::new(queue, weights, Role::Inference);
    let mut groups = sample_encoded(queue, &mut model, prompting, prompts, &plan)?;
    // A completion that goes on to a further example has ended its own answer.
    for rollout in groups.iter_mut().flat_map(|group| &mut group.rollouts) {
        if let Some(end) = rollout.text.find(EXAMPLE_END) {
            rollout.text.truncate(end);
            rollout.finished = true;
        }
    }
    let grade = |(case, group): (&Case, &Group)| task.grade(case, &group.rollouts[0].completion());
    let grades: Vec<Grade> = heldout.cases.iter().zip(&groups).map(grade).collect();
    let mut row = row(FEW_SHOT, &grades, examples.len(), began);
    row.extra.insert("examples".into(), examples.len().into());
    let unfinished = groups.iter().flat_map(|group| &group.rollouts).filter(|rollout| !rollout.finished).count();
    row.extra.insert("unfinished".into(), unfinished.into());
    run.ledger().record_baseline(&row)?;
    Ok(true)
}

fn grades<'a>(task: &dyn Task, cases: &[Case], answer: impl Fn(&Case) -> &'a str) -> Vec<Grade> {
    cases.iter().map(|case| task.grade(case, &Completion::finished(answer(case)))).collect()
}

fn row(name: &str, grades: &[Grade], labels: usize, began: Instant) -> BaselineRow {
    let (count, n) = (grades.iter().filter(|grade| grade.correct).count(), grades.len());
    let interval = wilson(count, n);
    let correct: String = grades.iter().map(|grade| if grade.correct { '1' } else { '0' }).collect();
    let mut extra = serde_json::Map::new();
    extra.insert("correct".into(), correct.into());
    extra.insert("parts".into(), json!(mean_parts(grades)));
    BaselineRow {
        name: name.into(),
        accuracy: count as f64 / n.max(1) as f64,
        low: interval.low,
        high: interval.high,
        n: n as u64,
        labels: labels as u64,
        answers_read: 0,
        seconds: began.elapsed().as_secs_f64(),
        extra,
    }
}
