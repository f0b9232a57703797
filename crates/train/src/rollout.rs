//! Sampling completions of cases, and grading them.
//!
//! A rollout is token ids end to end. Its random numbers are keyed by (seed, stage, step, record, sample, position), so it
//! does not depend on which others were sampled beside it. A record that is asked twice at once draws other numbers the second time.

use std::collections::HashMap;
use std::ops::Range;

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::generate::{Completion as Generated, Finish, Flow, Limits, Request, Sampling, Scheduler, generate};
use lm::{Config, Model};

use crate::error::TrainError;
use crate::prompting::Prompting;
use tasks::{Case, Completion};

/// Sequences sampled at a time.
pub(crate) const SEQUENCES: usize = 256;

/// One sampled completion, or all that was said in a game.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Token ids, the end token included.
    pub tokens: Vec<u32>,
    /// The tokens among them that an environment said, in order: they are read and never trained.
    pub given: Vec<Range<usize>>,
    /// Log-probability of each under the sampler, in nats; 0 where it was given.
    pub logprobs: Vec<f32>,
    /// Mean entropy of the distributions drawn from, in nats.
    pub entropy: f32,
    /// The text without the end token.
    pub text: String,
    /// Whether the end token came.
    pub finished: bool,
}

impl Rollout {
    fn of(prompting: &Prompting, generated: Generated) -> Rollout {
        let tokens: Vec<u32> = generated.tokens.iter().map(|token| token.id).collect();
        let (text, ended) = prompting.text(&tokens);
        let entropy = generated.tokens.iter().map(|token| token.entropy).sum::<f32>() / tokens.len().max(1) as f32;
        Rollout {
            logprobs: generated.tokens.iter().map(|token| token.logprob).collect(),
            entropy,
            text,
            finished: ended && generated.finish == Finish::StopToken,
            tokens,
            given: Vec::new(),
        }
    }

    /// How many of its tokens the model said.
    pub fn said_tokens(&self) -> usize {
        self.tokens.len() - self.given.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    /// The tokens that the model said, in order.
    pub fn said(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.given.iter().map(|given| given.end));
        let ends = self.given.iter().map(|given| given.start).chain([self.tokens.len()]);
        starts.zip(ends).map(|(start, end)| start..end)
    }

    /// Whether each of its tokens was given.
    pub fn given_mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.tokens.len()];
        self.given.iter().for_each(|given| mask[given.clone()].fill(true));
        mask
    }

    /// Puts behind it what an environment gave and the model then said.
    pub(crate) fn go_on(&mut self, given: Vec<u32>, text: &str, then: Rollout) {
        let (before, after) = (self.said_tokens() as f32, then.said_tokens() as f32);
        self.entropy = (self.entropy * before + then.entropy * after) / (before + after).max(1.0);
        self.given.push(self.tokens.len()..self.tokens.len() + given.len());
        self.logprobs.resize(self.tokens.len() + given.len(), 0.0);
        self.tokens.extend(given);
        self.tokens.extend(then.tokens);
        self.logprobs.extend(then.logprobs);
        self.text += text;
        self.text += &then.text;
        self.finished = then.finished;
    }

    /// As a rule sees it.
    pub fn completion(&self) -> Completion<'_> {
        Completion { text: &self.text, finished: self.finished, tokens: self.tokens.len() }
    }
}

/// A case's prompt and its completions.
pub struct Group {
    /// Index into the cases that were sampled.
    pub case: usize,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Its completions.
    pub rollouts: Vec<Rollout>,
}

