//! The thread that owns a model. It computes all requests in one continuous batch (`lm::generate::Scheduler`).
//!
//! Between two steps it accepts new requests and cancels those whose clients have disconnected. It never waits for a
//! client.
//!
//! A client that streams receives the first token of a sample at once, and later ones together with all that came within
//! [`PACE`]. A small model makes hundreds of steps a second; an event for each token would cost more time than the token.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use kernels::Real;
use kernels::rng::Key;
use lm::generate::{Completion, Finish, Flow, Request, Scheduler, Token};
use lm::tokenizer::DecodeStream;
use tokio::sync::mpsc::UnboundedSender;
use train::evaluate::answer_probability;

use super::job::{Answer, Event, Job, Piece, Places, Shared};
use crate::cli::generate::{finish_reason, limits_for, stop_tokens};
use crate::cli::model_argument::OpenModel;
use crate::cli::stop_strings::StopStrings;

/// The time for which pieces of a stream are collected. A reader sees fifty pieces a second as a steady flow.
const PACE: Duration = Duration::from_millis(20);

/// A sample that is being generated.
struct Running<'a> {
    decoder: DecodeStream<'a>,
    stops: StopStrings,
    text: String,
    /// The length of the text that the client has been sent, in bytes.
    sent: usize,
    /// The tokens that it has not been sent yet, if it asks for log-probabilities.
    unsent: Vec<Token>,
}

impl Running<'_> {
    /// What the client has not been sent yet.
    fn piece(&mut self, sample: usize) -> Piece {
        let sent = std::mem::replace(&mut self.sent, self.text.len());
        Piece { sample, text: self.text[sent..].to_string(), tokens: std::mem::take(&mut self.unsent) }
    }
}

/// A request that is running or waiting.
struct Open<'a> {
    events: UnboundedSender<Event>,
    places: Places,
    samples: BTreeMap<usize, Running<'a>>,
    with_tokens: bool,
    stream: bool,
    failed: bool,
}

/// Loads the model, reports the outcome to `ready`, and answers requests until none can come any more.
pub fn answer_all<T: Real>(
    shared: &Shared,
    open: &OpenModel,
    incoming: &Receiver<Job>,
    ready: &Sender<anyhow::Result<()>>,
) {
    let loaded = open.load::<T>(shared.context).and_then(|model| {
        let limits = limits_for::<T>(model.config(), shared.batch(), shared.context)?;
        Ok((Scheduler::<T>::new(&open.queue, model.config(), limits), model))
    });
    // The thread that started this one waits for the outcome.
    let (mut scheduler, model) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    let stop_tokens = stop_tokens(open, Some(&shared.tokenizer), false);
    let mut requests: BTreeMap<usize, Open> = BTreeMap::new();
    let mut paced = Instant::now();
    loop {
        // Without work the thread sleeps until a request comes. It ends when no sender is left.
        if scheduler.is_idle() {
            match incoming.recv() {
                Ok(job) => accept(shared, &mut scheduler, &mut requests, &stop_tokens, job),
                Err(_) => return,
            }
        }
        while let Ok(job) = incoming.try_recv() {
            accept(shared, &mut scheduler, &mut requests, &stop_tokens, job);
        }
        requests.retain(|&number, open| {
            let goes = open.failed || open.events.is_closed();
            if goes {
                scheduler.cancel(number);
            }
            !goes
        });
        if !scheduler.is_idle() {
            let finished = scheduler.step(&open.queue, &model, &mut |request, sample, token| {
                requests.get_mut(&request).map_or(Flow::Stop, |open| open.take(sample, token, &stop_tokens))
            });
            finished.into_iter().for_each(|completion| finish(shared, &mut requests, completion));
            if paced.elapsed() >= PACE {
                paced = Instant::now();
                requests.values_mut().for_each(Open::send_pieces);
            }
        }
        shared.note_running(scheduler.running());
    }
}

