//! `ferule grade RUN`: grades stored rollouts by other rules, and shows old and new rewards side by side.

use std::path::PathBuf;

use serde_json::json;
use store::Runs;
use tasks::Completion;
use train::episodes::GAME;
use train::recipe::Recipe;
use train::rules::Rules;

use super::output::Output;
use crate::outcome::failure;

/// What `ferule grade` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's name
    run: String,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// The stage whose rollouts are graded
    #[arg(long)]
    stage: String,
    /// The recipe whose task and rules grade them
    #[arg(long)]
    recipe: PathBuf,
    /// Which of the task's sets of rules, such as answers or answer_free
    #[arg(long, default_value = "answers")]
    rules: String,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let recipe = Recipe::read(&arguments.recipe, &[])?;
    let task = recipe.build_task()?;
    let rules = Rules::Arm(arguments.rules.clone()).build(&*task, &recipe.settings.folder)?;
    let view = Runs::open(&arguments.runs).view(&arguments.run)?;
    let mut output = Output::stdout();
    for step in view.rollout_steps(&arguments.stage)? {
        let rows = view.rollouts(&arguments.stage, step)?;
        if rows.iter().any(|row| row.verdicts.iter().any(|verdict| verdict.rule == GAME)) {
            let problem =
                format!("stage {} rolled out multi-turn episodes, which the environment judged", arguments.stage);
            return Err(failure(problem, "grade a stage whose completions were judged by rules"));
        }
        let (mut old, mut new, mut changed) = (0.0, 0.0, 0);
        for row in &rows {
            let completion = Completion { text: &row.completion, finished: row.finished, tokens: row.tokens.len() };
            let judged = rules.judge(&row.prompt, row.answer.as_deref(), &completion);
            old += row.reward.unwrap_or(0.0);
            new += judged.reward.unwrap_or(0.0);
            changed += usize::from(judged.reward != row.reward);
        }
        let n = rows.len().max(1) as f64;
        output.json_line(&json!({
            "step": step,
            "rollouts": rows.len(),
            "reward_old": old / n,
            "reward_new": new / n,
            "changed": changed,
        }))?;
    }
    output.flush()
}
