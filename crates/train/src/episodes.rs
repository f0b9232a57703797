//! Episodes of several turns: the policy and an environment take turns, and the environment gives the reward at the end.
//!
//! An episode is token ids end to end. The policy's tokens are kept as they were sampled, end tokens included. The environment's replies
//! are encoded once, appended and marked as given, so that they are never trained on. All open episodes take a turn together. Every turn
//! prefills everything before it; the cache is not kept between turns.
//!
//! Read next: [`tasks::environment`].

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::Model;
use lm::generate::Sampling;
use serde::Serialize;

use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::rollout::{EncodedPrompt, Group, Plan, Rollout, sample_encoded};
use crate::stats::wilson;
use tasks::environment::{Environment, Reply};
use tasks::rewards::{Judged, Verdict};
use tasks::{Case, Prompt, Task};

/// The name of the verdict that holds an episode's reward. In other rollouts, a verdict has the name of a rule.
pub const GAME: &str = "game";
/// Tokens that are reserved for the environment's reply between two turns.
pub(crate) const REPLY_TOKENS: usize = 32;

/// The result of evaluating a model on episodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpisodeEvaluation {
    /// Share of episodes with the full reward.
    pub won: f64,
    /// The lower end of its 95 % Wilson interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Number of episodes.
    pub n: usize,
    /// Episodes whose last completion did not end.
    pub unfinished: usize,
    /// The largest number of turns of an episode.
    pub turns: usize,
    /// Mean reward. In the idiom chain the reward is the share of turns without a fault.
    pub mean_reward: f64,
    /// Why episodes ended, each with its number of episodes, the most frequent first. Episodes that end on the same turn for the same reason
    /// count together.
    pub endings: Vec<(String, usize)>,
}

/// An episode, over or not.
struct Episode {
    case: usize,
    /// Which of the case's episodes it is.
    sample: usize,
    environment: Box<dyn Environment>,
    /// Everything after the prompt.
    rollout: Rollout,
    /// The environment's last reply, while the policy's next turn is not sampled yet.
    reply: String,
    /// Turns that the policy has taken.
    turn: usize,
    /// The reward, and why it ended; none while it is open.
    ended: Option<(f64, String)>,
}

/// Samples `plan.samples` episodes of at most `turns` turns for every case. All open episodes take a turn together. In the first turn the
/// episodes of a case share its prompt.
///
/// Returns one group per case, with the reward of each of its episodes.
///
/// # Errors
/// A task without episodes, a prompt that cannot be encoded, or an episode that may exceed the model's context.
pub fn sample_episodes<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    task: &dyn Task,
    cases: &[Case],
    turns: usize,
    plan: &Plan,
) -> Result<Vec<(Group, Vec<Judged>)>, TrainError> {
    let environment = |case: &Case, sample: usize| {
        task.game(case, turns, plan.key.word(&case.id).number(sample as u64)).ok_or_else(|| {
            let problem = format!("the task \"{}\" has no episodes of several turns", task.name());
            TrainError::stage("episodes", problem, "idiom_chain has; leave the turns out for one completion a case")
        })
    };
    let mut first = Vec::with_capacity(cases.len());
    for case in cases {
        let tokens = prompting.prompt(&Prompt::Text(environment(case, 0)?.prompt()))?;
        first.push(EncodedPrompt { id: case.id.clone(), tokens });
    }
    let (mut prompts, mut episodes) = (Vec::with_capacity(cases.len()), Vec::with_capacity(cases.len() * plan.samples));
    for group in sample_encoded(queue, model, prompting, first, plan)? {
        for (sample, rollout) in group.rollouts.into_iter().enumerate() {
            episodes.push(Episode::begin(group.case, sample, environment(&cases[group.case], sample)?, rollout));
        }
        prompts.push(group.prompt);
    }
    for turn in 2.. {
        let mut open: Vec<&mut Episode> = episodes.iter_mut().filter(|episode| episode.ended.is_none()).collect();
        if open.is_empty() {
            break;
        }
        let given: Vec<Vec<u32>> =
            open.iter().map(|episode| prompting.tokenizer.encode_user(&episode.reply).to_vec()).collect();
        let next = open.iter().zip(&given).map(|(episode, given)| EncodedPrompt {
            id: format!("{}/{}", cases[episode.case].id, episode.sample),
            tokens: [&prompts[episode.case], &episode.rollout.tokens[..], given].concat(),
        });
        let plan = Plan { samples: 1, key: plan.key.word("turn").number(turn), ..plan.clone() };
        let groups = sample_encoded(queue, model, prompting, next.collect(), &plan)?;
        for ((episode, given), mut group) in open.iter_mut().zip(given).zip(groups) {
            episode.take_turn(given, group.rollouts.remove(0));
        }
    }
    let mut episodes = episodes.into_iter();
    let group = |(case, prompt)| {
        let (rollouts, judged) = episodes.by_ref().take(plan.samples).map(Episode::finish).unzip();
        (Group { case, prompt, rollouts }, judged)
    };
    Ok(prompts.into_iter().enumerate().map(group).collect())
}

/// Evaluates a model on one greedy episode of at most `turns` turns for every case.
///
/// # Errors
/// As [`sample_episodes`].
pub fn evaluate_episodes<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    task: &dyn Task,
    cases: &[Case],
    turns: usize,
    max_new_tokens: usize,
    key: Key,
) -> Result<EpisodeEvaluation, TrainError> {
    let plan = Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens, key };
    let (mut rewards, mut endings) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new());
    let mut unfinished = 0;
    for (group, judged) in sample_episodes(queue, model, prompting, task, cases, turns, &plan)? {
        unfinished += usize::from(!group.rollouts[0].finished);
        let (_, verdict) = &judged[0].verdicts[0];
        rewards.push(judged[0].reward.expect("an episode has a reward"));
        *endings.entry(verdict.reason().to_string()).or_default() += 1;
    }
    let won = rewards.iter().filter(|&&reward| reward == 1.0).count();
    let n = rewards.len();
    let interval = wilson(won, n);
    let mut endings: Vec<(String, usize)> = endings.into_iter().collect();
    endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(EpisodeEvaluation {
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
        let mut episode = Episode { case, sample, environment, rollout, reply: String::new(), turn: 1, ended: None };
        let reply = episode.environment.reply(&episode.rollout.completion());
        episode.receive(reply);
        episode
    }

    /// Appends a further turn: the environment's last reply as tokens, and the policy's completion of it.
    fn take_turn(&mut self, given: Vec<u32>, completion: Rollout) {
        self.turn += 1;
        let reply = self.environment.reply(&completion.completion());
        self.rollout.append_turn(given, &std::mem::take(&mut self.reply), completion);
        self.receive(reply);
    }

    fn receive(&mut self, reply: Reply) {
        match reply {
            Reply::Say(text) => self.reply = text,
            Reply::Done { reward, ending } => self.ended = Some((reward, ending)),
        }
    }

    /// The rollout of an episode that is over, and its reward.
    fn finish(self) -> (Rollout, Judged) {
        let (reward, ending) = self.ended.expect("every episode ends");
        let reason = format!("turn {}: {ending}", self.turn);
        let verdicts = vec![(GAME.to_string(), Verdict::score(reward, reason))];
        (self.rollout, Judged { reward: Some(reward), verdicts })
    }
}
