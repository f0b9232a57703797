//! Episodes of several turns: a model and an environment speak in turn, and the environment says who held out.
//!
//! An episode is token ids end to end: what the model said is kept as it was sampled, end token included, and what the
//! environment replies is encoded once and put behind it. Nothing is trained here, so no token of the environment can be. All open
//! episodes take a turn together. Every turn reads its whole prefix again; the cache is not kept between turns.
//!
//! Read next: [`crate::tasks::environment`].

use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use lm::rng::Key;
use serde::Serialize;

use crate::codec::Codec;
use crate::error::TrainError;
use crate::rollout::{Asked, Plan, ask};
use crate::stats::wilson;
use crate::tasks::environment::{Environment, Reply};
use crate::tasks::{Case, Prompt, Task};

/// How a model did in games.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Games {
    /// Share of games with the full reward.
    pub won: f64,
    /// The lower end of its 95 % Wilson interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Games.
    pub n: usize,
    /// Turns asked for in each.
    pub turns: usize,
    /// Mean reward: for a game of turns, the share of them that held.
    pub mean_reward: f64,
    /// Why games ended, with how many did, the most frequent first; games lost on the same turn for the same fault count together.
    pub endings: Vec<(String, usize)>,
}

/// An open episode.
struct Episode {
    case: usize,
    environment: Box<dyn Environment>,
    tokens: Vec<u32>,
}

/// Plays one game of `turns` for every case, greedily.
///
/// # Errors
/// A task without games, a prompt that cannot be encoded, a game too long for the model.
pub fn play<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    codec: &Codec,
    task: &dyn Task,
    cases: &[Case],
    turns: usize,
    max_new_tokens: usize,
    key: Key,
) -> Result<Games, TrainError> {
    let mut open = Vec::with_capacity(cases.len());
    for (case, asked) in cases.iter().enumerate() {
        let Some(environment) = task.game(asked, turns, key.word(&asked.id)) else {
            let hint = "idiom_chain has games; leave the turns out for one answer a case";
            return Err(TrainError::stage("games", format!("{} has no games", task.name()), hint));
        };
        let tokens = codec.prompt(&Prompt::Text(environment.prompt()))?;
        open.push(Episode { case, environment, tokens });
    }
    let (mut rewards, mut endings) = (vec![0.0; cases.len()], std::collections::BTreeMap::<String, usize>::new());
    for turn in 1.. {
        if open.is_empty() {
            break;
        }
        let plan =
            Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens, key: key.word("turn").number(turn) };
        let asked = open
            .iter()
            .map(|episode| Asked { id: cases[episode.case].id.clone(), prompt: episode.tokens.clone() })
            .collect();
        let said = ask(queue, model, codec, asked, &plan)?;
        let mut going_on = Vec::new();
        for (mut episode, group) in open.into_iter().zip(said) {
            match episode.environment.reply(&group.rollouts[0].completion()) {
                Reply::Say(text) => {
                    episode.tokens.extend(&group.rollouts[0].tokens);
                    episode.tokens.extend(codec.tokenizer.encode_user(&text));
                    going_on.push(episode);
                }
                Reply::Done { reward, ending } => {
                    rewards[episode.case] = reward;
                    *endings.entry(format!("turn {turn}: {ending}")).or_default() += 1;
                }
            }
        }
        open = going_on;
    }
    let won = rewards.iter().filter(|&&reward| reward == 1.0).count();
    let n = rewards.len();
    let interval = wilson(won, n);
    let mut endings: Vec<(String, usize)> = endings.into_iter().collect();
    endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(Games {
        won: won as f64 / n.max(1) as f64,
        low: interval.low,
        high: interval.high,
        n,
        turns,
        mean_reward: rewards.iter().sum::<f64>() / n.max(1) as f64,
        endings,
    })
}
