//! `ferule score`: the log-probability of every token of a text, given those before it.
//!
//! Lines are packed into forward passes of about [`TOKENS_PER_PASS`] tokens; a line's result does not depend on the
//! lines around it. A text is encoded as `transformers` encodes it, with the special tokens that the tokenizer adds.
//! Token ids are used unchanged.

use kernels::{Device, Queue, Real, Scratch};
use lm::forward::forward;
use lm::head::{self, HeadBuffers, Targets};
use lm::tokenizer::Tokenizer;
use lm::{Activations, Batch, Keep, Model};
use serde::{Deserialize, Serialize};

use super::input_lines::{InputLine, stdin_lines};
use super::model_argument::{ComputeDType, ModelArguments, OpenModel};
use super::output::Output;

/// Packed tokens per pass: enough to keep the matrix products efficient.
const TOKENS_PER_PASS: usize = 2048;

const FORM: &str = "{\"text\": \"…\"} or {\"tokens\": [1, 2]}";

/// What `ferule score` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Reads JSON lines {\"text\": …} or {\"tokens\": […]}. Writes, in order, {\"tokens\": […], \"logprobs\": [null, …]} in nats;
logprobs[t] scores tokens[t] given those before it, so the first is null.

    echo '{\"text\": \"The ruler is flat.\"}' | ferule score --model SmolLM2-135M")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Deserialize)]
struct Row {
    text: Option<String>,
    tokens: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    tokens: &'a [u32],
    logprobs: &'a [Option<f32>],
}

/// Scores lines from stdin and writes the results to stdout.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let model = arguments.model.open()?;
    match model.dtype {
        ComputeDType::F32 => run_in::<f32>(&model),
        ComputeDType::Bf16 => run_in::<kernels::bf16>(&model),
    }
}

fn run_in<T: Real>(open: &OpenModel) -> anyhow::Result<()> {
    let tokenizer = open.tokenizer()?;
    let mut scorer = Scorer::<T>::new(&open.queue, open.load(0)?);
    let mut output = Output::stdout();
    let mut pending: Vec<(InputLine, Vec<u32>)> = Vec::new();
    let mut pending_tokens = 0;
    for line in stdin_lines(FORM) {
        let parsed = line.and_then(|line| {
            let tokens = tokens_of(open, tokenizer.as_ref(), &line)?;
            Ok((line, tokens))
        });
        match parsed {
            Ok((line, tokens)) => {
                pending_tokens += tokens.len();
                pending.push((line, tokens));
            }
            // The results before a bad line are valid and are written.
            Err(error) => {
                scorer.answer(&pending, &mut output)?;
                output.flush()?;
                return Err(error);
            }
        }
        if pending_tokens >= TOKENS_PER_PASS {
            scorer.answer(&pending, &mut output)?;
            (pending, pending_tokens) = (Vec::new(), 0);
        }
    }
    scorer.answer(&pending, &mut output)?;
    output.flush()
}

/// A line's token ids, checked against vocabulary and context.
fn tokens_of(open: &OpenModel, tokenizer: Option<&Tokenizer>, line: &InputLine) -> anyhow::Result<Vec<u32>> {
    let config = open.checkpoint.config();
    let row: Row = line.parse(FORM)?;
    let tokens = match (row.text, row.tokens, tokenizer) {
        (None, Some(tokens), _) => tokens,
        (Some(text), None, Some(tokenizer)) => {
            line.name(open.check_text(tokenizer, &text))?;
            tokenizer.encode_with_special(&text)
        }
        (Some(_), None, None) => {
            let problem = format!("`text` needs a tokenizer, and {} has no tokenizer.json", open.name);
            return Err(line.failure(problem, "give {\"tokens\": […]}"));
        }
        (Some(_), Some(_), _) => return Err(line.failure("has both `text` and `tokens`", "give one of the two")),
        (None, None, _) => {
            let problem = format!("has {} where `text` or `tokens` is needed", line.fields());
            return Err(line.failure(problem, format!("a line is {FORM}")));
        }
    };
    line.check_ids(&tokens, config.vocab_size)?;
    let context = config.max_position_embeddings;
    if tokens.len() > context {
        let problem = format!("{} tokens exceed the model's context of {context}", tokens.len());
        return Err(line.failure(problem, format!("cut the text to at most {context} tokens")));
    }
    Ok(tokens)
}

/// A model with the memory that scoring needs.
struct Scorer<'q, T: Real> {
    queue: &'q Queue,
    model: Model<T>,
    activations: Activations<T>,
    head: HeadBuffers<T>,
    scratch: Scratch,
}

impl<'q, T: Real> Scorer<'q, T> {
    fn new(queue: &'q Queue, model: Model<T>) -> Self {
        let config = model.config();
        Self {
            activations: Activations::new(Device::Cpu, config, TOKENS_PER_PASS, Keep::Nothing),
            head: HeadBuffers::new(Device::Cpu, config),
            scratch: Scratch::new(Device::Cpu),
            queue,
            model,
        }
    }

    /// Scores the lines in one pass and writes the results.
    fn answer(&mut self, lines: &[(InputLine, Vec<u32>)], output: &mut Output) -> anyhow::Result<()> {
        let mut batch = Batch::new();
        for (_, tokens) in lines.iter().filter(|(_, tokens)| !tokens.is_empty()) {
            batch.push(tokens, None);
        }
        let targets = Targets::of(&batch, |_| true);
        let logprobs = if targets.is_empty() { Vec::new() } else { self.logprobs(&batch, &targets) };
        let mut logprobs = logprobs.into_iter();
        for (line, tokens) in lines {
            let scored: Vec<Option<f32>> =
                (0..tokens.len()).map(|t| if t == 0 { None } else { logprobs.next() }).collect();
            if let Some(t) = scored.iter().position(|logprob| logprob.is_some_and(|x| !x.is_finite())) {
                let value = scored[t].unwrap_or(f32::NAN);
                let problem = format!("the log-probability of tokens[{t}] is {value}: the logits are not finite");
                return Err(
                    line.failure(problem, "the weights overflow this dtype; try --dtype f32, or an earlier checkpoint")
                );
            }
            output.json_line(&Answer { tokens, logprobs: &scored })?;
        }
        Ok(())
    }

    fn logprobs(&mut self, batch: &Batch, targets: &Targets) -> Vec<f32> {
        if batch.len() > self.activations.capacity() {
            self.activations = Activations::new(Device::Cpu, self.model.config(), batch.len(), Keep::Nothing);
        }
        self.model.reserve_context(self.queue, batch.context_len());
        forward(self.queue, &self.model, batch, &mut self.activations, &mut self.scratch);
        let hidden = self.activations.hidden(self.model.config());
        head::statistics(self.queue, &self.model, hidden, targets, 1.0, &mut self.head).logprob
    }
}
