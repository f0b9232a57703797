//! Continuous batching. The phases of a step are: admit, plan, run, sample, settle.
//!
//! A sequence consists of its tokens, and of the number of them whose keys and values are cached. A step *feeds* a
//! sequence: it computes and caches more of its tokens. When all tokens are cached, the logits of the last row give the
//! next token. This one rule covers all cases; they differ only in how many tokens are not cached yet. For example,
//! when a sequence gets all of the 512 rows of a step:
//!
//! ```text
//!                                 tokens   cached   fed
//!     a prompt, first chunk          600        0   512
//!     its second chunk               600      512    88   all are cached: token 601 is drawn
//!     a decode step                  601      600     1   all are cached: token 602 is drawn
//!     after a preemption             602        0   512   starts again, without its pages
//! ```
//!
//! All samples of a request are one sequence until its prompt is cached. Then the sequence forks into one per sample,
//! and the forks share its pages. When the cache is full, the youngest sequence is preempted: it loses its pages, keeps
//! its tokens, and waits at the front of the queue. Later it computes the same bits again.
//!
//! **Invariants.** `cached < tokens.len()` between steps. Every running sequence holds pages for its `cached`
//! positions. The oldest running sequence is never preempted, so every step makes progress.
//!
//! Source: Yu et al. 2022, Orca (OSDI 22; batching by iterations); Kwon et al. 2023, arXiv 2309.06180 (paged cache).

use std::collections::{BTreeMap, VecDeque};

use kernels::gemm::{Epilogue, matmul};
use kernels::ops::head::{head_statistics, top_k_rows};
use kernels::ops::rows::gather_rows;
use kernels::{Buffer, Queue, Real, Scratch, View};

use super::decode::{StepRows, step};
use super::kv_cache::{KvCache, PAGE};
use super::sampler::{Draw, Sampling, sample};
use crate::activations::{Activations, Keep};
use crate::config::Config;
use crate::model::Model;
use kernels::rng::Key;

/// Number of logits that are stored at a time, f32 each.
const LOGITS_PER_BLOCK: usize = 1 << 21;

/// A prompt, and how to generate its completions.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt's token ids; at least one.
    pub prompt: Vec<u32>,
    /// Number of completions.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// A completion ends at this many tokens.
    pub max_new_tokens: usize,
    /// Tokens that end a completion; the token is part of it.
    pub stop_tokens: Vec<u32>,
    /// Key of the random numbers. The sample's number and the token's position are added to it. So equal keys draw
    /// equal numbers.
    pub key: Key,
    /// How many of the most likely tokens to report at each position.
    pub top_logprobs: usize,
}

/// One generated token, as it is passed to the caller at each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability in nats; see [`Sampling`].
    pub logprob: f32,
    /// Entropy of the distribution before filters, in nats, at the temperature of the log-probabilities.
    pub entropy: f32,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// One of the request's stop tokens.
    StopToken,
    /// The caller ended it, for example at a stop string.
    Stopped,
    /// `max_new_tokens`, or the model's context.
    Length,
}

/// A finished completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What [`Scheduler::submit`] returned.
    pub request: usize,
    /// Which of the request's samples, from 0.
    pub sample: usize,
    /// Its tokens, the stop token included.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: Finish,
}

/// The caller's decision after each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End this completion here.
    Stop,
}

/// How much memory and how many rows a scheduler may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of pages of the cache, [`PAGE`] positions each.
    pub pages: usize,
    /// Most sequences that run at once.
    pub sequences: usize,
    /// Most rows of one step. Longer prompts are cut into chunks.
    pub rows: usize,
}

impl Limits {
    /// Limits with room for `sequences` sequences of up to `context` positions each.
    pub fn for_sequences(sequences: usize, context: usize) -> Self {
        Self { pages: sequences * context.div_ceil(PAGE), sequences, rows: sequences.max(512) }
    }
}

struct Sequence {
    request: usize,
    /// The numbers of its samples; more than one until the sequence forks.
    samples: Vec<usize>,
    /// Prompt and completion so far.
    tokens: Vec<u32>,
    /// The generated tokens.
    made: Vec<Token>,
    /// How many of `tokens` have their keys and values in the cache.
    cached: usize,
    /// Its pages, in order of position.
    table: Vec<u32>,
    /// Its place in the order of admission; the highest is the youngest.
    order: u64,
}

/// The sequences that wait and run, over one cache.
pub struct Scheduler<T: Real> {
    limits: Limits,
    cache: KvCache<T>,
    activations: Activations<T>,
    scratch: Scratch,
    gathered: Buffer<T>,
    logits: Buffer<f32>,
    /// The requests that are not finished, each with the number of completions that are still to come.
    requests: BTreeMap<usize, (Request, usize)>,
    submitted: usize,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    admitted: u64,
    preemptions: u64,
    computed: u64,
}

