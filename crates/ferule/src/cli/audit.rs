//! `ferule audit`: who did what, and whether this list is unchanged.

use serde_json::json;
use store::DataFolder;

use super::data_argument::DataArguments;
use super::output::Output;
use crate::outcome::failure;

/// What `ferule audit` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check that no line of the audit was changed or removed, and none inserted between others
    Verify {
        #[command(flatten)]
        options: Options,
        /// The head that an earlier check printed and that you kept elsewhere: check that its line is still there
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// Write the audit, one line for each action
    Show(Options),
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    data: DataArguments,
    /// Write JSON: one object, or one for each line of the audit
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    match arguments.command {
        Command::Verify { options, head } => {
            let data = DataFolder::open_to_read(&options.data.data)?;
            let verified = data.verify_audit()?;
            if let Some(head) = head
                && !data.audit()?.iter().any(|line| line.hash == head)
            {
                let hint = "the ledger was exchanged or rewritten; bring back the one that has it";
                return Err(failure(format!("no line of the audit has the hash {head}"), hint));
            }
            match options.json {
                true => output.json_line(&json!({ "whole": true, "lines": verified.lines, "head": verified.head }))?,
                false => output.text(&format!("whole: {} lines, the last one {}\n", verified.lines, verified.head))?,
            }
        }
        Command::Show(options) => {
            for line in DataFolder::open_to_read(&options.data.data)?.audit()? {
                match options.json {
                    true => output.json_line(&line)?,
                    false => output.text(&format!(
                        "{:6}  {}  {:12} {:16} {}  {}\n",
                        line.sequence, line.at_ms, line.person, line.action, line.subject, line.detail
                    ))?,
                }
            }
        }
    }
    output.flush()
}
