//! `ferule flywheel`: trains candidates on signed verdicts, and promotes a candidate that is better than the model in
//! service.
//!
//! [`turn`] runs one turn. [`replay`] runs the recorded turns again without what was forgotten. [`simulate`] measures
//! how often the gate would promote by chance. [`status`] shows the state of the flywheel.

mod replay;
mod run_turn;
mod simulate;
mod status;
mod turn;

/// What `ferule flywheel` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Train a candidate from signed verdicts, compare it with the model in service, and promote it if it is better
    Turn(turn::Arguments),
    /// Show the queue, the verdicts, the size of the gate and the turns so far
    Status(status::Arguments),
    /// Repeat the recorded turns without the records that were forgotten since
    Replay(replay::Arguments),
    /// Estimate how often the gate would promote a candidate that is no better, from a turn's outcomes
    Simulate(simulate::Arguments),
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Turn(arguments) => turn::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Simulate(arguments) => simulate::run(arguments),
    }
}
