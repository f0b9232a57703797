//! `ferule review`: verdicts from the command line and from a table that Excel can open, in addition to the page of
//! `ferule serve`.
//!
//! Verdicts are blind here too: waiting items are shown without the model that answered and without its confidence.

mod blind;
mod decision;
mod export;
mod import;
mod sheet;

use std::path::PathBuf;

use serde_json::json;
use store::DataFolder;
use store::data_folder::review::{Decision, Submission, Waiting};

use super::data_argument::DataArguments;
use super::output::Output;
use super::table::aligned;
use crate::{people, visible};
use blind::{blind, messages, question};
use decision::decision;

/// What `ferule review` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Every verdict names the person who signed it. Put the token that `ferule person add NAME` printed into FERULE_TOKEN.

    ferule review queue
    ferule review submit 9f86d081884c7d659a2feaa0c55ad015 correct --correction \"36 months\"
    ferule review export cases.xlsx      # fill in the columns decision and correction
    ferule review import cases.xlsx")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the waiting items; those whose labels are worth most come first
    Queue(QueueArguments),
    /// Sign a verdict on an item
    Submit(SubmitArguments),
    /// Revoke a verdict; its item returns to the queue
    Revoke(RevokeArguments),
    /// Write the waiting items to a table in which people fill in verdicts
    Export(ExportArguments),
    /// Sign the verdicts that were filled in, either all of them or none
    Import(ImportArguments),
}

#[derive(clap::Args)]
struct QueueArguments {
    /// The most items to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Write one JSON object for each item
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArguments,
}

#[derive(clap::Args)]
struct SubmitArguments {
    /// The item, as `ferule review queue` shows it
    item: String,
    /// accept, correct, reject or skip
    #[arg(value_parser = decision)]
    decision: Decision,
    /// The right answer; required with `correct`, not allowed otherwise
    #[arg(long, value_name = "TEXT")]
    correction: Option<String>,
    /// How long the verdict took, in seconds
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    seconds: f64,
    /// Write one JSON object, with what is hidden until the verdict
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArguments,
}

#[derive(clap::Args)]
struct RevokeArguments {
    /// The verdict's number, as `ferule review export --signed` shows it
    verdict: i64,
    #[command(flatten)]
    data: DataArguments,
}

#[derive(clap::Args)]
struct ExportArguments {
    /// The table to write: .xlsx, .csv or .jsonl
    file: PathBuf,
    /// Write the verdicts that count, with their numbers, instead of the waiting items
    #[arg(long)]
    signed: bool,
    #[command(flatten)]
    data: DataArguments,
}

#[derive(clap::Args)]
struct ImportArguments {
    /// A table that `ferule review export` wrote
    file: PathBuf,
    #[command(flatten)]
    data: DataArguments,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Queue(arguments) => queue(&arguments),
        Command::Submit(arguments) => submit(arguments),
        Command::Revoke(RevokeArguments { verdict, data }) => {
            let (data, person) = to_sign(&data)?;
            data.revoke(&person, verdict)?;
            eprintln!("revoked: {verdict}");
            Ok(())
        }
        Command::Export(ExportArguments { file, signed, data }) => {
            let data = DataFolder::open_to_read(&data.data)?;
            let person = people::signed_in_or_operator(&data)?;
            match signed {
                true => export::signed(&data, &file),
                false => export::waiting(&data, &person, &file),
            }
        }
        Command::Import(ImportArguments { file, data }) => {
            let (data, person) = to_sign(&data)?;
            let imported = import::import(&data, &person, &file)?;
            let mut output = Output::stdout();
            output.text(&format!("signed {} verdicts; {} rows have no decision\n", imported.signed, imported.blank))?;
            output.flush()
        }
    }
}

/// An existing data folder, open for writing, and the person who signs.
fn to_sign(arguments: &DataArguments) -> anyhow::Result<(DataFolder, String)> {
    let data = DataFolder::open_existing(&arguments.data)?;
    let person = people::signed_in(&data)?;
    Ok((data, person))
}

fn queue(arguments: &QueueArguments) -> anyhow::Result<()> {
    let data = DataFolder::open_to_read(&arguments.data.data)?;
    let person = people::signed_in_or_operator(&data)?;
    let queue = data.queue(&person, arguments.limit)?;
    let mut output = Output::stdout();
    if arguments.json {
        for item in &queue {
            output.json_line(&blind(item)?)?;
        }
    } else {
        let line = |item: &Waiting| -> anyhow::Result<Vec<String>> {
            let question = question(&messages(&item.messages)?);
            let cells = [visible::line(&question, 48), visible::line(&item.completion, 32)];
            Ok([&[item.item.clone(), item.reason.to_string()], &cells[..]].concat())
        };
        let lines = queue.iter().map(line).collect::<anyhow::Result<Vec<_>>>()?;
        output.text(&aligned(&lines, &[0, 1, 2, 3]))?;
    }
    output.flush()?;
    eprintln!("{} of {} waiting items", queue.len(), data.waiting_for(&person)?);
    Ok(())
}

fn submit(arguments: SubmitArguments) -> anyhow::Result<()> {
    let SubmitArguments { item, decision, correction, seconds, json, data } = arguments;
    let (data, person) = to_sign(&data)?;
    let verdict =
        data.submit(&person, &Submission { item: item.clone(), request: None, decision, correction, seconds })?;
    let mut output = Output::stdout();
    match json {
        true => output.json_line(&json!({ "verdict": verdict, "behind": data.behind(&item)? }))?,
        false => output.text(&format!("verdict {verdict}\n"))?,
    }
    output.flush()
}
