//! `ferule generate`: completions of prompts and conversations.
//!
//! The whole input is read and checked before anything is computed, so that a bad last line wastes no work. Completions
//! are written in the input's order, as soon as those before them are done. A completion depends on its prompt, the
//! seed, its position in the input and its number among the samples, never on the batch.
//!
//! Unlike `ferule chat`, it takes no sampling defaults from the model's makers: what the command line does not say is off.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use kernels::Real;
use kernels::rng::Key;
use lm::checkpoint::huggingface::GenerationConfig;
use lm::generate::{Completion, Finish, Flow, KvCache, Limits, PAGE, Request, Sampling, Scheduler, Token};
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::input_lines::{InputLine, stdin_lines};
use super::machine;
use super::model_argument::{ComputeDType, ModelArguments, OpenModel, counted};
use super::output::Output;
use super::stop_strings::StopStrings;
use crate::outcome::{WrongUse, failure};

const FORM: &str =
    "{\"prompt\": \"…\"}, {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}]} or {\"tokens\": [1, 2]}";

/// What `ferule generate` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Reads JSON lines {\"prompt\": …}, {\"messages\": […]} (and {\"tools\": […]}) or {\"tokens\": […]}. Writes, in the
order of the lines and K for each, {\"index\", \"sample\", \"text\", \"tokens\", \"logprobs\", \"finish_reason\"};
finish_reason is \"stop\" or \"length\". A log-probability is computed from softmax(logits / temperature), before
top-k, top-p, min-p and penalties (at temperature 0: from softmax(logits)).

    echo '{\"prompt\": \"Once upon a time\"}' | ferule generate --model stories15M --max-new-tokens 60")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// How many completions to write for each line
    #[arg(long, short, value_name = "K", default_value = "1", value_parser = counted::<100_000>)]
    n: NonZeroUsize,
    /// The most tokens in a completion
    #[arg(long, value_name = "N", default_value = "256")]
    max_new_tokens: NonZeroUsize,
    /// Sequences computed at once
    #[arg(long, value_name = "B", default_value = "32", value_parser = counted::<65_536>)]
    batch: NonZeroUsize,
    /// Equal seeds give equal completions
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// End a completion before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after the model's end tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Report the K most likely tokens at each position, as `top_logprobs`
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_logprobs: usize,
}

/// How tokens are drawn.
#[derive(clap::Args, Clone, Debug)]
pub struct SamplingArguments {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keep the most likely tokens that hold this probability mass
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens at least this likely relative to the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Makes tokens that occurred before less likely; 1 is off
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
}

impl SamplingArguments {
    fn resolve(&self) -> anyhow::Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        check_sampling(&sampling)?;
        Ok(sampling)
    }
}

/// Refuses invalid sampling settings, as wrong use.
pub fn check_sampling(sampling: &Sampling) -> anyhow::Result<()> {
    let refuse = |name: &str, value: f32, hint: &str| Err(WrongUse::error(format!("--{name} {value}"), hint));
    let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = *sampling;
    if !(temperature.is_finite() && temperature >= 0.0) {
        return refuse("temperature", temperature, "it is 0 (the most likely token) or above, usually at most 2");
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return refuse("top-p", top_p, "it is a share of the probability mass, above 0 and at most 1");
    }
    if !(0.0..=1.0).contains(&min_p) {
        return refuse("min-p", min_p, "it is a ratio of probabilities, from 0 to 1");
    }
    if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
        return refuse("repetition-penalty", repetition_penalty, "it is above 0; 1 is off, 1.1 is usual");
    }
    Ok(())
}

/// The sampling settings of the model's generation config; plain sampling if it has none.
pub fn makers_sampling(makers: &GenerationConfig) -> Sampling {
    let plain = Sampling::default();
    let greedy = makers.do_sample == Some(false);
    Sampling {
        temperature: if greedy { 0.0 } else { makers.temperature.map_or(plain.temperature, |t| t as f32) },
        top_k: makers.top_k.map_or(plain.top_k, |k| k as usize),
        top_p: makers.top_p.map_or(plain.top_p, |p| p as f32),
        min_p: makers.min_p.map_or(plain.min_p, |p| p as f32),
        repetition_penalty: makers.repetition_penalty.map_or(plain.repetition_penalty, |r| r as f32),
    }
}

#[derive(Deserialize)]
struct Row {
    prompt: Option<String>,
    messages: Option<Vec<serde_json::Value>>,
    tools: Option<Vec<serde_json::Value>>,
    tokens: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Answer {
    index: usize,
    sample: usize,
    text: Option<String>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Vec<(u32, f32)>>>,
}

/// Generates completions from stdin to stdout.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let sampling = arguments.sampling.resolve()?;
    let model = arguments.model.open()?;
    match model.dtype {
        ComputeDType::F32 => run_in::<f32>(&arguments, sampling, &model),
        ComputeDType::Bf16 => run_in::<kernels::bf16>(&arguments, sampling, &model),
    }
}

