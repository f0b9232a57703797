//! Prepares people's preferences for the stages: leaves out those that were withdrawn or that hold a held-out case,
//! encodes the others, and computes the reference's log-probabilities.

use std::collections::HashSet;
use std::time::Instant;

use kernels::Real;
use lm::head::Targets;
use schemars::Schema;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use store::{Label, LabelKind};

use crate::error::TrainError;
use crate::packing::{PackedCompletions, packed_completions};
use crate::plan::lengths::Lengths;
use crate::prompting::Prompting;
use crate::recipe::optimisation::Optimisation;
use crate::recipe::outline::heldout_cases;
use crate::stage::Checking;
use crate::step::StepReport;
use crate::tally::Figures;
use crate::teacher::local::LocalTeacher;
use crate::trainer::{StepOutcome, Trainer};
use tasks::data::held_out::HeldOut;
use tasks::data::preferences::{Preference, Preferences};

use tasks::{Prompt, Task};

/// A prompt and the answers to it, in tokens.
pub(super) struct Answers {
    pub prompt: Vec<u32>,
    pub completions: Vec<Vec<u32>>,
}

impl Answers {
    fn of(row: &Preference, task: &dyn Task, prompting: &Prompting) -> Result<Answers, TrainError> {
        let (_, prompt) = task.asked(&row.prompt);
        let completions = row.judged.completions().into_iter().map(|text| prompting.completion(text));
        Ok(Answers { prompt: prompting.prompt(&prompt)?, completions: completions.collect() })
    }

    /// The prompt with its whole answers, in the form that [`packed_completions`] takes.
    pub fn whole(&self) -> (&[u32], Vec<&[u32]>) {
        (&self.prompt, self.completions.iter().map(Vec::as_slice).collect())
    }
}

/// Refuses preferences that do not fit a model or a micro-batch.
pub(super) fn check(
    found: &Preferences,
    model: &str,
    optimisation: &Optimisation,
    checking: &Checking,
) -> Result<(), TrainError> {
    let Some(prompting) = checking.prompting else { return Ok(()) };
    let (mut longest, mut packed) = (0, 0);
    for row in &found.rows {
        let answers = Answers::of(row, checking.task, prompting)?;
        let (prompt, lengths) = (answers.prompt.len(), answers.completions.iter().map(Vec::len));
        longest = longest.max(prompt + lengths.clone().max().unwrap_or(0));
        packed = packed.max(prompt + lengths.map(|length| length + 1).sum::<usize>());
    }
    checking.context(model, "path", longest)?;
    checking.micro_batch(optimisation.tokens_per_micro_batch, packed)
}

/// The number of preferences in a file, and the assumed mean lengths of their prompts and answers, in tokens.
pub(super) fn sizes(found: &Preferences, lengths: &Lengths) -> (usize, f64, f64) {
    let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
    let prompts = found.rows.iter().flat_map(|row| asked(&row.prompt));
    let answers: Vec<f64> =
        found.rows.iter().flat_map(|row| row.judged.completions()).map(|text| lengths.of_text(text) + 1.0).collect();
    let count = found.rows.len();
    (count, mean(prompts.map(|text| lengths.of_text(text)).sum(), count), mean(answers.iter().sum(), answers.len()))
}

fn asked(prompt: &Prompt) -> Vec<&str> {
    match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
    }
}

