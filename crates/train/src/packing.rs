//! Packs token lists into micro-batches without padding. Nothing is cut.
//!
//! [`micro_batches`] packs sequences that stand alone. [`packed_completions`] packs completions behind their prompts;
//! the completions of a prompt share its rows. [`packed_groups`] adds what a policy gradient needs of sampled
//! completions.

use std::ops::Range;

use lm::Batch;

use crate::policy::PolicyTokens;
use crate::rollout::Rollout;

/// A sequence to be trained: its tokens, and the weight of each in the cross-entropy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// `[len]`, 0 for tokens that are not targets; the first never is one.
    pub weights: Vec<f32>,
}

impl Sequence {
    /// A document: every token but the first is a target.
    pub fn document(tokens: Vec<u32>) -> Sequence {
        let mut weights = vec![1.0; tokens.len()];
        if let Some(first) = weights.first_mut() {
            *first = 0.0;
        }
        Sequence { tokens, weights }
    }

    /// A prompt and the completion that is trained.
    pub fn completion(prompt: &[u32], completion: &[u32]) -> Sequence {
        let tokens = [prompt, completion].concat();
        let mut weights = vec![0.0; prompt.len()];
        weights.resize(tokens.len(), 1.0);
        Sequence { tokens, weights }
    }

    /// Targets with a weight.
    pub fn targets(&self) -> usize {
        self.weights.iter().filter(|&&weight| weight != 0.0).count()
    }
}

/// Packs sequences, in order, into micro-batches of at most `tokens_per_micro_batch` tokens. A longer sequence is a
/// micro-batch by itself, and sequences without a target are left out. Each micro-batch comes with its tokens' weights
/// times `scale`.
pub fn micro_batches(sequences: &[Sequence], tokens_per_micro_batch: usize, scale: f32) -> Vec<(Batch, Vec<f32>)> {
    let mut batches: Vec<(Batch, Vec<f32>)> = Vec::new();
    for sequence in sequences.iter().filter(|sequence| sequence.targets() > 0) {
        let fits =
            batches.last().is_some_and(|(batch, _)| batch.len() + sequence.tokens.len() <= tokens_per_micro_batch);
        if !fits {
            batches.push((Batch::new(), Vec::new()));
        }
        let (batch, weights) = batches.last_mut().expect("one was pushed");
        batch.push(&sequence.tokens, None);
        weights.extend(sequence.weights.iter().map(|weight| weight * scale));
    }
    batches
}

/// A sampled completion to be trained.
pub struct Continuation<'a> {
    /// The completion.
    pub rollout: &'a Rollout,
    /// The advantage of each of its tokens.
    pub advantage: f32,
    /// The weight of each of its tokens in the step's loss.
    pub weight: f32,
}

/// Completions packed behind their prompts: one micro-batch.
#[derive(Default)]
pub struct PackedCompletions {
    /// The tokens.
    pub batch: Batch,
    /// Where each completion's tokens lie in the batch.
    pub completions: Vec<Range<usize>>,
    /// Which of the given prompts it holds.
    pub prompts: Range<usize>,
}

impl PackedCompletions {
    /// `[N]`, whether a token belongs to a completion.
    pub fn trained(&self) -> Vec<bool> {
        let mut trained = vec![false; self.batch.len()];
        self.completions.iter().for_each(|tokens| trained[tokens.clone()].fill(true));
        trained
    }

    /// The rows of each completion among those of [`Self::trained`].
    pub fn rows(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let mut row = |tokens: &Range<usize>| {
            let rows = start..start + tokens.len();
            start = rows.end;
            rows
        };
        self.completions.iter().map(&mut row).collect()
    }
}

/// Packs prompts with their completions, in order, into micro-batches of at most `tokens_per_micro_batch` tokens. A
/// prompt and its completions always stay together; if they are larger, they are a micro-batch by themselves.
///
/// A prompt is in its batch once, without its last token. Each completion is a child segment that begins with that last
/// token, because a segment's first token is never a target.
///
/// # Panics
/// For an empty prompt.
pub fn packed_completions<'a>(
    prompts: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>,
    tokens_per_micro_batch: usize,
) -> Vec<PackedCompletions> {
    let mut batches: Vec<PackedCompletions> = Vec::new();
    for (index, (prompt, completions)) in prompts.into_iter().enumerate() {
        let (&last, before) = prompt.split_last().expect("a prompt has a token");
        let size = before.len() + completions.iter().map(|completion| completion.len() + 1).sum::<usize>();
        if batches.last().is_none_or(|packed| packed.batch.len() + size > tokens_per_micro_batch) {
            batches.push(PackedCompletions { prompts: index..index, ..PackedCompletions::default() });
        }
        let packed = batches.last_mut().expect("one was pushed");
        let parent = (!before.is_empty()).then(|| packed.batch.push(before, None));
        for completion in completions {
            packed.batch.push(&[&[last], completion].concat(), parent);
            packed.completions.push(packed.batch.len() - completion.len()..packed.batch.len());
        }
        packed.prompts.end = index + 1;
    }
    batches
}

/// Sampled completions packed behind their prompts: one micro-batch.
pub struct PackedGroups {
    /// The tokens.
    pub batch: Batch,
    /// `[N]`, whether a token was sampled.
    pub sampled: Vec<bool>,
    /// The sampled tokens' rows, in the batch's order.
    pub tokens: PolicyTokens,
}

