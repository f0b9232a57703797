//! Measures decoding and prefill, through the scheduler that every command uses to generate.

use kernels::rng::Key;
use kernels::{Queue, Real};
use lm::generate::{Flow, Limits, Request, Sampling, Scheduler, generate};
use lm::{Model, Role};
use serde::Serialize;

use super::subject::Subject;
use super::timing::{median, seconds};
use crate::cli::generate::limits_for;

/// Speed of decoding.
#[derive(Serialize)]
pub struct DecodeRow {
    pub dtype: &'static str,
    pub batch: usize,
    pub prompt: usize,
    pub new: usize,
    /// New tokens of all sequences, divided by the whole time, prefill included.
    pub tokens_per_s: f64,
}

/// Speed of prefill.
#[derive(Serialize)]
pub struct PrefillRow {
    pub dtype: &'static str,
    pub batch: usize,
    pub prompt: usize,
    /// Prompt tokens of all sequences, divided by the time until every first token.
    pub tokens_per_s: f64,
}

/// The subject in a compute dtype.
pub fn model<T: Real>(queue: &Queue, subject: &Subject) -> anyhow::Result<Model<T>> {
    let mut model = match &subject.checkpoint {
        Some(checkpoint) => Model::load(queue, &subject.config, checkpoint.tensors(), Role::Inference)?,
        None => Model::new(queue, &subject.master()?, Role::Inference),
    };
    let context = subject.config.max_position_embeddings.min(4096);
    model.reserve_context(queue, context);
    Ok(model)
}

/// `lengths`: tokens of a prompt, and new tokens.
pub fn decode<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    batch: usize,
    lengths: (usize, usize),
    rounds: usize,
) -> anyhow::Result<DecodeRow> {
    let (prompt, new) = lengths;
    let limits = limits_for::<T>(model.config(), batch, prompt + new)?;
    let time = time_of(queue, model, limits, batch, prompt, new, rounds);
    Ok(DecodeRow { dtype: T::DTYPE.name(), batch, prompt, new, tokens_per_s: (batch * new) as f64 / time })
}

/// Measures one prompt of about 500 tokens, and eight of them.
pub fn prefill<T: Real>(queue: &Queue, model: &Model<T>, rounds: usize) -> anyhow::Result<Vec<PrefillRow>> {
    let prompt = 512.min(model.config().max_position_embeddings - 1);
    [1, 8]
        .into_iter()
        .map(|batch| {
            let limits = limits_for::<T>(model.config(), batch, prompt + 1)?;
            let time = time_of(queue, model, limits, batch, prompt, 1, rounds);
            Ok(PrefillRow { dtype: T::DTYPE.name(), batch, prompt, tokens_per_s: (batch * prompt) as f64 / time })
        })
        .collect()
}

/// Median seconds to generate a batch, after one round that is not counted.
fn time_of<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    limits: Limits,
    batch: usize,
    prompt: usize,
    new: usize,
    rounds: usize,
) -> f64 {
    let mut scheduler = Scheduler::new(queue, model.config(), limits);
    let mut round = |new: usize| {
        let requests: Vec<Request> = (0..batch).map(|i| request(model, i, prompt, new)).collect();
        seconds(|| drop(generate(queue, model, &mut scheduler, requests, &mut |_, _, _| Flow::Continue)))
    };
    round(new.min(4));
    median((0..rounds).map(|_| round(new)).collect())
}

fn request<T: Real>(model: &Model<T>, index: usize, prompt: usize, new: usize) -> Request {
    let key = Key::new(1).word("bench").number(index as u64);
    let vocabulary = model.config().vocab_size as u64;
    Request {
        prompt: (0..prompt as u64).map(|at| (key.bits(at) % vocabulary) as u32).collect(),
        samples: 1,
        sampling: Sampling::greedy(),
        max_new_tokens: new,
        stop_tokens: Vec::new(),
        key,
        top_logprobs: 0,
    }
}
