//! Episodes of several turns: a model and an environment speak in turn, and the environment says who held out.
//!
//! An episode is token ids end to end: what the model said is kept as it was sampled, end token included, and what the
//! environment replies is encoded once and put behind it, marked as given, so that it is never trained. All open episodes take a turn
//! together. Every turn reads its whole prefix again; the cache is not kept between turns.
//!
//! Read next: [`tasks::environment`].

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use serde::Serialize;

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::rollout::{Asked, Group, Plan, Rollout, ask};
use crate::stats::wilson;
use tasks::environment::{Environment, Reply};
use tasks::rewards::{Judged, Verdict};
use tasks::{Case, Prompt, Task};

/// The verdict's name under which a game's worth is stored, where others have a rule's.
pub const GAME: &str = "game";
/// Room for what an environment says between two turns, in tokens.
pub(crate) const REPLY_TOKENS: usize = 32;

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
    /// Games whose last completion did not end.
    pub unfinished: usize,
    /// Turns asked for in each.
    pub turns: usize,
    /// Mean reward: for a game of turns, the share of them that held.
    pub mean_reward: f64,
    /// Why games ended, with how many did, the most frequent first; games lost on the same turn for the same fault count together.
    pub endings: Vec<(String, usize)>,
}

/// An episode, over or not.
struct Episode {
    case: usize,
    /// Which of the case's episodes it is.
    sample: usize,
    environment: Box<dyn Environment>,
    /// All that was said after the prompt.
    rollout: Rollout,
    /// What the environment said last, and the policy has not answered yet.
    asked: String,
    /// Turns that were taken.
    turn: usize,
    /// The reward, and why it ended.
    ended: Option<(f64, String)>,
}

/// Plays `plan.samples` games of `turns` for every case; a group for each case, and what its games were worth. All open games take a turn
/// together; in the first, a case's games share its prompt.
///
/// # Errors
/// A task without games, a prompt that cannot be encoded, a game too long for the model.
pub fn games<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    task: &dyn Task,
    cases: &[Case],
    turns: usize,
    plan: &Plan,
) -> Result<Vec<(Group, Vec<Judged>)>, TrainError> {
    let begin = |case: &Case, sample: usize| {
        task.game(case, turns, plan.key.word(&case.id).number(sample as u64)).ok_or_else(|| {
            let hint = "idiom_chain has games; leave the turns out for one answer a case";
            TrainError::stage("games", format!("{} has no games", task.name()), hint)
        })
    };
    let mut asked = Vec::with_capacity(cases.len());
    for case in cases {
        let prompt = prompting.prompt(&Prompt::Text(begin(case, 0)?.prompt()))?;
        asked.push(Asked { id: case.id.clone(), prompt });
    }
    let (mut prompts, mut episodes) = (Vec::with_capacity(cases.len()), Vec::with_capacity(cases.len() * plan.samples));
    for group in ask(queue, model, prompting, asked, plan)? {
        for (sample, rollout) in group.rollouts.into_iter().enumerate() {
            episodes.push(Episode::begin(group.case, sample, begin(&cases[group.case], sample)?, rollout));
        }
        prompts.push(group.prompt);
    }
    for turn in 2.. {
        let mut open: Vec<&mut Episode> = episodes.iter_mut().filter(|episode| episode.ended.is_none()).collect();
        if open.is_empty() {
            break;
        }
        let given: Vec<Vec<u32>> =
            open.iter().map(|episode| prompting.tokenizer.encode_user(&episode.asked).to_vec()).collect();
        let asked = open.iter().zip(&given).map(|(episode, given)| Asked {
            id: format!("{}/{}", cases[episode.case].id, episode.sample),
            prompt: [&prompts[episode.case], &episode.rollout.tokens[..], given].concat(),
        });
        let plan = Plan { samples: 1, key: plan.key.word("turn").number(turn), ..plan.clone() };
        let said = ask(queue, model, prompting, asked.collect(), &plan)?;
        for ((episode, given), mut group) in open.iter_mut().zip(given).zip(said) {
            episode.go_on(given, group.rollouts.remove(0));
        }
    }
    let mut episodes = episodes.into_iter();
    let group = |(case, prompt)| {
        let (rollouts, judged) = episodes.by_ref().take(plan.samples).map(Episode::end).unzip();
        (Group { case, prompt, rollouts }, judged)
    };
    Ok(prompts.into_iter().enumerate().map(group).collect())
}

/// Plays one game of `turns` for every case, greedily, and counts.
///
/// # Errors
/// As [`games`].
pub fn play<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    task: &dyn Task,
    cases: &[Case],
    turns: usize,
    max_new_tokens: usize,
    key: Key,
) -> Result<Games, TrainError> {
    let plan = Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens, key };
    let (mut rewards, mut endings) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new());
    let mut unfinished = 0;
    for (group, judged) in games(queue, model, prompting, task, cases, turns, &plan)? {
        unfinished += usize::from(!group.rollouts[0].finished);
        let (_, verdict) = &judged[0].verdicts[0];
        rewards.push(judged[0].reward.expect("a game has a worth"));
        *endings.entry(verdict.reason().to_string()).or_default() += 1;
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
        unfinished,
        turns,
        mean_reward: rewards.iter().sum::<f64>() / n.max(1) as f64,
        endings,
    })
}

impl Episode {
    /// An episode after its first turn.
    fn begin(case: usize, sample: usize, environment: Box<dyn Environment>, rollout: Rollout) -> Episode {
        let mut episode = Episode { case, sample, environment, rollout, asked: String::new(), turn: 1, ended: None };
        let reply = episode.environment.reply(&episode.rollout.completion());
        episode.hear(reply);
        episode
    }

    /// A further turn: what the environment asked, as tokens, and what was said to it.
    fn go_on(&mut self, given: Vec<u32>, said: Rollout) {
        self.turn += 1;
        let reply = self.environment.reply(&said.completion());
        self.rollout.go_on(given, &std::mem::take(&mut self.asked), said);
        self.hear(reply);
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Say(text) => self.asked = text,
            Reply::Done { reward, ending } => self.ended = Some((reward, ending)),
        }
    }

    /// All that was said, and what it was worth.
    fn end(self) -> (Rollout, Judged) {
        let (reward, ending) = self.ended.expect("every episode ends");
        let reason = format!("turn {}: {ending}", self.turn);
        let verdicts = vec![(GAME.to_string(), Verdict::score(reward, reason))];
        (self.rollout, Judged { reward: Some(reward), verdicts })
    }
}
