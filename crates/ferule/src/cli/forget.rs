//! `ferule forget RECORD|--user ID`: erases the text of a record or a person from the ledger and from the files of
//! turns.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use store::DataFolder;
use store::data_folder::forget::{Forget, Forgotten};

use super::data_argument::DataArguments;
use super::output::Output;
use crate::outcome::failure;
use crate::people;

/// What `ferule forget` reads.
#[derive(clap::Args)]
#[command(after_help = "\
RECORD is a completion's id (chatcmpl-…), an item of `ferule review export`, or a document's id. Its text is
removed from the ledger and its log, and from the cases, rollouts and reports of the turns that used it. The
models that learned from it are named and flagged, and you decide what happens to them: `ferule flywheel
replay` trains them again without the record. Text cannot be removed from weights, and copies elsewhere
(exports, backups) stay.

    ferule forget chatcmpl-8c1f0e… --json
    ferule forget --user anna@example.org")]
pub struct Arguments {
    /// The record to forget
    #[arg(required_unless_present = "user", conflicts_with = "user")]
    record: Option<String>,
    /// Forget everything that this user asked; ID is what clients sent as `user`
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_existing(&arguments.data.data)?;
    let person = people::signed_in_or_operator(&data)?;
    let what = match (arguments.user, arguments.record) {
        (Some(user), _) => Forget::User(user),
        (None, record) => Forget::Record(record.unwrap_or_default()),
    };
    let touched = data.turns_touched_by(&what)?;
    if let Some(open) = data.open_turn()?.filter(|open| touched.contains(&open.id)) {
        let problem = format!("turn {} is open and learns from this record", open.id);
        return Err(failure(problem, "let the turn finish, or abandon it with `ferule flywheel turn … --abandon`"));
    }
    // Files are erased first, because the ledger says which they are. If the command is killed in between, the record
    // is still there when the command runs again.
    for turn in touched {
        erase_files(&data.turn_folder(turn))?;
    }
    let forgotten = data.forget(&person, &what)?;
    tell(&forgotten, arguments.json)
}

fn tell(forgotten: &Forgotten, as_json: bool) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    if as_json {
        output.json_line(forgotten)?;
        return output.flush();
    }
    let Forgotten { items, requests, verdicts, turns, models } = forgotten;
    let list = turns.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!("forgotten: {} records, {requests} completions, {verdicts} verdicts\n", items.len());
    if !turns.is_empty() {
        text += &format!("turns that used them: {list}\n");
    }
    for model in models {
        text += &format!("flagged: {model}\n");
    }
    output.text(&text)?;
    output.flush()
}

/// Erases the files of a turn that may contain the text of a record: its cases, its rollouts and its report. The weights stay.
fn erase_files(folder: &Path) -> anyhow::Result<()> {
    for folder in [folder.to_path_buf(), folder.join("replay")] {
        for name in ["train.jsonl", "gate.jsonl", "run/report.html"] {
            erase(&folder.join(name))?;
        }
        let Ok(stages) = fs::read_dir(folder.join("run/rollouts")) else { continue };
        for stage in stages {
            for file in fs::read_dir(stage?.path())? {
                erase(&file?.path())?;
            }
        }
    }
    Ok(())
}

/// Overwrites a file with zeros and removes it. A file that does not exist is no error.
fn erase(path: &Path) -> anyhow::Result<()> {
    let Ok(size) = fs::metadata(path).map(|data| data.len()) else { return Ok(()) };
    let work = || {
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        let zeros = vec![0; 1 << 16];
        let mut left = size;
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            file.write_all(&zeros[..part as usize])?;
            left -= part;
        }
        file.sync_all()?;
        fs::remove_file(path)
    };
    work().with_context(|| format!("cannot erase {}", path.display()))
}