/// Packs prompts with their sampled completions as [`packed_completions`] does. Prompts without completions are left
/// out.
///
/// # Panics
/// For an empty prompt.
pub fn packed_groups<'a>(
    groups: impl IntoIterator<Item = (&'a [u32], Vec<Continuation<'a>>)>,
    tokens_per_micro_batch: usize,
) -> Vec<PackedGroups> {
    let groups: Vec<_> = groups.into_iter().filter(|(_, continuations)| !continuations.is_empty()).collect();
    let prompts = groups.iter().map(|(prompt, continuations)| {
        (*prompt, continuations.iter().map(|continuation| continuation.rollout.tokens.as_slice()).collect())
    });
    let with_signals = |packed: PackedCompletions| {
        let mut sampled = vec![false; packed.batch.len()];
        let mut tokens = PolicyTokens::default();
        let continuations = groups[packed.prompts].iter().flat_map(|(_, continuations)| continuations);
        for (place, Continuation { rollout, advantage, weight }) in packed.completions.iter().zip(continuations) {
            let (start, end) = (tokens.weight.len(), tokens.weight.len() + rollout.sampled_tokens());
            tokens.weight.resize(end, *weight);
            tokens.advantage.resize(end, *advantage);
            for range in rollout.sampled() {
                tokens.logprobs_sampler.extend_from_slice(&rollout.logprobs[range.clone()]);
                sampled[place.start + range.start..place.start + range.end].fill(true);
            }
            tokens.completions.push(start..end);
        }
        PackedGroups { batch: packed.batch, sampled, tokens }
    };
    packed_completions(prompts, tokens_per_micro_batch).into_iter().map(with_signals).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_stay_whole_and_in_order() {
        let sequences: Vec<Sequence> = (1..6).map(|n| Sequence::document(vec![n; n as usize + 1])).collect();
        let batches = micro_batches(&sequences, 7, 0.5);
        let lengths: Vec<usize> = batches.iter().map(|(batch, _)| batch.len()).collect();
        assert_eq!(lengths, [5, 4, 5, 6]);
        assert_eq!(batches[0].1, [0.0, 0.5, 0.0, 0.5, 0.5]);
        let masked = Sequence { tokens: vec![1, 2], weights: vec![0.0, 0.0] };
        assert!(micro_batches(&[masked], 7, 1.0).is_empty());
    }

    #[test]
    fn a_group_stands_behind_its_prompt_which_is_there_once() {
        let rollout = |tokens: &[u32]| Rollout {
            tokens: tokens.to_vec(),
            given: Vec::new(),
            logprobs: tokens.iter().map(|&token| -(token as f32)).collect(),
            entropy: 0.0,
            text: String::new(),
            finished: true,
        };
        let (a, b, c) = (rollout(&[10, 11]), rollout(&[12]), rollout(&[20, 21, 22]));
        let of = |rollout, advantage, weight| Continuation { rollout, advantage, weight };
        let groups = || {
            [
                (&[1, 2, 3][..], vec![of(&a, 1.0, 0.5), of(&b, -1.0, 0.25)]),
                (&[4, 5][..], Vec::new()),
                (&[6][..], vec![of(&c, 2.0, 0.125)]),
            ]
        };
        let [packed] = packed_groups(groups(), 11).try_into().ok().expect("all fit one micro-batch");
        assert_eq!(packed.batch.tokens(), [1, 2, 3, 10, 11, 3, 12, 6, 20, 21, 22]);
        assert_eq!(packed.batch.positions(), [0, 1, 2, 3, 4, 2, 3, 0, 1, 2, 3]);
        let parents: Vec<_> = packed.batch.segments().iter().map(|segment| segment.parent).collect();
        assert_eq!(parents, [None, Some(0), Some(0), None]);
        let sampled: Vec<u32> = packed
            .batch
            .tokens()
            .iter()
            .zip(&packed.sampled)
            .filter(|(_, sampled)| **sampled)
            .map(|(&t, _)| t)
            .collect();
        assert_eq!(sampled, [10, 11, 12, 20, 21, 22], "never a prompt's token");
        let tokens = &packed.tokens;
        assert_eq!(tokens.completions, [0..2, 2..3, 3..6]);
        assert_eq!(tokens.logprobs_sampler, [-10.0, -11.0, -12.0, -20.0, -21.0, -22.0]);
        assert_eq!(tokens.advantage, [1.0, 1.0, -1.0, 2.0, 2.0, 2.0]);
        assert_eq!(tokens.weight, [0.5, 0.5, 0.25, 0.125, 0.125, 0.125]);
        assert_eq!(packed_groups(groups(), 10).len(), 2, "a group is never cut");

        let mut episode = a.clone();
        episode.append_turn(vec![30, 31], " given ", c.clone());
        let [packed] = packed_groups([(&[1, 2][..], vec![of(&episode, 1.0, 0.5)])], 99).try_into().ok().expect("one");
        assert_eq!(packed.batch.tokens(), [1, 2, 10, 11, 30, 31, 20, 21, 22]);
        assert_eq!(
            packed.sampled,
            [false, false, true, true, false, false, true, true, true],
            "what was given is read alone"
        );
        assert_eq!(packed.tokens.logprobs_sampler, [-10.0, -11.0, -20.0, -21.0, -22.0]);
        assert_eq!((packed.tokens.completions.len(), packed.tokens.completions[0].clone()), (1, 0..5));
    }
}
