//! The `ferule` binary: arguments in, an exit code out.
//!
//! Everything it does is in [`cli`], one file a command; [`hub`] is the way to a model hub and its cache, [`report`] the
//! page that shows a run.
#![forbid(unsafe_code)]

mod cli;
mod hub;
mod report;

fn main() -> std::process::ExitCode {
    cli::main()
}