impl<T: Real> Scheduler<T> {
    /// An idle scheduler for models of `config`.
    pub fn new(queue: &Queue, config: &Config, limits: Limits) -> Self {
        let rows = limits.rows.max(limits.sequences);
        let limits = Limits { rows, ..limits };
        let block = logit_rows(config);
        Self {
            limits,
            cache: KvCache::new(queue, config, limits.pages),
            activations: Activations::new(queue.device(), config, rows, Keep::Nothing),
            scratch: Scratch::new(queue.device()),
            gathered: Buffer::zeros(queue.device(), block * config.hidden_size),
            logits: Buffer::zeros(queue.device(), block * config.vocab_size),
            requests: BTreeMap::new(),
            submitted: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            admitted: 0,
            preemptions: 0,
            computed: 0,
        }
    }

    /// The most tokens, of prompt and completion together, that the cache can hold.
    pub fn capacity_tokens(&self) -> usize {
        self.limits.pages * PAGE
    }

    /// How often a sequence lost its pages to older sequences.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Number of tokens that went through the model so far. Tokens of a preempted sequence count again.
    pub fn computed_tokens(&self) -> u64 {
        self.computed
    }

    /// Number of completions that are being computed. The others wait.
    pub fn running(&self) -> usize {
        self.running.iter().map(|sequence| sequence.samples.len()).sum()
    }

    /// Whether no sequence waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Queues a request. Returns its number, which its completions carry.
    ///
    /// # Panics
    /// When the prompt is empty, `samples` or `max_new_tokens` is 0, or prompt and completion together may exceed
    /// [`Scheduler::capacity_tokens`].
    pub fn submit(&mut self, request: Request) -> usize {
        assert!(!request.prompt.is_empty() && request.samples > 0 && request.max_new_tokens > 0, "an empty request");
        let most = request.prompt.len() + request.max_new_tokens;
        assert!(most <= self.capacity_tokens(), "{most} tokens in a cache of {}", self.capacity_tokens());
        let index = self.submitted;
        self.submitted += 1;
        // A group of more samples than may run at once becomes several sequences. Each of them computes the prompt
        // again.
        for samples in (0..request.samples).collect::<Vec<_>>().chunks(self.limits.sequences) {
            self.waiting.push_back(Sequence {
                request: index,
                samples: samples.to_vec(),
                tokens: request.prompt.clone(),
                made: Vec::new(),
                cached: 0,
                table: Vec::new(),
                order: 0,
            });
        }
        let samples = request.samples;
        self.requests.insert(index, (request, samples));
        index
    }

    /// Cancels a request. Its sequences stop and release their places and pages; it gets no more completions.
    /// Completions of other requests do not change. It is no error if the request has no sequence any more.
    pub fn cancel(&mut self, request: usize) {
        self.waiting.retain(|sequence| sequence.request != request);
        let cache = &mut self.cache;
        self.running.retain_mut(|sequence| {
            let stays = sequence.request != request;
            if !stays {
                cache.release(&mut sequence.table);
            }
            stays
        });
        self.requests.remove(&request);
    }

    /// Runs one step, and returns the completions that finished in it.
    ///
    /// * `watch(request, sample, token)` is called for every new token. It decides whether the completion goes on.
    ///
    /// # Panics
    /// When a sequence outgrows the model's reserved context.
    pub fn step(
        &mut self,
        queue: &Queue,
        model: &Model<T>,
        watch: &mut dyn FnMut(usize, usize, &Token) -> Flow,
    ) -> Vec<Completion> {
        self.admit();
        let fed = self.plan(queue);
        let mut rows = StepRows::default();
        for (index, (sequence, &fed)) in self.running.iter().zip(&fed).enumerate() {
            (sequence.cached..sequence.cached + fed).for_each(|at| rows.push(sequence.tokens[at], index, at));
            self.computed += fed as u64;
        }
        let tables: Vec<&[u32]> = self.running.iter().map(|sequence| sequence.table.as_slice()).collect();
        step(queue, model, &rows, &tables, &mut self.cache, &mut self.activations, &mut self.scratch);

        let mut last_rows = Vec::new();
        let mut row = 0;
        for (sequence, &fed) in self.running.iter_mut().zip(&fed) {
            sequence.cached += fed;
            row += fed;
            last_rows.push((sequence.cached == sequence.tokens.len()).then(|| row as u32 - 1));
        }
        let ready = self.fork(&last_rows);
        let tokens = self.sample(queue, model, &ready);
        self.settle(model, &ready, tokens, watch)
    }

