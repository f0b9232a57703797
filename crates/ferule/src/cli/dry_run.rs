//! `ferule run --dry-run`: prints the resolved recipe to stdout, so that it can be kept, and its estimated cost to
//! stderr.

use kernels::{Queue, Real};
use tasks::Task;
use train::plan::{Cost, Plan};
use train::recipe::Recipe;

use super::machine::{self, readable};
use super::output::Output;
use super::table::aligned;
use crate::report::figures::{count, duration, large};
use crate::visible;

/// The factor by which a whole run's time may differ from its estimate, either way, on a machine without other work;
/// see `bench/LOG.md`.
const FACTOR: f64 = 2.0;

/// Estimates the recipe and prints both. Nothing is written to the disk.
///
/// `recipes`: one for each seed. All cost the same, so the first one is estimated.
pub fn run<T: Real>(queue: &Queue, recipes: &[Recipe], task: &dyn Task) -> anyhow::Result<()> {
    let recipe = &recipes[0];
    let plan = Plan::of::<T>(queue, recipe, task)?;
    let mut output = Output::stdout();
    output.text(&recipe.resolved())?;
    output.flush()?;
    eprint!("{}", visible::text(&(text(&plan, queue, &recipe.settings.dtype) + &draws(&plan, recipes))));
    Ok(())
}

fn text(plan: &Plan, queue: &Queue, dtype: &str) -> String {
    format!("{}\n{}\n{}", models(plan), stages(plan), notes(plan, queue, dtype))
}

/// The cost of all seeds together; empty for a single run.
fn draws(plan: &Plan, recipes: &[Recipe]) -> String {
    let [first, .., last] = recipes else { return String::new() };
    let (Cost { flops, seconds }, count) = (plan.total(), recipes.len() as f64);
    format!(
        "All {count} seeds, one after the other: {} FLOPs, {}; the table above is for one of them. Runs: {} to {}.\n",
        large(count * flops),
        duration(count * seconds),
        first.settings.name,
        last.settings.name
    )
}

fn models(plan: &Plan) -> String {
    let mut rows = vec![["model", "parameters", "shape", "from", "training", "sampling"].map(String::from).to_vec()];
    for model in &plan.models {
        let config = &model.config;
        rows.push(vec![
            model.name.clone(),
            large(config.parameters() as f64),
            format!("{} × {}, vocabulary {}", config.hidden_size, config.num_hidden_layers, config.vocab_size),
            model.source.clone(),
            format!("{:.1} GFLOP/s", model.speed.training / 1e9),
            format!("{:.1} GFLOP/s", model.speed.sampling / 1e9),
        ]);
    }
    aligned(&rows, &[0, 2, 3])
}

fn stages(plan: &Plan) -> String {
    let headings = ["stage", "model", "steps", "trained", "sampled", "teacher", "FLOPs", "memory", "time"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for stage in &plan.stages {
        let (work, Cost { flops, seconds }) = (&stage.work, stage.cost);
        rows.push(vec![
            stage.name.clone(),
            stage.model.clone(),
            count(stage.steps),
            large(work.train_tokens),
            large(work.sampled_tokens),
            large(work.teacher_tokens),
            large(flops),
            readable(stage.bytes),
            duration(seconds),
        ]);
    }
    let last = |name: &str, cost: Cost, bytes: String| {
        let mut row = vec![name.to_string()];
        row.resize(6, String::new());
        row.extend([large(cost.flops), bytes, duration(cost.seconds)]);
        row
    };
    rows.push(last("measuring every row", plan.measuring, String::new()));
    rows.push(last("total", plan.total(), readable(plan.bytes())));
    aligned(&rows, &[0, 1])
}

fn notes(plan: &Plan, queue: &Queue, dtype: &str) -> String {
    let lengths = &plan.lengths;
    let expert = match lengths.demonstration {
        Some(tokens) => format!("an expert's completion {tokens:.0}"),
        None => "completions at their maximum length".to_string(),
    };
    let document = if lengths.document > 0.0 { format!(", a document {:.0}", lengths.document) } else { String::new() };
    let mut notes = format!(
        "Tokens on average: a prompt {:.0}, {expert}{document}. The columns trained, sampled and teacher count tokens.\n\
         Time: operations divided by the rates above, which a short probe has just measured in {dtype} on {} threads ({}); the real time should be within a factor of {FACTOR:.0}.\n",
        lengths.prompt,
        queue.threads(),
        queue.isa().name()
    );
    if let Some(free) = machine::available_bytes().filter(|&free| free < plan.bytes()) {
        notes +=
            &format!("warning: {} of memory is free, and {} will be needed\n", readable(free), readable(plan.bytes()));
    }
    notes
}
