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
    /// Read the labels that documents hold already
    Extract(extract::Arguments),
    /// Keep the labels of a table in the data folder
    Import(import::Arguments),
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Extract(arguments) => extract::run(arguments),
        Command::Import(arguments) => import::run(arguments),
    }
}
