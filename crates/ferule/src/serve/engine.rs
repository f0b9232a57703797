//! The thread that owns a model, and answers all requests in one batch that never empties (`lm::generate::Scheduler`).
//!
//! A request waits in a bounded queue until there is a place for it. Its text comes back piece by piece over a channel; when the receiver is dropped, because the client has
//! left, the request ends with its next token, or without one if it still waits. An engine whose last handle is dropped answers what it has accepted, and ends: so another
//! model can take its place without a request being dropped.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use kernels::Real;
use kernels::rng::Key;
use lm::generate::{Completion, Flow, Request, Sampling, Scheduler};
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::{DecodeStream, Tokenizer};
use serde_json::{Map, Value};
use store::{RunView, Runs};
use tasks::registry;
use tokio::sync::mpsc::UnboundedSender;
use train::evaluate::answer_probability;

use super::problem::Problem;
use crate::cli::generate::{finish_reason, limits_for, stop_tokens};
use crate::cli::model_argument::{ComputeDType, ModelArguments, OpenModel};
use crate::cli::stop_strings::StopStrings;

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
    /// Most likely tokens to report at each place.
    pub top_logprobs: usize,
    /// Where the pieces go.
    pub events: UnboundedSender<Event>,
}

/// What a client is told while its completion is made.
pub enum Event {
    /// More text of a sample.
    Text(usize, String),
    /// A sample is finished.
    Finished(Box<Answer>),
    /// It cannot be computed.
    Failed(String),
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
    /// Its tokens, with the end token.
    pub tokens: Vec<lm::generate::Token>,
    /// How sure the model was of its answer.
    pub confidence: f64,
}

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
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
    form: Form,
    /// The confidence below which its answers should not be trusted, as the run that made it measured.
    pub threshold: Option<f64>,
    capacity: Capacity,
    accepted: AtomicUsize,
    running: AtomicUsize,
}

/// How messages become a prompt.
enum Form {
    Template(Box<ChatTemplate>),
    /// One question at a time, in the form of a run's task or as it is.
    Question(Option<toml::Table>),
}

impl Engine {
    /// Loads a model and starts its thread.
    ///
    /// * `digest`: where it is known already.
    ///
    /// # Errors
    /// A model that cannot be read, that has no tokenizer, or that does not fit into memory.
    pub fn start(arguments: &ModelArguments, digest: Option<String>, capacity: Capacity) -> anyhow::Result<Engine> {
        let open = arguments.open()?;
        let Some(tokenizer) = open.tokenizer()? else {
            let hint = "serving needs a tokenizer beside the weights";
            return Err(crate::outcome::failure(format!("{} has no tokenizer.json", open.name), hint));
        };
        let digest = match digest {
            Some(digest) => digest,
            None => train::pipeline::digest_of(open.queue.device(), &open.checkpoint)?,
        };
        let form = match open.checkpoint.template()? {
            Some(template) => Form::Template(Box::new(template)),
            None => Form::Question(open.task.clone()),
        };
        let context = open.checkpoint.config().max_position_embeddings.min(capacity.context);
        let (jobs, incoming) = channel();
        let shared = Arc::new(Shared {
            name: open.name.clone(),
            digest,
            context,
            tokenizer,
            form,
            threshold: threshold(open.path.as_deref()),
            capacity,
            accepted: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        let of_thread = shared.clone();
        let (ready, is_ready) = channel();
        std::thread::Builder::new().name("engine".into()).spawn(move || match open.dtype {
            ComputeDType::F32 => answer_all::<f32>(&of_thread, &open, &incoming, &ready),
            ComputeDType::Bf16 => answer_all::<kernels::bf16>(&of_thread, &open, &incoming, &ready),
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(anyhow::anyhow!("the engine stopped while it loaded the model")))?;
        Ok(Engine { shared, jobs })
    }

    /// What is known of the model.
    pub fn model(&self) -> &Shared {
        &self.shared
    }

    /// Sequences that wait, and that run.
    pub fn load(&self) -> (usize, usize) {
        let (accepted, running) = (&self.shared.accepted, &self.shared.running);
        let running = running.load(Ordering::Relaxed);
        (accepted.load(Ordering::Relaxed).saturating_sub(running), running)
    }

    /// The token ids that messages become.
    ///
    /// # Errors
    /// A template that refuses them; for a model that knows no conversation, anything but one message of the user.
    pub fn prompt(&self, messages: &[Value]) -> Result<Vec<u32>, Problem> {
        let tokenizer = &self.shared.tokenizer;
        match &self.shared.form {
            Form::Template(template) => {
                let chat = Chat { messages, add_generation_prompt: true, variables: Map::new(), ..Chat::default() };
                template.encode(tokenizer, &chat).map_err(|error| Problem::wrong("messages", error.to_string()))
            }
            Form::Question(task) => {
                let [only] = messages else {
                    let text = "this model knows no conversation: send one message with the role user";
                    return Err(Problem::wrong("messages", text));
                };
                let text = only["content"].as_str().filter(|_| only["role"] == "user").unwrap_or_default();
                let asked = task.as_ref().map(|task| registry::question(task, text)).transpose();
                let text = asked
                    .map_err(|refusal| Problem::wrong("messages", refusal.to_string()))?
                    .unwrap_or(text.to_string());
                Ok(tokenizer.special().bos.into_iter().chain(tokenizer.encode_user(&text)).collect())
            }
        }
    }

    /// Accepts a request, unless too many wait.
    ///
    /// # Errors
    /// 429 when the queue is full; 503 when the engine has stopped.
    pub fn submit(&self, job: Job) -> Result<(), Problem> {
        let (samples, capacity) = (job.samples, self.shared.capacity);
        let most = capacity.batch + capacity.queue;
        let enough = |now: usize| (now + samples <= most).then_some(now + samples);
        if self.shared.accepted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough).is_err() {
            return Err(Problem::busy());
        }
        self.jobs.send(job).map_err(|_| Problem::gone())
    }
}

/// The threshold that the run measured when its stage made the model in this folder.
fn threshold(model: Option<&std::path::Path>) -> Option<f64> {
    let model: PathBuf = model?.canonicalize().ok()?;
    let run = model.parent()?.parent()?;
    let view: RunView = Runs::open(run.parent()?).view(run.file_name()?.to_str()?).ok()?;
    let stage = model.file_name()?.to_str()?.to_string();
    let row = view.ledger().stages().ok()?.into_iter().find(|row| row.stage == stage)?;
    row.extra.get("calibration")?["threshold"].as_f64()
}

/// A sample whose text is on its way.
struct Running<'a> {
    decoder: DecodeStream<'a>,
    stops: StopStrings,
    text: String,
}

/// A request that is being computed.
struct Open<'a> {
    events: UnboundedSender<Event>,
    samples: BTreeMap<usize, Running<'a>>,
}

