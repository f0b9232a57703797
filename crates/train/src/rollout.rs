//! Samples completions of cases.
//!
//! A rollout is token ids end to end. Its random numbers are keyed by (seed, stage, step, record, sample, position), so it
//! does not depend on which others are sampled in the same batch. A record that occurs twice in a batch gets other random numbers the
//! second time.
//!
//! Read next: [`crate::episodes`], for rollouts of several turns.

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

/// One sampled completion, or all turns of an episode.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Token ids, the end token included.
    pub tokens: Vec<u32>,
    /// Ranges of `tokens` that came from an environment, in order. The policy attends to them and is never trained on them.
    pub given: Vec<Range<usize>>,
    /// `[len]` log-probability of each token under the sampler, in nats; 0 for given tokens.
    pub logprobs: Vec<f32>,
    /// Mean entropy of the distributions of the sampled tokens, in nats.
    pub entropy: f32,
    /// The text without the end token.
    pub text: String,
    /// Whether the last turn ended with an end token.
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

    /// The number of tokens that the policy sampled.
    pub fn sampled_tokens(&self) -> usize {
        self.tokens.len() - self.given.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    /// The ranges of `tokens` that the policy sampled, in order.
    pub fn sampled(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.given.iter().map(|given| given.end));
        let ends = self.given.iter().map(|given| given.start).chain([self.tokens.len()]);
        starts.zip(ends).map(|(start, end)| start..end)
    }

    /// `[len]`, whether each token came from an environment.
    pub fn given_mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.tokens.len()];
        self.given.iter().for_each(|given| mask[given.clone()].fill(true));
        mask
    }

    /// Appends the environment's reply, as `given` tokens and as `text`, and the policy's next turn.
    pub(crate) fn append_turn(&mut self, given: Vec<u32>, text: &str, turn: Rollout) {
        let (before, after) = (self.sampled_tokens() as f32, turn.sampled_tokens() as f32);
        self.entropy = (self.entropy * before + turn.entropy * after) / (before + after).max(1.0);
        self.given.push(self.tokens.len()..self.tokens.len() + given.len());
        self.logprobs.resize(self.tokens.len() + given.len(), 0.0);
        self.tokens.extend(given);
        self.tokens.extend(turn.tokens);
        self.logprobs.extend(turn.logprobs);
        self.text += text;
        self.text += &turn.text;
        self.finished = turn.finished;
    }

    /// The completion as rules receive it.
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
    /// The prompt's completions.
    pub rollouts: Vec<Rollout>,
}

impl Group {
    /// Floating-point operations of sampling the group: the prompt once, every sampled token, and in an episode the prefill of each further
    /// turn.
    pub fn sampling_flops(&self, config: &Config) -> f64 {
        let (prompt, sampled) = (self.prompt.len(), self.rollouts.iter().map(Rollout::sampled_tokens).sum::<usize>());
        let own = self.rollouts.iter().map(|rollout| rollout.sampled_tokens() * (prompt + rollout.tokens.len() / 2));
        let prefills = self.rollouts.iter().flat_map(|rollout| &rollout.given).map(|given| prompt + given.end);
        let (mut tokens, mut pairs) = (prompt + sampled, prompt * prompt / 2 + own.sum::<usize>());
        for length in prefills {
            tokens += length;
            pairs += length * length / 2;
        }
        config.forward_flops(tokens, sampled, pairs)
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
    /// Key of the random numbers; each record's id is added to it.
    pub key: Key,
}

/// Samples completions of every case, in order; one group per case.
///
/// # Errors
/// A prompt that cannot be encoded, or whose completion may exceed the model's context.
pub fn sample<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    cases: &[Case],
    plan: &Plan,
) -> Result<Vec<Group>, TrainError> {
    let encode = |case: &Case| Ok(EncodedPrompt { id: case.id.clone(), tokens: prompting.prompt(&case.prompt)? });
    let prompts = cases.iter().map(encode).collect::<Result<_, TrainError>>()?;
    sample_encoded(queue, model, prompting, prompts, plan)
}

/// A prompt's token ids, and the record that they are of.
pub struct EncodedPrompt {
    /// The record's id; it is added to the plan's key.
    pub id: String,
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// As [`sample`], for prompts that are encoded already.
///
/// # Errors
/// A prompt whose completion may exceed the model's context.
pub fn sample_encoded<T: Real>(
    queue: &Queue,
    model: &mut Model<T>,
    prompting: &Prompting,
    prompts: Vec<EncodedPrompt>,
    plan: &Plan,
) -> Result<Vec<Group>, TrainError> {
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let context = longest + plan.max_new_tokens;
    let limit = model.config().max_position_embeddings;
    if context > limit {
        let problem =
            format!("a prompt of {longest} tokens and {} new ones exceed the model's {limit}", plan.max_new_tokens);
        return Err(TrainError::stage("sampling", problem, "shorten the prompts or lower max_new_tokens"));
    }
    model.reserve_context(queue, context);
    let sequences = SEQUENCES.min(prompts.len() * plan.samples).max(1);
    let mut scheduler = Scheduler::new(queue, model.config(), Limits::for_sequences(sequences, context));
    let requests = prompts
        .iter()
        .zip(keys(&prompts, plan.key))
        .map(|(prompt, key)| Request {
            prompt: prompt.tokens.clone(),
            samples: plan.samples,
            sampling: plan.sampling.clone(),
            max_new_tokens: plan.max_new_tokens,
            stop_tokens: prompting.end_tokens.clone(),
            key,
            top_logprobs: 0,
        })
        .collect();
    let completions = generate(queue, model, &mut scheduler, requests, &mut |_, _, _| Flow::Continue);
    let groups = completions.into_iter().zip(prompts).enumerate().map(|(case, (completions, prompt))| Group {
        case,
        prompt: prompt.tokens,
        rollouts: completions.into_iter().map(|generated| Rollout::of(prompting, generated)).collect(),
    });
    Ok(groups.collect())
}

/// The key of each prompt: from its record's id, and from how often the record occurred before it.
fn keys(prompts: &[EncodedPrompt], key: Key) -> impl Iterator<Item = Key> {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    prompts.iter().map(move |prompt| {
        let times = seen.entry(&prompt.id).or_default();
        *times += 1;
        if *times == 1 { key.word(&prompt.id) } else { key.word(&prompt.id).word("again").number(*times) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_occurs_twice_draws_other_numbers() {
        let key = Key::new(1);
        let bits = |ids: &[&str]| -> Vec<u64> {
            let prompt = |id: &&str| EncodedPrompt { id: id.to_string(), tokens: vec![0] };
            let prompts: Vec<EncodedPrompt> = ids.iter().map(prompt).collect();
            keys(&prompts, key).map(|key| key.bits(0)).collect()
        };
        let mut all = bits(&["a", "b", "a", "a"]);
        assert_eq!(all[..2], bits(&["a", "b"]), "the first occurrence depends on the record alone");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