fn run_in<T: Real>(arguments: &Arguments, sampling: Sampling, open: &OpenModel) -> anyhow::Result<()> {
    let tokenizer = open.tokenizer()?;
    if tokenizer.is_none() && !arguments.stop.is_empty() {
        let problem = format!("--stop needs a tokenizer, and {} has no tokenizer.json", open.name);
        return Err(WrongUse::error(problem, "leave --stop out"));
    }
    let mut prompts = Prompts { open, tokenizer: tokenizer.as_ref(), template: None };
    let mut lines = Vec::new();
    let mut requests = Vec::new();
    for line in stdin_lines(FORM) {
        let line = line?;
        let prompt = prompts.tokens_of(&line)?;
        let room = open.checkpoint.config().max_position_embeddings - prompt.len();
        requests.push(Request {
            prompt,
            samples: arguments.n.get(),
            sampling: sampling.clone(),
            max_new_tokens: arguments.max_new_tokens.get().min(room),
            stop_tokens: stop_tokens(open, tokenizer.as_ref(), arguments.ignore_eos),
            key: Key::new(arguments.seed).word("generate").number(requests.len() as u64),
            top_logprobs: arguments.top_logprobs,
        });
        lines.push(line);
    }
    if requests.is_empty() {
        return Ok(());
    }
    let longest = requests.iter().map(|request| request.prompt.len() + request.max_new_tokens).max().unwrap_or(1);
    let places = arguments.batch.get().min(requests.len() * arguments.n.get());
    let model = open.load::<T>(longest)?;
    let limits = limits_for::<T>(open.checkpoint.config(), places, longest)?;
    let mut scheduler = Scheduler::new(&open.queue, model.config(), limits);
    for request in requests {
        scheduler.submit(request);
    }

    let mut texts = Texts { tokenizer: tokenizer.as_ref(), stops: &arguments.stop, open: BTreeMap::new() };
    let mut ordered = Ordered::default();
    let mut output = Output::stdout();
    let mut not_finite = None;
    while !scheduler.is_idle() {
        let finished = scheduler.step(&open.queue, &model, &mut |request, sample, token| {
            if !token.logprob.is_finite() {
                not_finite.get_or_insert((request, token.logprob));
            }
            texts.take(request, sample, token)
        });
        if let Some((request, value)) = not_finite {
            return Err(logits_not_finite(&lines[request], value));
        }
        for completion in finished {
            let place = completion.request * arguments.n.get() + completion.sample;
            let text = texts.of(&completion);
            ordered.put(place, answer(completion, text, arguments.top_logprobs > 0));
        }
        let mut wrote = false;
        while let Some(answer) = ordered.next() {
            output.json_line(&answer)?;
            wrote = true;
        }
        if wrote {
            output.flush()?;
        }
    }
    output.flush()
}

fn logits_not_finite(line: &InputLine, value: f32) -> anyhow::Error {
    let problem = format!("a log-probability is {value}: the logits are not finite");
    line.failure(problem, "the weights overflow this dtype; try --dtype f32, or an earlier checkpoint")
}

fn answer(completion: Completion, text: Option<String>, with_top: bool) -> Answer {
    let tokens = completion.tokens;
    Answer {
        index: completion.request,
        sample: completion.sample,
        text,
        logprobs: tokens.iter().map(|token| token.logprob).collect(),
        finish_reason: finish_reason(completion.finish),
        top_logprobs: with_top.then(|| tokens.iter().map(|token| token.top.clone()).collect()),
        tokens: tokens.iter().map(|token| token.id).collect(),
    }
}

/// The finish reason in the words of OpenAI's API.
pub fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken | Finish::Stopped => "stop",
        Finish::Length => "length",
    }
}

/// The tokens that end a completion.
pub fn stop_tokens(open: &OpenModel, tokenizer: Option<&Tokenizer>, ignore_eos: bool) -> Vec<u32> {
    if ignore_eos {
        return Vec::new();
    }
    let declared = &open.checkpoint.generation().eos_token_id;
    if declared.is_empty() {
        return tokenizer.and_then(|tokenizer| tokenizer.special().eos).into_iter().collect();
    }
    declared.clone()
}

