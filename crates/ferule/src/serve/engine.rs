//! A running model: what handlers know about it, and how a request reaches its thread.
//!
//! The number of places for running and waiting requests is limited. A request takes its places before anything is
//! computed for it. Its text comes back in pieces over a channel. If the client disconnects, the receiver is dropped
//! and the request is cancelled. When the last handle of an engine is dropped, the engine answers what it has accepted
//! and ends. So another model can replace it without dropping a request.
//!
//! Read next: `batch.rs`, the thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use lm::generate::Sampling;
use serde_json::Value;
use store::{RunView, Runs};

use super::batch::answer_all;
use super::form::Form;
use super::job::{Capacity, Job, Places, Shared};
use super::problem::Problem;
use crate::cli::generate::makers_sampling;
use crate::cli::model_argument::{ComputeDType, ModelArguments};

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    thread: Arc<JoinHandle<()>>,
}

impl Engine {
    /// Loads a model and starts its thread.
    ///
    /// * `digest`: the digest of the weights, if it is known already.
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
        // A model that was made for a task samples as in its evaluation.
        let sampling = match open.task {
            Some(_) => Sampling::greedy(),
            None => makers_sampling(open.checkpoint.generation()),
        };
        let config = open.checkpoint.config();
        let (context, vocabulary) = (config.max_position_embeddings.min(capacity.context), config.vocab_size);
        let ids = 0..tokenizer.vocab_size() as u32;
        let longest_token = ids.filter_map(|id| tokenizer.token_bytes(id)).map(<[u8]>::len).max().unwrap_or(0).max(1);
        let (jobs, incoming) = channel();
        let shared = Arc::new(Shared {
            name: open.name.clone(),
            digest,
            context,
            tokenizer,
            vocabulary,
            longest_token,
            form,
            sampling,
            threshold: threshold(open.path.as_deref()),
            capacity,
            accepted: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        let of_thread = shared.clone();
        let (ready, is_ready) = channel();
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || match open.dtype {
            ComputeDType::F32 => answer_all::<f32>(&of_thread, &open, &incoming, &ready),
            ComputeDType::Bf16 => answer_all::<kernels::bf16>(&of_thread, &open, &incoming, &ready),
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(anyhow::anyhow!("the engine stopped while it loaded the model")))?;
        Ok(Engine { shared, jobs, thread: Arc::new(thread) })
    }

    /// What is known about the model.
    pub fn model(&self) -> &Shared {
        &self.shared
    }

    /// The numbers of waiting and running sequences.
    pub fn load(&self) -> (usize, usize) {
        let (accepted, running) = (&self.shared.accepted, &self.shared.running);
        let running = running.load(Ordering::Relaxed);
        (accepted.load(Ordering::Relaxed).saturating_sub(running), running)
    }

    /// The token ids of messages.
    ///
    /// # Errors
    /// Messages that the model's form refuses; a prompt that leaves no room for a token.
    pub fn prompt(&self, messages: &[Value]) -> Result<Vec<u32>, Problem> {
        let model = &self.shared;
        let fits = |bytes: usize| match bytes.div_ceil(model.longest_token) {
            least if least >= model.context => Err(Problem::too_long(format_args!("at least {least}"), model.context)),
            _ => Ok(()),
        };
        let prompt = model.form.prompt(&model.tokenizer, messages, fits)?;
        if prompt.is_empty() {
            return Err(Problem::wrong("messages", "the messages have no token: say something"));
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= model.vocabulary) {
            let problem = format!("the messages have token {id}, and the model knows {} tokens", model.vocabulary);
            return Err(Problem::wrong("messages", problem));
        }
        if prompt.len() >= model.context {
            return Err(Problem::too_long(prompt.len(), model.context));
        }
        Ok(prompt)
    }

    /// Reserves places for a request.
    ///
    /// # Errors
    /// 400 for more completions than there are places, 429 when too few are free now.
    pub fn reserve(&self, samples: usize) -> Result<Places, Problem> {
        let most = self.shared.capacity.batch + self.shared.capacity.queue;
        if samples > most {
            return Err(Problem::wrong("n", format!("`n` is at most {most} on this server")));
        }
        let enough = |now: usize| (now + samples <= most).then_some(now + samples);
        match self.shared.accepted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough) {
            Ok(_) => Ok(Places { of: self.shared.clone(), held: samples }),
            Err(_) => Err(Problem::busy()),
        }
    }

    /// Hands a request to the thread.
    ///
    /// # Errors
    /// 503 when the engine has stopped.
    pub fn submit(&self, job: Job) -> Result<(), Problem> {
        self.jobs.send(job).map_err(|_| Problem::gone())
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }
}

/// The confidence threshold that the run measured for the model in this folder.
fn threshold(model: Option<&std::path::Path>) -> Option<f64> {
    let model: PathBuf = model?.canonicalize().ok()?;
    let run = model.parent()?.parent()?;
    let view: RunView = Runs::open(run.parent()?).view(run.file_name()?.to_str()?).ok()?;
    let stage = model.file_name()?.to_str()?.to_string();
    let row = view.ledger().stages().ok()?.into_iter().find(|row| row.stage == stage)?;
    row.extra.get("calibration")?["threshold"].as_f64()
}
