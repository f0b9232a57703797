//! The thread that owns a model. It computes all requests in one continuous batch (`lm::generate::Scheduler`).
//!
//! Between two steps it accepts new requests and cancels those whose clients have disconnected. It never waits for a
//! client.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};

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

/// A sample that is being generated.
struct Running<'a> {
    decoder: DecodeStream<'a>,
    stops: StopStrings,
    text: String,
}

/// A request that is running or waiting.
struct Open<'a> {
    events: UnboundedSender<Event>,
    places: Places,
    samples: BTreeMap<usize, Running<'a>>,
    with_tokens: bool,
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
    requests.insert(number, Open { events: job.events, places: job.places, samples, with_tokens, failed: false });
}

impl Open<'_> {
    /// Sends the client what a token adds to a sample.
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
        let token = (self.with_tokens && !stop_tokens.contains(&token.id)).then(|| token.clone());
        if !text.is_empty() || token.is_some() {
            let _ = self.events.send(Event::Piece(Piece { sample, text, token }));
        }
        if running.stops.stopped() { Flow::Stop } else { Flow::Continue }
    }
}

/// Sends the end of a sample, and removes the request after its last sample.
fn finish(shared: &Shared, requests: &mut BTreeMap<usize, Open>, completion: Completion) {
    let Some(open) = requests.get_mut(&completion.request) else { return };
    let Some(Running { decoder, mut stops, mut text }) = open.samples.remove(&completion.sample) else { return };
    open.places.give_back();
    let (sample, made) = (completion.sample, completion.tokens.len());
    if !open.failed {
        let rest = stops.push(&decoder.finish()) + &stops.finish();
        if !rest.is_empty() {
            text += &rest;
            let _ = open.events.send(Event::Piece(Piece { sample, text: rest, token: None }));
        }
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
