//! `ferule report RUN`: one run as a page of HTML, or its ladder as JSON.

use std::path::PathBuf;

use lm::tokenizer::Tokenizer;
use store::{RunView, Runs};

use super::output::Output;
use crate::outcome::failure;
use crate::report::{Language, Report, page, summary};

/// What `ferule report` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's name
    run: String,
    /// Folder of all runs
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// The page to write [default: report.html in the run's folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Language of the page
    #[arg(long, value_enum, default_value = "en")]
    language: LanguageName,
    /// Write the ladder as JSON to stdout instead
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum LanguageName {
    En,
    Zh,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let view = Runs::open(&arguments.runs).view(&arguments.run)?;
    let mut output = Output::stdout();
    if arguments.json {
        output.json_line(&summary(&view)?)?;
        return output.flush();
    }
    let language = match arguments.language {
        LanguageName::En => Language::English,
        LanguageName::Zh => Language::Chinese,
    };
    let tokenizer = tokenizer_of(&view);
    let pieces = |_: &str, tokens: &[u32]| {
        let piece = |&id: &u32| tokenizer.as_ref()?.token_bytes(id).map(|b| String::from_utf8_lossy(b).into_owned());
        tokens.iter().map(piece).collect::<Option<Vec<String>>>()
    };
    let text = page::html(&Report::gather(&view, &pieces)?, language);
    let path = arguments.output.unwrap_or_else(|| view.folder().join("report.html"));
    std::fs::write(&path, text).map_err(|error| {
        failure(format!("cannot write {}: {error}", path.display()), "name another file with --output")
    })?;
    output.text(&format!("{}\n", path.display()))?;
    output.flush()
}

/// The tokenizer of the run's models, which all share one.
fn tokenizer_of(view: &RunView) -> Option<Tokenizer> {
    let stages = view.ledger().stages().ok()?;
    stages.iter().filter_map(|row| view.model(&row.stage)).find_map(|folder| Tokenizer::open_folder(&folder).ok())
}
