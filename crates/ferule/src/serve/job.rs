//! What handlers, engine and thread pass to each other: a request on its way, and what is known of the model that answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lm::generate::{Sampling, Token};
use lm::tokenizer::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;

use super::form::Form;

/// What an engine may use.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Sequences computed at once.
    pub batch: usize,
    /// Requests that may wait beyond those.
    pub queue: usize,
    /// The longest prompt and completion together, in tokens.
    pub context: usize,
}

/// A request, ready to be computed.
pub struct Job {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Completions.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Where a completion is cut, in tokens.
    pub max_new_tokens: usize,
    /// Texts before which a completion ends.
    pub stops: Vec<String>,
    /// The seed of its random numbers.
    pub seed: u64,
    /// Most likely tokens to report at each place; none where no log-probabilities are asked for.
    pub top_logprobs: Option<usize>,
    /// Its places.
    pub places: Places,
    /// Where the pieces go. Their number is bounded by `max_new_tokens`, so that the thread never waits for a slow client.
    pub events: UnboundedSender<Event>,
}

/// What a client is told while its completion is made.
pub enum Event {
    /// More of a sample.
    Piece(Piece),
    /// A sample is finished.
    Finished(Box<Answer>),
    /// It cannot be computed.
    Failed(String),
}

/// A part of a completion.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Which sample.
    pub sample: usize,
    /// Its text; empty while it could still turn out to be part of a stop string.
    pub text: String,
    /// The token with its log-probabilities, where the request asks for them.
    pub token: Option<Token>,
}

/// A finished completion.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which sample.
    pub sample: usize,
    /// Its text, up to a stop string.
    pub text: String,
    /// "stop" or "length".
    pub finish: &'static str,
    /// Its tokens without the end token.
    pub tokens: Vec<Token>,
    /// How many tokens were made, the end token among them.
    pub made: usize,
    /// How sure the model was of its answer.
    pub confidence: f64,
}

/// What all clones know of the model.
pub struct Shared {
    /// The model as it was named.
    pub name: String,
    /// The digest of its weights.
    pub digest: String,
    /// Tokens that its context holds.
    pub context: usize,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    pub(super) vocabulary: usize,
    pub(super) form: Form,
    /// How tokens are drawn where a request does not say.
    pub sampling: Sampling,
    /// The confidence below which its answers should not be trusted, as the run that made it measured.
    pub threshold: Option<f64>,
    pub(super) capacity: Capacity,
    pub(super) accepted: AtomicUsize,
    pub(super) running: AtomicUsize,
}

impl Shared {
    /// Whether a person should look at an answer; none where no threshold was measured for answers that are drawn so.
    pub fn abstains(&self, confidence: f64, sampling: &Sampling) -> Option<bool> {
        let threshold = self.threshold.filter(|_| sampling.logprob_temperature() == 1.0)?;
        Some(confidence < threshold)
    }

    /// Notes how many sequences run.
    pub fn note_running(&self, running: usize) {
        self.running.store(running, Ordering::Relaxed);
    }

    /// The most sequences at once.
    pub fn batch(&self) -> usize {
        self.capacity.batch
    }
}

/// The places of a request's completions. They are given back one by one as completions end, and what is left when this is dropped.
pub struct Places {
    pub(super) of: Arc<Shared>,
    pub(super) held: usize,
}

impl Places {
    /// Gives one back.
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
