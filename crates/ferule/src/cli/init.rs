//! `ferule init FILE`: inspects the user's data and writes a commented recipe.

use std::path::{Path, PathBuf};

use tasks::data::inspect;
use train::recipe::starter;

use super::output::Output;
use crate::outcome::{WrongUse, failure};
use crate::visible::note;

/// What `ferule init` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// Your data: JSON lines, JSON, CSV, Excel or Parquet
    file: PathBuf,
    /// The base model's folder, as the recipe will name it
    #[arg(long, default_value = "MODEL_FOLDER")]
    model: String,
    /// The recipe to write [default: the file's name with .toml, in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let inspection = inspect(&arguments.file)?;
    let stem = arguments.file.file_stem().map_or("data".into(), |stem| stem.to_string_lossy().into_owned());
    let recipe = arguments.output.unwrap_or_else(|| PathBuf::from(format!("{stem}.toml")));
    let cases = recipe.with_extension("cases.jsonl");
    for path in [&recipe, &cases] {
        if path.exists() {
            return Err(WrongUse::error(format!("{} exists already", path.display()), "name another with --output"));
        }
    }
    let cases_name = cases.file_name().map_or_else(|| stem.clone(), |name| name.to_string_lossy().into_owned());
    let text = starter(&inspection, &stem, &cases_name, &arguments.model)?;
    write(&cases, &inspection.case_lines())?;
    write(&recipe, &text)?;
    let mut output = Output::stdout();
    output.json_line(&inspection.findings)?;
    output.flush()?;
    if inspection.without_case > 0 {
        eprintln!("warning: {} documents have no case and are left out", inspection.without_case);
    }
    inspection.findings.warnings().iter().for_each(|warning| note!("warning: {warning}"));
    note!("wrote {} and {}", recipe.display(), cases.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)
        .map_err(|error| failure(format!("cannot write {}: {error}", path.display()), "name another with --output"))
}