/// Limits for a cache of `places` sequences of up to `longest` positions, or of as many pages as half of the free
/// memory holds.
///
/// # Errors
/// Not even one sequence fits.
pub fn limits_for<T: Real>(config: &lm::Config, places: usize, longest: usize) -> anyhow::Result<Limits> {
    let limits = Limits::for_sequences(places, longest);
    let Some(available) = machine::available_bytes() else { return Ok(limits) };
    let page_bytes = KvCache::<T>::page_bytes(config) as u64;
    let fitting = usize::try_from(available / 2 / page_bytes).unwrap_or(usize::MAX);
    let least = longest.div_ceil(PAGE);
    if fitting < least {
        let problem = format!(
            "one sequence of {longest} tokens needs {} of cache, and {} of memory is free",
            machine::readable(least as u64 * page_bytes),
            machine::readable(available)
        );
        return Err(failure(problem, "shorten the prompts or --max-new-tokens, or compute with --dtype bf16"));
    }
    Ok(Limits { pages: limits.pages.min(fitting), ..limits })
}

/// Turns input lines into token ids.
struct Prompts<'a> {
    open: &'a OpenModel,
    tokenizer: Option<&'a Tokenizer>,
    template: Option<ChatTemplate>,
}

impl Prompts<'_> {
    fn tokens_of(&mut self, line: &InputLine) -> anyhow::Result<Vec<u32>> {
        let row: Row = line.parse(FORM)?;
        let forms = [row.prompt.is_some(), row.messages.is_some(), row.tokens.is_some()];
        if forms.iter().filter(|&&given| given).count() != 1 {
            let problem = match forms.contains(&true) {
                true => "has more than one of `prompt`, `messages` and `tokens`".to_string(),
                false => format!("has {} where `prompt`, `messages` or `tokens` is needed", line.fields()),
            };
            return Err(line.failure(problem, format!("a line is {FORM}")));
        }
        let tokens = if let Some(tokens) = row.tokens {
            tokens
        } else {
            let Some(tokenizer) = self.tokenizer else {
                let problem = format!("text needs a tokenizer, and {} has no tokenizer.json", self.open.name);
                return Err(line.failure(problem, "give {\"tokens\": […]}"));
            };
            match (&row.prompt, &row.messages) {
                (Some(prompt), _) => {
                    line.name(self.open.check_text(tokenizer, prompt))?;
                    tokenizer.encode_with_special(prompt)
                }
                (None, messages) => {
                    if self.template.is_none() {
                        self.template = Some(line.name(self.open.template())?);
                    }
                    let template = self.template.as_ref().expect("set above");
                    let messages = messages.as_deref().unwrap_or_default();
                    for text in messages.iter().filter_map(|message| message["content"].as_str()) {
                        line.name(self.open.check_text(tokenizer, text))?;
                    }
                    let tools = row.tools.as_deref();
                    let chat = Chat { messages, tools, add_generation_prompt: true, ..Chat::default() };
                    line.name(template.encode(tokenizer, &chat))?
                }
            }
        };
        line.check_ids(&tokens, self.open.checkpoint.config().vocab_size)?;
        if tokens.is_empty() {
            return Err(line.failure("the prompt has no token", "give the model something to continue"));
        }
        line.name(self.open.check_context(tokens.len()))?;
        Ok(tokens)
    }
}

/// The texts of running completions, in which stop strings have to be found.
struct Texts<'a> {
    tokenizer: Option<&'a Tokenizer>,
    stops: &'a [String],
    open: BTreeMap<(usize, usize), RunningText<'a>>,
}

struct RunningText<'a> {
    decoder: lm::tokenizer::DecodeStream<'a>,
    stops: StopStrings,
    text: String,
}

impl Texts<'_> {
    fn take(&mut self, request: usize, sample: usize, token: &Token) -> Flow {
        let Some(tokenizer) = self.tokenizer.filter(|_| !self.stops.is_empty()) else { return Flow::Continue };
        let running = self.open.entry((request, sample)).or_insert_with(|| RunningText {
            decoder: tokenizer.decode_stream(true),
            stops: StopStrings::new(self.stops),
            text: String::new(),
        });
        let piece = running.decoder.push(token.id);
        running.text += &running.stops.push(&piece);
        if running.stops.stopped() { Flow::Stop } else { Flow::Continue }
    }

    /// The text of a finished completion: up to the stop string, without special tokens.
    fn of(&mut self, completion: &Completion) -> Option<String> {
        let tokenizer = self.tokenizer?;
        match self.open.remove(&(completion.request, completion.sample)) {
            Some(running) if running.stops.stopped() => Some(running.text),
            _ => {
                let ids: Vec<u32> = completion.tokens.iter().map(|token| token.id).collect();
                Some(tokenizer.decode(&ids, true))
            }
        }
    }
}

/// Completions that wait for those before them.
#[derive(Default)]
struct Ordered {
    next: usize,
    waiting: BTreeMap<usize, Answer>,
}

impl Ordered {
    fn put(&mut self, place: usize, answer: Answer) {
        self.waiting.insert(place, answer);
    }

    fn next(&mut self) -> Option<Answer> {
        let answer = self.waiting.remove(&self.next)?;
        self.next += 1;
        Some(answer)
    }
}
