//! `ferule data extract`: extracts the labels that raw documents contain.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use store::disk::{Disk, RealDisk};
use tasks::data::file;
use tasks::extract::judgment::{self, Extract};

use super::super::output::Output;
use crate::outcome::{WrongUse, failure};

/// What `ferule data extract` reads.
#[derive(clap::Args)]
#[command(after_help = "\
INPUT is a file of JSON lines with `text`, and perhaps `id`, or a folder of .txt files, which are read in the
order of their names. Both may be in UTF-8 or GB18030; the files of a folder may be in UTF-16 too. OUTPUT has
one line for each document, in the same order: what was found, or why the document was refused. It is written
whole or not at all: if a line of INPUT has no `text`, the command fails. An existing file is replaced only if
this command wrote it, or with --force. A document that is not clear is refused; nothing is guessed.

    ferule data extract judgment judgments.jsonl found.jsonl --json")]
pub struct Arguments {
    /// The kind of the documents
    #[arg(value_enum)]
    kind: Kind,
    /// The documents: a file of JSON lines, or a folder
    input: PathBuf,
    /// The file that the labels are written to
    output: PathBuf,
    /// Replace OUTPUT even if this command did not write it
    #[arg(long)]
    force: bool,
    /// Write the counts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    /// Chinese criminal judgments of the first instance with one defendant
    Judgment,
}

/// A line of the output.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(flatten)]
    extract: Extract,
}

#[derive(Default)]
struct Counts {
    full: usize,
    refused: BTreeMap<&'static str, usize>,
    bytes: u64,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { kind: Kind::Judgment, input, output, force, json } = arguments;
    if input.canonicalize().is_ok_and(|input| output.canonicalize().is_ok_and(|output| input == output)) {
        return Err(WrongUse::error("OUTPUT is INPUT", "write the labels to another file"));
    }
    if !force && output.exists() && !is_ours(&output) {
        let problem = format!("{} exists, and this command did not write it", output.display());
        return Err(WrongUse::error(problem, "name another file, or add --force"));
    }
    let began = Instant::now();
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot =
        |error: std::io::Error| failure(format!("{}: {error}", output.display()), "give a path that can be written");
    let mut temporary = RealDisk.temporary(folder).map_err(cannot)?;
    let mut counts = Counts::default();
    {
        let mut writer = BufWriter::with_capacity(1 << 20, &mut temporary);
        let mut each = |id: Option<String>, text: &str| -> anyhow::Result<()> {
            let extract = judgment::extract(text);
            counts.bytes += text.len() as u64;
            match extract.why {
                None => counts.full += 1,
                Some(why) => *counts.refused.entry(why).or_default() += 1,
            }
            serde_json::to_writer(&mut writer, &Line { id, extract })?;
            writer.write_all(b"\n").map_err(cannot)
        };
        match input.is_dir() {
            true => of_folder(&input, &mut each)?,
            false => of_lines(&input, &mut each)?,
        }
        writer.flush().map_err(cannot)?;
    }
    temporary.sync().map_err(cannot)?;
    temporary.persist(&output).map_err(cannot)?;
    RealDisk.sync(folder).map_err(cannot)?;
    tell(&counts, began.elapsed().as_secs_f64(), json)
}

/// Whether this command wrote a file, which its first line shows. An empty file counts as not written by it.
fn is_ours(path: &Path) -> bool {
    let Ok(file) = file::open(path) else { return false };
    let Some(Ok(first)) = file::lines(BufReader::new(file)).next() else {
        return path.metadata().is_ok_and(|found| found.len() == 0);
    };
    let line: Value = serde_json::from_slice(&first).unwrap_or_default();
    matches!(line["status"].as_str(), Some("full" | "refused")) && line["defendants"].is_array()
}

/// Every document of a file of JSON lines.
fn of_lines(path: &Path, each: &mut dyn FnMut(Option<String>, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let file = file::open(path).map_err(|error| {
        failure(
            format!("{}: {error}", path.display()),
            "give a file of JSON lines with `text`, or a folder of .txt files",
        )
    })?;
    // In UTF-8 and in GB18030 no byte of a longer character is a line end, so lines can be decoded one by one.
    for (number, bytes) in (1..).zip(file::lines(BufReader::with_capacity(1 << 20, file))) {
        let wrong = |problem: String, hint: &str| failure(format!("{}:{number}: {problem}", path.display()), hint);
        let bytes = bytes.map_err(|error| wrong(format!("cannot read: {error}"), "give a file that can be read"))?;
        let line = tasks::data::texts::decode_line(&bytes)
            .ok_or_else(|| wrong("neither UTF-8 nor GB18030".to_string(), "save the file as UTF-8"))?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.trim().is_empty() {
            continue;
        }
        let record: Value = serde_json::from_str(line)
            .map_err(|error| wrong(format!("no JSON: {error}"), "every line is one JSON object with `text`"))?;
        let Some(text) = record["text"].as_str() else {
            return Err(wrong("text: missing, or no text".to_string(), "every line is one JSON object with `text`"));
        };
        let id = match &record["id"] {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        };
        each(id, text)?;
    }
    Ok(())
}

/// Every text file of a folder, sorted by name.
fn of_folder(folder: &Path, each: &mut dyn FnMut(Option<String>, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("txt")));
    paths.sort();
    if paths.is_empty() {
        return Err(failure(
            format!("{} has no .txt file", folder.display()),
            "give a folder of .txt files, or a file of JSON lines",
        ));
    }
    for path in paths {
        let text = tasks::data::texts::read_text(&path)?;
        each(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()), &text)?;
    }
    Ok(())
}

fn tell(counts: &Counts, seconds: f64, as_json: bool) -> anyhow::Result<()> {
    let refused: usize = counts.refused.values().sum();
    let documents = counts.full + refused;
    let mut output = Output::stdout();
    if as_json {
        output.json_line(&json!({
            "documents": documents,
            "full": counts.full,
            "refused": refused,
            "why": counts.refused,
            "bytes": counts.bytes,
            "seconds": seconds,
        }))?;
        return output.flush();
    }
    let mut text = format!("{} of {documents} documents have a clear label\n", counts.full);
    let mut reasons: Vec<_> = counts.refused.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (why, count) in reasons {
        text += &format!("{count:8}  {why}\n");
    }
    output.text(&text)?;
    output.flush()
}