impl Group {
    /// Floating-point operations of sampling it: the prompt once, every token that was said, and in a game all that came before each further turn.
    pub fn sampling_flops(&self, config: &Config) -> f64 {
        let (prompt, made) = (self.prompt.len(), self.rollouts.iter().map(Rollout::said_tokens).sum::<usize>());
        let own = self.rollouts.iter().map(|rollout| rollout.said_tokens() * (prompt + rollout.tokens.len() / 2));
        let again = self.rollouts.iter().flat_map(|rollout| &rollout.given).map(|given| prompt + given.end);
        let (mut tokens, mut pairs) = (prompt + made, prompt * prompt / 2 + own.sum::<usize>());
        for length in again {
            tokens += length;
            pairs += length * length / 2;
        }
        config.forward_flops(tokens, made, pairs)
    }
}

/// What to sample.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Completions of each case.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Narrowed by each record's id.
    pub key: Key,
}

/// Samples completions of every case, in order. Cases whose prompt leaves no room for a completion are refused.
///
/// # Errors
/// A prompt that cannot be encoded, or is too long for the model.
pub fn sample<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    cases: &[Case],
    plan: &Plan,
) -> Result<Vec<Group>, TrainError> {
    let asked = |case: &Case| Ok(Asked { id: case.id.clone(), prompt: prompting.prompt(&case.prompt)? });
    ask(queue, model, prompting, cases.iter().map(asked).collect::<Result<_, TrainError>>()?, plan)
}

/// A prompt that is tokens already.
pub struct Asked {
    /// Narrows the plan's key.
    pub id: String,
    /// Token ids.
    pub prompt: Vec<u32>,
}

/// As [`sample`], for prompts that are tokens already.
///
/// # Errors
/// A prompt too long for the model.
pub fn ask<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    asked: Vec<Asked>,
    plan: &Plan,
) -> Result<Vec<Group>, TrainError> {
    let longest = asked.iter().map(|asked| asked.prompt.len()).max().unwrap_or(0);
    let context = longest + plan.max_new_tokens;
    let limit = model.config().max_position_embeddings;
    if context > limit {
        let problem =
            format!("a prompt of {longest} tokens and {} new ones exceed the model's {limit}", plan.max_new_tokens);
        return Err(TrainError::stage("sampling", problem, "shorten the prompts or lower max_new_tokens"));
    }
    model.reserve_context(queue, context);
    let sequences = SEQUENCES.min(asked.len() * plan.samples).max(1);
    let mut scheduler = Scheduler::new(queue, model.config(), Limits::for_sequences(sequences, context));
    let requests = asked
        .iter()
        .zip(keys(&asked, plan.key))
        .map(|(asked, key)| Request {
            prompt: asked.prompt.clone(),
            samples: plan.samples,
            sampling: plan.sampling.clone(),
            max_new_tokens: plan.max_new_tokens,
            stop_tokens: prompting.end_tokens.clone(),
            key,
            top_logprobs: 0,
        })
        .collect();
    let completions = generate(queue, model, &mut scheduler, requests, &mut |_, _, _| Flow::Continue);
    let groups = completions.into_iter().zip(asked).enumerate().map(|(case, (completions, asked))| Group {
        case,
        prompt: asked.prompt,
        rollouts: completions.into_iter().map(|generated| Rollout::of(prompting, generated)).collect(),
    });
    Ok(groups.collect())
}

/// A key for each prompt, by its record's id, and by the number of times that it came before.
fn keys(asked: &[Asked], key: Key) -> impl Iterator<Item = Key> {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    asked.iter().map(move |asked| {
        let times = seen.entry(&asked.id).or_default();
        *times += 1;
        if *times == 1 { key.word(&asked.id) } else { key.word(&asked.id).word("again").number(*times) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_stands_twice_draws_other_numbers() {
        let key = Key::new(1);
        let bits = |ids: &[&str]| -> Vec<u64> {
            let asked: Vec<Asked> = ids.iter().map(|id| Asked { id: id.to_string(), prompt: vec![0] }).collect();
            keys(&asked, key).map(|key| key.bits(0)).collect()
        };
        let mut all = bits(&["a", "b", "a", "a"]);
        assert_eq!(all[..2], bits(&["a", "b"]), "the first time is that of the record alone");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