    /// Admits waiting sequences, as long as there are places and enough free pages for their tokens.
    fn admit(&mut self) {
        let mut places = self.limits.sequences - self.running();
        let mut pages = self.cache.free_pages();
        while let Some(next) = self.waiting.front() {
            let needed = (next.tokens.len() + 1).div_ceil(PAGE);
            if next.samples.len() > places || needed > pages {
                break;
            }
            places -= next.samples.len();
            pages -= needed;
            let mut sequence = self.waiting.pop_front().expect("there is a front");
            self.admitted += 1;
            sequence.order = self.admitted;
            self.running.push(sequence);
        }
    }

    /// Decides how many tokens each running sequence feeds, and reserves pages for them. If there are too few pages, it
    /// preempts the youngest sequences.
    fn plan(&mut self, queue: &Queue) -> Vec<usize> {
        self.running.sort_by_key(|sequence| sequence.order);
        let mut fed = Vec::new();
        let mut rows = self.limits.rows;
        while fed.len() < self.running.len() {
            let index = fed.len();
            let younger = self.running.len() - index - 1;
            let sequence = &mut self.running[index];
            let pending = sequence.tokens.len() - sequence.cached;
            // One row is left for every younger sequence, so that a long prompt does not stop them from decoding.
            let feed = pending.min(rows.saturating_sub(younger).max(1));
            if self.cache.reserve(queue, &mut sequence.table, sequence.cached, sequence.cached + feed) {
                rows = rows.saturating_sub(feed);
                fed.push(feed);
            } else {
                self.preempt_youngest();
            }
        }
        fed
    }

    fn preempt_youngest(&mut self) {
        let mut youngest = self.running.pop().expect("a sequence failed to reserve");
        assert!(!self.running.is_empty(), "a single sequence outgrew the cache, which submit rules out");
        self.cache.release(&mut youngest.table);
        youngest.cached = 0;
        self.preemptions += 1;
        self.waiting.push_front(youngest);
    }

    /// Splits each sequence that is about to draw its first token into one sequence per sample. Returns, for each
    /// sequence that draws a token, its index and the hidden row from which it draws.
    fn fork(&mut self, last_rows: &[Option<u32>]) -> Vec<(usize, u32)> {
        let mut ready = Vec::new();
        for (index, row) in last_rows.iter().enumerate() {
            let Some(row) = *row else { continue };
            ready.push((index, row));
            let rest = self.running[index].samples.split_off(1);
            for sample in rest {
                let parent = &self.running[index];
                let fork = Sequence {
                    request: parent.request,
                    samples: vec![sample],
                    tokens: parent.tokens.clone(),
                    made: Vec::new(),
                    cached: parent.cached,
                    table: self.cache.share(&parent.table),
                    order: parent.order,
                };
                ready.push((self.running.len(), row));
                self.running.push(fork);
            }
        }
        ready
    }

    fn request(&self, sequence: &Sequence) -> &Request {
        &self.requests.get(&sequence.request).expect("a request lives as long as its sequences").0
    }

    /// Draws a token for every sequence that is ready.
    fn sample(&mut self, queue: &Queue, model: &Model<T>, ready: &[(usize, u32)]) -> Vec<Token> {
        let config = model.config();
        let (width, vocabulary) = (config.hidden_size, config.vocab_size);
        let mut tokens = Vec::with_capacity(ready.len());
        for block in ready.chunks(logit_rows(config)) {
            let rows: Vec<u32> = block.iter().map(|&(_, row)| row).collect();
            let hidden = self.activations.hidden(config);
            gather_rows(queue, hidden, queue.upload(&rows).view(), self.gathered.matrix_mut(rows.len(), width));
            let gathered = self.gathered.matrix(rows.len(), width);
            matmul(queue, gathered, model.head(), Epilogue::default(), self.logits.matrix_mut(rows.len(), vocabulary));
            let logits = self.logits.matrix(rows.len(), vocabulary);
            let draws: Vec<Draw> = block.iter().map(|&(index, _)| self.draw(&self.running[index])).collect();
            let ids = sample(queue, logits, &draws);
            let temperatures: Vec<f32> = draws.iter().map(|draw| draw.sampling.logprob_temperature()).collect();
            let wanted: Vec<usize> = block.iter().map(|&(i, _)| self.request(&self.running[i]).top_logprobs).collect();
            tokens.extend(describe(queue, logits, &ids, &temperatures, &wanted));
        }
        tokens
    }

    fn draw<'a>(&'a self, sequence: &'a Sequence) -> Draw<'a> {
        let request = self.request(sequence);
        let position = sequence.tokens.len() as u64;
        let uniform = request.key.number(sequence.samples[0] as u64).unit(position);
        Draw { sampling: &request.sampling, uniform, tokens: &sequence.tokens }
    }