/// The rows that may be trained on. Each is metered as a label, and a notice counts those that are left out.
///
/// # Errors
/// Every row holds a held-out case; a row was withdrawn since the run began; the ledger cannot be written.
pub(super) fn kept(found: Preferences, trainer: &mut Trainer) -> Result<Vec<Preference>, TrainError> {
    let Preferences { mut rows, repeated, equal, contradicted } = found;
    let met = rows.len();
    let withdrawn: HashSet<String> = trainer.run.ledger().withdrawn()?.into_iter().collect();
    let since = trainer.run.withdrawn_since();
    // A withdrawal may name a row of this file, or the task's case with the same prompt.
    let task = trainer.task;
    let ids = |row: &Preference| [row.id.clone(), task.asked(&row.prompt).0];
    rows.retain(|row| !ids(row).iter().any(|id| withdrawn.contains(id)));
    if let Some(id) = rows.iter().flat_map(ids).find(|id| since.contains(id)) {
        return Err(tasks::task::withdrawn(&id).into());
    }
    let cases = heldout_cases(trainer.settings, trainer.stages).max(trainer.settings.eval.unseen_cases);
    let held_out = HeldOut::of(trainer.task.kept_out(cases, trainer.settings.seed)?);
    let holds = |row: &Preference| {
        asked(&row.prompt).into_iter().any(|text| held_out.is_in(text))
            || row.judged.completions().into_iter().any(|text| held_out.is_quoted_in(text))
    };
    let all = rows.len();
    rows.retain(|row| !holds(row));
    if rows.is_empty() {
        let hint = "give preferences on prompts that are not held out; the task's split decides which are";
        return Err(TrainError::stage(trainer.stage, "every row holds a held-out case", hint));
    }
    trainer.note_uses("preference", rows.iter().flat_map(ids).collect::<Vec<_>>().iter())?;
    let label =
        |row: &Preference| Label { record_id: row.id.clone(), stage: trainer.stage.into(), kind: LabelKind::Judged };
    trainer.run.ledger().meter_labels(&rows.iter().map(label).collect::<Vec<_>>())?;
    let (held_out, withdrawn) = (all - rows.len(), met - all);
    let text = format!(
        "{}: {} judgements of people; left out: {held_out} that hold a held-out case, {withdrawn} withdrawn, {repeated} repeated, {equal} with \
         both sides the same; {contradicted} that another one contradicts are kept",
        trainer.stage,
        rows.len(),
    );
    trainer.notice("preferences_left_out", (held_out + withdrawn + repeated + equal) as u64, text)?;
    Ok(rows)
}

/// Encodes the rows.
pub(super) fn encoded(rows: &[Preference], trainer: &Trainer) -> Result<Vec<Answers>, TrainError> {
    let prompting = trainer.prompting()?;
    rows.iter().map(|row| Answers::of(row, trainer.task, &prompting)).collect()
}

/// The reference's log-probability of each whole completion, in nats, in the order of the completions.
pub(super) fn scored<'a, T: Real>(
    reference: &mut LocalTeacher<T>,
    trainer: &mut Trainer,
    prompts: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>,
    tokens_per_micro_batch: usize,
) -> Vec<f64> {
    let began = Instant::now();
    let mut sums = Vec::new();
    for packed in packed_completions(prompts, tokens_per_micro_batch) {
        let targets = targets(&packed);
        let logprobs = reference.logprobs(trainer.queue, &packed.batch, &targets, 1.0);
        trainer.meters.flops +=
            reference.model.config().forward_flops(packed.batch.len(), targets.len(), packed.batch.attention_pairs());
        sums.extend(summed(&packed, &logprobs));
    }
    trainer.meters.seconds += began.elapsed().as_secs_f64();
    sums
}

/// The completions' tokens.
pub(super) fn targets(packed: &PackedCompletions) -> Targets {
    let trained = packed.trained();
    Targets::of(&packed.batch, |t| trained[t])
}

/// The sum of each completion's log-probabilities, in nats.
pub(super) fn summed(packed: &PackedCompletions, logprobs: &[f32]) -> Vec<f64> {
    let sum = |rows: std::ops::Range<usize>| logprobs[rows].iter().map(|&logprob| f64::from(logprob)).sum();
    packed.rows().into_iter().map(sum).collect()
}

/// The outcome of a step. Its metrics are the named figures of the report, none if the report lacks one, and
/// `further`.
pub(super) fn outcome(report: StepReport, names: &[&str], further: Figures) -> StepOutcome {
    let figures = names.iter().map(|name| (name.to_string(), report.rows.figure(name)));
    StepOutcome { metrics: figures.chain(further).collect(), ..report.into() }
}

/// The default learning rate. A higher one soon damages a model whose full weights are trained.
const LEARNING_RATE: f32 = 1e-6;

/// Reads [`Optimisation`] with [`LEARNING_RATE`] as the default rate.
pub(super) fn gentle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Optimisation, D::Error> {
    #[derive(Deserialize)]
    struct Keys {
        #[serde(default = "learning_rate")]
        learning_rate: f32,
        #[serde(flatten)]
        rest: Optimisation,
    }
    fn learning_rate() -> f32 {
        LEARNING_RATE
    }
    Keys::deserialize(deserializer).map(|Keys { learning_rate, rest }| Optimisation { learning_rate, ..rest })
}

/// Writes the default of [`gentle`] into a stage's schema.
pub(super) fn gentle_keys(schema: &mut Schema) {
    if let Some(key) = schema.pointer_mut("/properties/learning_rate") {
        key["default"] = json!(LEARNING_RATE);
    }
}
