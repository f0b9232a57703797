//! The command line: parses the arguments, resolves them to what a command needs, and runs the command.
//!
//! A command's file holds its `Arguments` (for clap) and a `run`. Shared files are `model_argument.rs` (which model, in
//! which dtype, on how many threads), `input_lines.rs` (JSON lines from stdin, with line numbers in every error) and
//! `output.rs` (stdout, which gets only data). `crate::outcome` turns an error into a message and an exit code.
//!
//! To add a command, write a file beside these and add a line to [`Command`] and to [`run()`].

mod asking;
mod audit;
mod bench;
mod chat;
mod compare;
mod convert;
mod data;
mod data_argument;
mod doctor;
mod dry_run;
mod eval;
mod explain;
mod flywheel;
mod forget;
pub mod generate;
mod grade;
mod init;
mod input_lines;
mod interrupt;
mod ladder;
mod lineage;
mod ls;
mod machine;
pub mod model_argument;
mod output;
mod person;
mod progress;
mod promote;
mod pull;
mod report;
mod review;
mod run;
mod run_model;
mod score;
mod seeds;
mod serve;
pub mod stop_strings;
mod table;
mod task;
mod withdraw;

use std::path::Path;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};
use tasks::data::container;

use crate::outcome;

/// Trains small reasoning models with rewards from rules and with a teacher model.
#[derive(Parser)]
#[command(name = "ferule", version, about, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the work failed, 2 wrong use.\n\
FERULE_ISA picks an instruction path (avx512_bf16, avx512, avx2, neon, portable); the best one is the default.";

#[derive(Subcommand)]
enum Command {
    /// Run a recipe's stages, or resume them
    Run(run::Arguments),
    /// Show a run as a page, or its ladder as JSON
    Report(report::Arguments),
    /// List the runs
    Ls(ls::Arguments),
    /// Measure a model, or a run's last one, on a task's held-out cases
    Eval(eval::Arguments),
    /// Compare two rows of the ladder case by case, pooled over runs
    Compare(compare::Arguments),
    /// Explain a stage, a task or a rule: its keys, their defaults and meaning
    Explain(explain::Arguments),
    /// Write a task's cases as JSON lines
    Task(task::Arguments),
    /// Grade a run's stored rollouts under other rules, old and new side by side
    Grade(grade::Arguments),
    /// Look at your data and write a commented recipe for it
    Init(init::Arguments),
    /// Keep records out of all later runs, and name the weights that learned from them
    Withdraw(withdraw::Arguments),
    /// Get labels from raw documents and from tables
    Data(data::Arguments),
    /// Serve a model on an HTTP API for OpenAI's clients, and let people review its answers
    Serve(serve::Arguments),
    /// Add, remove and list the people who may sign verdicts and promote models
    Person(person::Arguments),
    /// Judge answers on the command line or in a table
    Review(review::Arguments),
    /// Train a model from signed verdicts, and promote it if it is better
    Flywheel(flywheel::Arguments),
    /// Put a model into service
    Promote(promote::PromoteArguments),
    /// Put the previous model back into service
    Rollback(promote::RollbackArguments),
    /// Trace a model to the labels and people behind it, or a record to the models that learned from it
    Lineage(lineage::Arguments),
    /// Remove a record's or a person's text, and name the models that learned from it
    Forget(forget::Arguments),
    /// Show who did what in the data folder, or verify that this list is unchanged
    Audit(audit::Arguments),
    /// Compute log-probabilities of texts or token ids, read as JSON lines
    Score(score::Arguments),
    /// Continue prompts and conversations, read as JSON lines
    Generate(generate::Arguments),
    /// Talk with a model in the terminal
    Chat(chat::Arguments),
    /// Measure this machine: peak speeds, matrix products, training and generation
    Bench(bench::Arguments),
    /// Say what this machine can do, which models fit, and what is missing
    Doctor(doctor::Arguments),
    /// Fetch a model from a Hugging Face-style hub into the cache
    Pull(pull::Arguments),
    /// Write a model as a Hugging Face folder
    Import(convert::ImportArguments),
    /// Write a model as a GGUF file
    Export(convert::ExportArguments),
    /// Read a workbook or Parquet from stdin for the process that started this one
    #[command(hide = true, name = READ_CONTAINER)]
    ReadContainer,
}

/// The command of the process that reads compressed data files (see [`container`]).
const READ_CONTAINER: &str = "read-container";

/// Parses the process's arguments, runs the command and reports its outcome.
pub fn main() -> ExitCode {
    container::set_worker(|| {
        // This path stays right when the binary is replaced while it runs.
        let this = Path::new("/proc/self/exe");
        let this = if this.exists() { this.into() } else { std::env::current_exe().unwrap_or("ferule".into()) };
        let mut worker = process::Command::new(this);
        worker.arg(READ_CONTAINER);
        worker
    });
    match Arguments::try_parse() {
        Ok(arguments) => outcome::report(run(arguments.command)),
        Err(error) => {
            // Help and version go to stdout and are no error. If printing fails, nobody can be told.
            let _ = error.print();
            ExitCode::from(error.exit_code() as u8)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Ls(arguments) => ls::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Task(arguments) => task::run(arguments),
        Command::Grade(arguments) => grade::run(arguments),
        Command::Init(arguments) => init::run(arguments),
        Command::Withdraw(arguments) => withdraw::run(arguments),
        Command::Data(arguments) => data::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Person(arguments) => person::run(arguments),
        Command::Review(arguments) => review::run(arguments),
        Command::Flywheel(arguments) => flywheel::run(arguments),
        Command::Promote(arguments) => promote::promote(arguments),
        Command::Rollback(arguments) => promote::rollback(arguments),
        Command::Lineage(arguments) => lineage::run(arguments),
        Command::Forget(arguments) => forget::run(arguments),
        Command::Audit(arguments) => audit::run(arguments),
        Command::Score(arguments) => score::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Chat(arguments) => chat::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Pull(arguments) => pull::run(arguments),
        Command::Import(arguments) => convert::import(arguments),
        Command::Export(arguments) => convert::export(arguments),
        Command::ReadContainer => Ok(container::work()?),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_every_command_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
