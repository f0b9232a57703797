//! `ferule data`: turns raw documents and tables into labelled records.

mod extract;
mod import;

/// What `ferule data` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Extract the labels that documents already contain
    Extract(extract::Arguments),
    /// Add the labels of a table to the data folder
    Import(import::Arguments),
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Extract(arguments) => extract::run(arguments),
        Command::Import(arguments) => import::run(arguments),
    }
}