    /// Appends the new tokens, and removes the sequences that have finished.
    fn settle(
        &mut self,
        model: &Model<T>,
        ready: &[(usize, u32)],
        tokens: Vec<Token>,
        watch: &mut dyn FnMut(usize, usize, &Token) -> Flow,
    ) -> Vec<Completion> {
        let mut finished: Vec<(usize, Finish)> = Vec::new();
        for (&(index, _), token) in ready.iter().zip(tokens) {
            let sequence = &mut self.running[index];
            let request = &self.requests.get(&sequence.request).expect("a request lives as long as its sequences").0;
            let flow = watch(sequence.request, sequence.samples[0], &token);
            sequence.tokens.push(token.id);
            let stop = request.stop_tokens.contains(&token.id);
            sequence.made.push(token);
            let full = sequence.made.len() >= request.max_new_tokens
                || sequence.tokens.len() >= model.config().max_position_embeddings;
            let finish = match (stop, flow) {
                (true, _) => Some(Finish::StopToken),
                (false, Flow::Stop) => Some(Finish::Stopped),
                (false, Flow::Continue) => full.then_some(Finish::Length),
            };
            finished.extend(finish.map(|finish| (index, finish)));
        }
        finished.sort_unstable_by_key(|&(index, _)| std::cmp::Reverse(index));
        let mut completions = Vec::with_capacity(finished.len());
        for (index, finish) in finished {
            let mut sequence = self.running.swap_remove(index);
            self.cache.release(&mut sequence.table);
            if let Some((_, left)) = self.requests.get_mut(&sequence.request) {
                *left -= 1;
                if *left == 0 {
                    self.requests.remove(&sequence.request);
                }
            }
            completions.push(Completion {
                request: sequence.request,
                sample: sequence.samples[0],
                tokens: sequence.made,
                finish,
            });
        }
        completions
    }
}

/// Number of rows whose logits are computed at a time.
fn logit_rows(config: &Config) -> usize {
    (LOGITS_PER_BLOCK / config.vocab_size).clamp(8, 512)
}

/// The statistics of each token that was drawn. Consecutive rows with the same temperature are computed together.
fn describe(queue: &Queue, logits: View<f32>, ids: &[u32], temperatures: &[f32], top: &[usize]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(ids.len());
    let mut start = 0;
    while start < ids.len() {
        let end = (start..ids.len()).find(|&i| temperatures[i] != temperatures[start]).unwrap_or(ids.len());
        let count = end - start;
        let (temperature, rows) = (temperatures[start], logits.row_range(start..end));
        let [mut logprob, mut logsumexp, mut entropy] = [(); 3].map(|()| Buffer::zeros(queue.device(), count));
        head_statistics(
            queue,
            rows,
            queue.upload(&ids[start..end]).view(),
            temperature,
            logprob.view_mut(),
            logsumexp.view_mut(),
            entropy.view_mut(),
        );
        let (logprob, entropy) = (logprob.to_host(), entropy.to_host());
        let most = top[start..end].iter().copied().max().unwrap_or(0).min(logits.cols());
        let mut top_ids = Buffer::zeros(queue.device(), count * most);
        let mut top_logprobs = Buffer::zeros(queue.device(), count * most);
        if most > 0 {
            let (ids, logprobs) = (top_ids.matrix_mut(count, most), top_logprobs.matrix_mut(count, most));
            top_k_rows(queue, rows, temperature, most, ids, logprobs);
        }
        let (top_ids, top_logprobs) = (top_ids.to_host(), top_logprobs.to_host());
        for i in 0..count {
            let wanted = top[start + i].min(most);
            let of_row = i * most..i * most + wanted;
            let top = top_ids[of_row.clone()].iter().copied().zip(top_logprobs[of_row].iter().copied()).collect();
            tokens.push(Token { id: ids[start + i], logprob: logprob[i], entropy: entropy[i], top });
        }
        start = end;
    }
    tokens
}

/// Generates every completion of `requests`. Returns them by request, then by sample.
///
/// * `watch`: as in [`Scheduler::step`], with requests counted from 0.
///
/// # Panics
/// As [`Scheduler::submit`] and [`Scheduler::step`].
pub fn generate<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    scheduler: &mut Scheduler<T>,
    requests: Vec<Request>,
    watch: &mut dyn FnMut(usize, usize, &Token) -> Flow,
) -> Vec<Vec<Completion>> {
    let shapes: Vec<usize> = requests.iter().map(|request| request.samples).collect();
    let first = scheduler.submitted;
    for request in requests {
        scheduler.submit(request);
    }
    let mut slots: Vec<Vec<Option<Completion>>> = shapes.iter().map(|&samples| vec![None; samples]).collect();
    while !scheduler.is_idle() {
        for completion in
            scheduler.step(queue, model, &mut |request, sample, token| watch(request - first, sample, token))
        {
            let (request, sample) = (completion.request - first, completion.sample);
            slots[request][sample] = Some(Completion { request, ..completion });
        }
    }
    slots.into_iter().map(|samples| samples.into_iter().flatten().collect()).collect()
}
