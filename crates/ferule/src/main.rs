//! The `ferule` binary: arguments in, an exit code out.
//!
//! [`cli`] does everything, with one file per command. [`hub`] downloads models and knows their cache, [`report`] makes
//! the page that shows a run, [`serve`] answers over HTTP, [`people`] knows who may sign, [`visible`] keeps
//! the terminal safe from foreign text, and [`outcome`] turns an error into a message and an exit code.
#![forbid(unsafe_code)]

mod cli;
mod hub;
mod outcome;
mod people;
mod report;
mod secrets;
mod serve;
mod visible;

fn main() -> std::process::ExitCode {
    cli::main()
}
