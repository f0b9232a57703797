//! What a teacher said of a data set, kept on disk: its text, its most likely tokens at every token, the rest of its mass.
//!
//! The artefact is the data set of a `sample` stage ([`crate::stages::sample`]), one Parquet file for each 250 cases, as
//! [`store::rollouts`] describes it. One artefact serves hard labels (the tokens), soft labels (`top_ids`, `top_logprobs`, `tail`), and, where the
//! student spoke and the teacher listened, dialogue at the student's own prefixes. Whole vocabulary rows are never kept: at V = 150,000
//! one token's row takes as much as 4,000 tokens of the best 18.
//!
//! Read next: [`crate::stages::distill`].

use kernels::{Queue, Real};
use lm::Batch;
use lm::head::Targets;
use store::SoftLabels;

use super::{Questions, Teacher, TopK};
use crate::error::TrainError;
use crate::packing::{Sequence, micro_batches};
use crate::rollout::Group;

/// Packed tokens that the teacher reads at a time.
const TOKENS_PER_BATCH: usize = 4096;

/// What a teacher said of the completions of some groups, in their order.
#[derive(Debug, Default)]
pub struct Annotation {
    /// Of each completion.
    pub labels: Vec<SoftLabels>,
    /// Of each completion, the teacher's log-probability of each token, in nats; empty where it did not listen.
    pub logprobs: Vec<Vec<f32>>,
    /// Tokens that went through the teacher, prompts included.
    pub tokens: usize,
    /// Floating-point operations of it.
    pub flops: f64,
}

/// Lets a teacher read the groups' completions. A completion is never empty.
pub fn annotate<T: Real>(
    queue: &Queue,
    teacher: &mut dyn Teacher<T>,
    groups: &[Group],
    questions: Questions,
) -> Result<Annotation, TrainError> {
    let sequences: Vec<Sequence> = groups
        .iter()
        .flat_map(|group| group.rollouts.iter().map(|rollout| Sequence::completion(&group.prompt, &rollout.tokens)))
        .collect();
    let mut made = Annotation::default();
    for (batch, weights) in micro_batches(&sequences, TOKENS_PER_BATCH, 1.0) {
        let targets = Targets::of(&batch, |t| weights[t] != 0.0);
        let TopK { k, ids, logprobs: top, chosen } = teacher.top_k(queue, &batch, &targets, questions)?;
        let mut first = 0;
        for segment in batch.segments() {
            let count = weights[segment.start..][..segment.len].iter().filter(|&&weight| weight != 0.0).count();
            let row = first * k..(first + count) * k;
            made.labels.push(labels_of(questions.temperature, k, &ids[row.clone()], &top[row]));
            made.logprobs.extend(chosen.as_ref().map(|chosen| chosen[first..first + count].to_vec()));
            first += count;
        }
        made.tokens += batch.len();
        made.flops += teacher.flops(&batch, targets.len());
    }
    assert_eq!(made.labels.len(), sequences.len(), "a completion without a token");
    Ok(made)
}

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

/// The columns of a batch whose segments are prompts with the completions that `labels` speak of, in order: k, then `[N, k]` ids and
/// log-probabilities. Tokens of prompts have a row that says nothing.
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
