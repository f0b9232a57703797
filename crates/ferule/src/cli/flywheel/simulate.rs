//! `ferule flywheel simulate`: how often the gate would promote a candidate that is no better.
//!
//! It takes the stored outcomes of a turn, draws items from them with replacement, and swaps incumbent and candidate of
//! each item at random, so that neither is better. The decision is made as in a turn.

use kernels::rng::Key;
use serde_json::json;
use store::DataFolder;
use train::flywheel::gate::{self, Looks};

use super::super::data_argument::DataArguments;
use super::super::output::Output;
use crate::outcome::failure;

/// What `ferule flywheel simulate` reads.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// The turn whose outcomes are resampled [default: the last one]
    #[arg(long, value_name = "N")]
    turn: Option<i64>,
    /// Simulated turns
    #[arg(long, value_name = "N", default_value = "2000")]
    turns: std::num::NonZeroUsize,
    /// Equal seeds give equal draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let data = DataFolder::open_to_read(&arguments.data.data)?;
    let turns = data.turns()?;
    let chosen =
        turns.iter().rev().find(|turn| turn.outcome.is_some() && arguments.turn.is_none_or(|id| id == turn.id));
    let outcome = chosen
        .and_then(|turn| turn.outcome.as_ref())
        .ok_or_else(|| failure("no such turn has an outcome", "`ferule flywheel status` lists the turns"))?;
    let bits = |of: &str| {
        outcome["right"][of].as_str().unwrap_or_default().bytes().map(|b| f64::from(b - b'0')).collect::<Vec<_>>()
    };
    let pairs: Vec<(f64, f64)> = bits("incumbent").into_iter().zip(bits("candidate")).collect();
    let planned = outcome["comparison"]["planned"].as_u64().unwrap_or(1);
    let key = Key::new(arguments.seed).word("simulate");
    let mut promoted = 0;
    for turn in 0..arguments.turns.get() as u64 {
        let mut draws = key.number(turn).stream();
        let drawn: Vec<(f64, f64)> = (0..pairs.len())
            .map(|_| {
                let (a, b) = pairs[draws.below(pairs.len() as u64) as usize];
                if draws.chance(0.5) { (a, b) } else { (b, a) }
            })
            .collect();
        let looks = Looks { look: 1 + turn % planned, planned };
        promoted += usize::from(gate::promotes(&drawn, looks, key.word("gate").number(turn)));
    }
    let share = promoted as f64 / arguments.turns.get() as f64;
    let mut output = Output::stdout();
    match arguments.json {
        true => output.json_line(
            &json!({ "turns": arguments.turns, "items": pairs.len(), "promoted": promoted, "share": share }),
        )?,
        false => output.text(&format!(
            "{promoted} of {} turns without a true gain were promoted ({:.2} %), on {} items\n",
            arguments.turns,
            100.0 * share,
            pairs.len()
        ))?,
    }
    output.flush()
}
