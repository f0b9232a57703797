//! What handlers, engine and thread pass to each other: a request, and what is known about the model that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lm::generate::{Sampling, Token};
use lm::tokenizer::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;

use super::form::Form;

/// The limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Sequences that are computed at once.
    pub batch: usize,
    /// Requests that may wait besides those.
    pub queue: usize,
    /// The longest prompt and completion together, in tokens.
    pub context: usize,
}

/// A request, ready to be computed.
pub struct Job {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// The number of completions.
    pub samples: usize,
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// The largest number of tokens of a completion.
    pub max_new_tokens: usize,
    /// Stop strings. A completion ends before the first of them.
    pub stops: Vec<String>,
    /// The seed of its random numbers.
    pub seed: u64,
    /// The number of most likely tokens to report at each position; none if no log-probabilities are requested.
    pub top_logprobs: Option<usize>,
    /// Whether the client wants pieces before the end.
    pub stream: bool,
    /// Its places.
    pub places: Places,
    /// The channel for the pieces. `max_new_tokens` bounds their number, so the thread never has to wait for a slow
    /// client.
    pub events: UnboundedSender<Event>,
}

/// What a client receives while its completion is generated.
pub enum Event {
    /// The next part of a sample.
    Piece(Piece),
    /// A sample is finished.
    Finished(Box<Answer>),
    /// The request cannot be computed.
    Failed(String),
}

/// A part of a completion.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The index of the sample.
    pub sample: usize,
    /// Its text; empty while it may still be part of a stop string.
    pub text: String,
    /// Its tokens with their log-probabilities, if the request asks for them.
    pub tokens: Vec<Token>,
}

/// A finished completion.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The index of the sample.
    pub sample: usize,
    /// Its text, up to the first stop string.
    pub text: String,
    /// "stop" or "length".
    pub finish: &'static str,
    /// Its tokens without the end token.
    pub tokens: Vec<Token>,
    /// The number of tokens that were generated, including the end token.
    pub made: usize,
    /// The model's confidence in its answer, from 0 to 1.
    pub confidence: f64,
}

/// What all clones of an engine know about the model.
pub struct Shared {
    /// The model's name, as the user gave it.
    pub name: String,
    /// The digest of its weights.
    pub digest: String,
    /// Its context length, in tokens.
    pub context: usize,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    pub(super) vocabulary: usize,
    /// The length of the longest token, in bytes.
    pub(super) longest_token: usize,
    pub(super) form: Form,
    /// How tokens are sampled if a request does not say.
    pub sampling: Sampling,
    /// The confidence below which its answers should not be trusted, as measured by the run that made it.
    pub threshold: Option<f64>,
    pub(super) capacity: Capacity,
    pub(super) accepted: AtomicUsize,
    pub(super) running: AtomicUsize,
}

impl Shared {
    /// Whether a person should look at an answer; none if no threshold was measured for this kind of sampling.
    pub fn abstains(&self, confidence: f64, sampling: &Sampling) -> Option<bool> {
        let threshold = self.threshold.filter(|_| sampling.logprob_temperature() == 1.0)?;
        Some(confidence < threshold)
    }

    /// Sets the number of running sequences.
    pub fn note_running(&self, running: usize) {
        self.running.store(running, Ordering::Relaxed);
    }

    /// The largest number of sequences that run at once.
    pub fn batch(&self) -> usize {
        self.capacity.batch
    }
}

/// The places of a request's completions. They are given back one by one as completions end; the rest are given back
/// when this is dropped.
pub struct Places {
    pub(super) of: Arc<Shared>,
    pub(super) held: usize,
}

impl Places {
    /// Gives one place back.
    pub fn give_back(&mut self) {
        self.held -= 1;
        self.of.accepted.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.of.accepted.fetch_sub(self.held, Ordering::SeqCst);
    }
}
