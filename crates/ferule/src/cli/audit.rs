//! `ferule audit`: who did what, and whether the audit is intact.

use serde_json::json;
use store::DataFolder;

use super::data_argument::DataArguments;
use super::output::Output;

/// What `ferule audit` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check that no line of the audit was changed, removed or added between others
    Verify(Options),
    /// Write the audit as JSON lines
    Show(Options),
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    data: DataArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    match arguments.command {
        Command::Verify(options) => {
            let verified = DataFolder::open_to_read(&options.data.data)?.verify_audit()?;
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