fn accept<'a, T: Real>(
    shared: &'a Shared,
    scheduler: &mut Scheduler<T>,
    requests: &mut BTreeMap<usize, Open<'a>>,
    stop_tokens: &[u32],
    job: Job,
) {
    let sample = || Running {
        decoder: shared.tokenizer.decode_stream(true),
        stops: StopStrings::new(&job.stops),
        text: String::new(),
        sent: 0,
        unsent: Vec::new(),
    };
    let samples = (0..job.samples).map(|number| (number, sample())).collect();
    let number = scheduler.submit(Request {
        prompt: job.prompt,
        samples: job.samples,
        sampling: job.sampling,
        max_new_tokens: job.max_new_tokens,
        stop_tokens: stop_tokens.to_vec(),
        // The same key as for the first line of `ferule generate`, so that equal seeds give equal answers.
        key: Key::new(job.seed).word("generate").number(0),
        top_logprobs: job.top_logprobs.unwrap_or(0),
    });
    let with_tokens = job.top_logprobs.is_some();
    let Job { events, places, stream, .. } = job;
    requests.insert(number, Open { events, places, samples, with_tokens, stream, failed: false });
}

impl Open<'_> {
    /// Adds a token to a sample.
    fn take(&mut self, sample: usize, token: &Token, stop_tokens: &[u32]) -> Flow {
        let Some(running) = self.samples.get_mut(&sample) else { return Flow::Stop };
        if !token.logprob.is_finite() {
            self.failed = true;
            // If the client has disconnected, the message is not needed.
            let _ =
                self.events.send(Event::Failed("the logits are not finite: the weights overflow this dtype".into()));
            return Flow::Stop;
        }
        let text = running.stops.push(&running.decoder.push(token.id));
        running.text += &text;
        if self.with_tokens && !stop_tokens.contains(&token.id) {
            running.unsent.push(token.clone());
        }
        let flow = if running.stops.stopped() { Flow::Stop } else { Flow::Continue };
        if running.sent == 0 {
            let first = running.piece(sample);
            self.send(first);
        }
        flow
    }

    /// Sends the client what has come since the last time.
    fn send_pieces(&mut self) {
        if !self.stream {
            return;
        }
        let pieces: Vec<Piece> = self.samples.iter_mut().map(|(&sample, running)| running.piece(sample)).collect();
        pieces.into_iter().for_each(|piece| self.send(piece));
    }

    /// Sends a piece, unless it is empty or the client waits for the whole answer.
    fn send(&self, piece: Piece) {
        if self.stream && !(piece.text.is_empty() && piece.tokens.is_empty()) {
            // If the client has disconnected, the request is cancelled before the next step.
            let _ = self.events.send(Event::Piece(piece));
        }
    }
}

/// Sends the end of a sample, and removes the request after its last sample.
fn finish(shared: &Shared, requests: &mut BTreeMap<usize, Open>, completion: Completion) {
    let Some(open) = requests.get_mut(&completion.request) else { return };
    let Some(running) = open.samples.remove(&completion.sample) else { return };
    let Running { decoder, mut stops, mut text, sent, unsent } = running;
    open.places.give_back();
    let (sample, made) = (completion.sample, completion.tokens.len());
    if !open.failed {
        text += &(stops.push(&decoder.finish()) + &stops.finish());
        open.send(Piece { sample, text: text[sent..].to_string(), tokens: unsent });
        let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
        let logprobs: Vec<f32> = completion.tokens.iter().map(|token| token.logprob).collect();
        let mut tokens = completion.tokens;
        if completion.finish == Finish::StopToken {
            tokens.pop();
        }
        let confidence = answer_probability(&shared.tokenizer, &ids, &logprobs);
        let answer = Answer { sample, text, finish: finish_reason(completion.finish), tokens, made, confidence };
        let _ = open.events.send(Event::Finished(Box::new(answer)));
    }
    if open.samples.is_empty() {
        requests.remove(&completion.request);
    }
}
