//! `ferule data import`: imports labels from a table into the data folder.

use std::path::PathBuf;

use serde_json::{Value, json};
use store::DataFolder;
use store::data_folder::found::FoundLabel;
use tasks::data::table;
use tasks::suggest;

use super::super::data_argument::DataArguments;
use super::super::output::Output;
use crate::outcome::{WrongUse, failure};
use crate::people;

/// What `ferule data import` reads.
#[derive(clap::Args)]
#[command(after_help = "\
Turns of the flywheel train on these labels beside people's verdicts. They are counted separately, because nobody signed them here.

    ferule data import questions.csv --prompt text --answer category")]
pub struct Arguments {
    /// CSV, Excel, JSON lines, JSON or Parquet
    file: PathBuf,
    /// The column with the question
    #[arg(long, value_name = "COLUMN", default_value = "prompt")]
    prompt: String,
    /// The column with the right answer
    #[arg(long, value_name = "COLUMN", default_value = "answer")]
    answer: String,
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { file, prompt, answer, data, json } = arguments;
    let table = table::read(&file)?;
    for (column, option) in [(&prompt, "--prompt"), (&answer, "--answer")] {
        if !table.columns.contains(column) {
            let columns = suggest::listed(table.columns.iter().map(String::as_str));
            let problem = format!("{} has no column {column}, only {columns}", file.display());
            return Err(WrongUse::error(problem, format!("name the column with {option}")));
        }
    }
    let data = DataFolder::open(&data.data)?;
    people::signed_in_or_operator(&data)?;
    let mut labels = Vec::with_capacity(table.rows.len());
    for (row, place) in table.rows.iter().zip(&table.places) {
        let text = |column: &str| match row.get(column) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_string()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            _ => {
                let problem = format!("{}:{place}: {column} is empty, or no text", file.display());
                Err(failure(problem, "fill the cell, or remove the row; nothing was imported"))
            }
        };
        let (prompt, answer) = (text(&prompt)?, text(&answer)?);
        let messages = json!([{ "role": "user", "content": prompt }]).to_string();
        labels.push(FoundLabel { item: data.item_of(&messages), document: None, prompt, answer });
    }
    let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let added = data.add_found(&name, &[], &labels)?;
    let gate = labels.iter().filter(|label| data.is_of_gate(&label.item)).count();
    let mut output = Output::stdout();
    match json {
        true => output.json_line(&json!({ "rows": labels.len(), "new": added, "gate": gate }))?,
        false => output.text(&format!("{added} of {} labels are new\n", labels.len()))?,
    }
    output.flush()?;
    if gate > 0 {
        eprintln!("{gate} of them have a question that is kept for the gate, and are not trained on");
    }
    Ok(())
}
