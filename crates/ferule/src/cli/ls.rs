//! `ferule ls`: the runs, and how far each has come.

use std::path::PathBuf;

use store::Runs;

use super::output::Output;

/// What `ferule ls` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    for summary in Runs::open(&arguments.runs).list()? {
        let place = match (&summary.stage, summary.step) {
            (Some(stage), Some(step)) if step > 0 => format!("{stage}, step {step}"),
            (Some(stage), _) => stage.clone(),
            _ => "not begun".into(),
        };
        let state = if summary.locked { "running" } else { "at rest" };
        let problem = summary.problem.map(|problem| format!("  {problem}")).unwrap_or_default();
        let done = summary.stages_finished.len();
        output.text(&format!("{:24} {state:8} {done} stages done  {place}{problem}\n", summary.name))?;
    }
    output.flush()
}