fn answer_all<T: Real>(
    shared: &Shared,
    open: &OpenModel,
    incoming: &Receiver<Job>,
    ready: &Sender<anyhow::Result<()>>,
) {
    let loaded = open.load::<T>(shared.context).and_then(|model| {
        let limits = limits_for::<T>(model.config(), shared.capacity.batch, shared.context)?;
        Ok((Scheduler::<T>::new(&open.queue, model.config(), limits), model, limits))
    });
    let (mut scheduler, model, limits) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let stop_tokens = stop_tokens(open, Some(&shared.tokenizer), false);
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut requests: BTreeMap<usize, Open> = BTreeMap::new();
    loop {
        // With nothing to do the thread sleeps until a request comes; it ends when nobody can send one any more.
        if scheduler.is_idle() && waiting.is_empty() {
            match incoming.recv() {
                Ok(job) => waiting.push_back(job),
                Err(_) => return,
            }
        }
        while let Ok(job) = incoming.try_recv() {
            waiting.push_back(job);
        }
        let running =
            |requests: &BTreeMap<usize, Open>| requests.values().map(|open| open.samples.len()).sum::<usize>();
        while let Some(job) = waiting.front() {
            let places = limits.sequences - running(&requests).min(limits.sequences);
            if !job.events.is_closed() && job.samples.min(limits.sequences) > places {
                break;
            }
            let job = waiting.pop_front().expect("there is a front");
            if job.events.is_closed() {
                shared.accepted.fetch_sub(job.samples, Ordering::SeqCst);
                continue;
            }
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
                stop_tokens: stop_tokens.clone(),
                key: Key::new(job.seed).word("generate").number(0),
                top_logprobs: job.top_logprobs,
            });
            requests.insert(number, Open { events: job.events, samples });
        }
        shared.running.store(running(&requests), Ordering::Relaxed);
        if scheduler.is_idle() {
            continue;
        }
        let finished = scheduler.step(&open.queue, &model, &mut |request, sample, token| {
            let Some(open) = requests.get_mut(&request) else { return Flow::Stop };
            let Some(running) = open.samples.get_mut(&sample) else { return Flow::Stop };
            if !token.logprob.is_finite() {
                let _ = open
                    .events
                    .send(Event::Failed("the logits are not finite: the weights overflow this dtype".into()));
                return Flow::Stop;
            }
            let piece = running.stops.push(&running.decoder.push(token.id));
            running.text += &piece;
            let left = match piece.is_empty() {
                true => open.events.is_closed(),
                false => open.events.send(Event::Text(sample, piece)).is_err(),
            };
            if left || running.stops.stopped() { Flow::Stop } else { Flow::Continue }
        });
        for completion in finished {
            shared.accepted.fetch_sub(1, Ordering::SeqCst);
            finish(shared, &mut requests, completion);
        }
        shared.running.store(running(&requests), Ordering::Relaxed);
    }
}

/// Sends the end of a sample, and forgets the request after its last one.
fn finish(shared: &Shared, requests: &mut BTreeMap<usize, Open>, completion: Completion) {
    let Some(open) = requests.get_mut(&completion.request) else { return };
    if let Some(Running { decoder, mut stops, mut text }) = open.samples.remove(&completion.sample) {
        let rest = stops.push(&decoder.finish()) + &stops.finish();
        if !rest.is_empty() {
            text += &rest;
            let _ = open.events.send(Event::Text(completion.sample, rest));
        }
        let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
        let logprobs: Vec<f32> = completion.tokens.iter().map(|token| token.logprob).collect();
        let answer = Answer {
            sample: completion.sample,
            text,
            finish: finish_reason(completion.finish),
            confidence: answer_probability(&shared.tokenizer, &ids, &logprobs),
            tokens: completion.tokens,
        };
        let _ = open.events.send(Event::Finished(Box::new(answer)));
    }
    if open.samples.is_empty() {
        requests.remove(&completion.request);
    }
}
