//! A teacher's soft labels of a data set, stored on disk: its most likely tokens at every position and the probability of the rest.
//!
//! The artefact is the data set of a `sample` stage ([`crate::stages::sample`]), one Parquet file for each 250 cases, as
//! [`store::rollouts`] describes it. It holds hard labels (the tokens) and soft labels (`top_ids`, `top_logprobs`, `tail`). If a student
//! sampled the completions and the teacher scored them, a student learns from it at its own prefixes. Whole vocabulary rows are never
//! stored: at V = 150,000 one token's row takes as much space as the 18 most likely tokens at 4,000 positions.
//!
//! Read next: [`crate::stages::distill`].

use kernels::{Queue, Real};
use lm::Batch;
use lm::head::Targets;
use store::SoftLabels;

use super::Teacher;
use super::top_k::{TopK, TopKRequest};
use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::rollout::Group;

/// Packed tokens in one forward pass of the teacher.
const TOKENS_PER_BATCH: usize = 4096;

/// A teacher's labels of the completions of some groups, in the order of the groups.
#[derive(Debug, Default)]
pub struct Annotation {
    /// The soft labels of each completion.
    pub labels: Vec<SoftLabels>,
    /// The teacher's log-probability of each token of each completion, in nats; empty if they were not requested.
    pub logprobs: Vec<Vec<f32>>,
    /// Tokens that went through the teacher, prompts included.
    pub tokens: usize,
    /// Floating-point operations of the teacher.
    pub flops: f64,
}

/// Labels the completions of some groups with a teacher's most likely tokens.
///
/// # Errors
/// As [`Teacher::top_k`].
///
/// # Panics
/// For an empty completion.
pub fn annotate<T: Real>(
    queue: &Queue,
    teacher: &mut dyn Teacher<T>,
    groups: &[Group],
    request: TopKRequest,
) -> Result<Annotation, TrainError> {
    let sequences: Vec<Sequence> = groups
        .iter()
        .flat_map(|group| group.rollouts.iter().map(|rollout| Sequence::completion(&group.prompt, &rollout.tokens)))
        .collect();
    let mut made = Annotation::default();
    for (batch, weights) in micro_batches(&sequences, TOKENS_PER_BATCH, 1.0) {
        let targets = Targets::of(&batch, |t| weights[t] != 0.0);
        let TopK { k, ids, logprobs: top, target_logprobs } = teacher.top_k(queue, &batch, &targets, request)?;
        let mut first = 0;
        for segment in batch.segments() {
            let count = weights[segment.start..][..segment.len].iter().filter(|&&weight| weight != 0.0).count();
            let row = first * k..(first + count) * k;
            made.labels.push(labels_of(request.temperature, k, &ids[row.clone()], &top[row]));
            made.logprobs.extend(target_logprobs.as_ref().map(|all| all[first..first + count].to_vec()));
            first += count;
        }
        made.tokens += batch.len();
        made.flops += teacher.flops(&batch, targets.len());
    }
    assert_eq!(made.labels.len(), sequences.len(), "a completion without a token");
    Ok(made)
}

/// The soft labels of one completion of `L` tokens, from its rows of the teacher's top k: `ids` and `logprobs` are `[L, k]`.
fn labels_of(temperature: f32, k: usize, ids: &[u32], logprobs: &[f32]) -> SoftLabels {
    let tail = |row: &[f32]| (1.0 - row.iter().map(|&p| f64::from(p).exp()).sum::<f64>()).max(0.0) as f32;
    SoftLabels {
        temperature,
        k: k as u32,
        ids: ids.to_vec(),
        logprobs: logprobs.to_vec(),
        tail: logprobs.chunks_exact(k).map(tail).collect(),
    }
}

/// The soft labels of a batch, as columns over its tokens. Each segment is a prompt with a completion, and `labels` are those of the
/// completions, in order.
///
/// # Shapes and units
/// * returns k, then `[N, k]` token ids and `[N, k]` log-probabilities in nats. Rows of prompt tokens have log-probabilities of −∞.
///
/// # Panics
/// When there are fewer labels than segments, or their k differ: one artefact has one k.
pub fn columns(batch: &Batch, labels: &mut dyn Iterator<Item = &SoftLabels>) -> (usize, Vec<u32>, Vec<f32>) {
    let labels: Vec<&SoftLabels> = labels.take(batch.segments().len()).collect();
    assert_eq!(labels.len(), batch.segments().len(), "soft labels and completions");
    let k = labels.first().map_or(0, |labels| labels.k as usize);
    let (mut ids, mut logprobs) = (Vec::with_capacity(batch.len() * k), Vec::with_capacity(batch.len() * k));
    for (segment, labels) in batch.segments().iter().zip(labels) {
        assert_eq!(labels.k as usize, k, "soft labels of one artefact");
        let prompt = segment.len - labels.tail.len();
        ids.extend((0..prompt).flat_map(|_| 0..k as u32));
        logprobs.resize(ids.len(), f32::NEG_INFINITY);
        ids.extend_from_slice(&labels.ids);
        logprobs.extend_from_slice(&labels.logprobs);
    }
    (k, ids, logprobs)
}
