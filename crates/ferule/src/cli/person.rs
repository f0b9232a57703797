//! `ferule person`: the people who may sign.

use store::DataFolder;

use super::data_argument::DataArguments;
use super::output::Output;
use crate::people;

/// What `ferule person` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add a person, or give a person a new token; the token is written to stdout once
    Add(Named),
    /// Remove a person's token; the verdicts stay
    Remove(Named),
    /// List the people who can sign
    List(DataArguments),
}

#[derive(clap::Args)]
struct Named {
    /// The name that is recorded with every verdict
    name: String,
    #[command(flatten)]
    data: DataArguments,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    match arguments.command {
        Command::Add(Named { name, data }) => {
            let (token, hash) = people::fresh_token()?;
            DataFolder::open(&data.data)?.add_person(&name, &hash)?;
            eprintln!("{name} signs with this token; it is shown once:");
            output.text(&format!("{token}\n"))?;
        }
        Command::Remove(Named { name, data }) => DataFolder::open_existing(&data.data)?.remove_person(&name)?,
        Command::List(data) => {
            for person in DataFolder::open_to_read(&data.data)?.people()? {
                output.text(&format!("{}\n", person.name))?;
            }
        }
    }
    output.flush()
}
