//! `ferule chat`: a conversation in the terminal.
//!
//! Replies go to stdout as they are generated, in whole characters; the prompt and all notes go to stderr, so that a
//! conversation can be piped. Ctrl-C during a reply stops the reply; at the prompt it ends the program.
//!
//! A model with a chat template holds a conversation. Without one, each line is a prompt of its own
//! ([`super::asking`]).
//!
//! What the command line does not say about sampling is taken from the makers' `generation_config.json`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::Real;
use kernels::rng::Key;
use lm::Model;
use lm::generate::{Finish, Flow, Request, Sampling, Scheduler};
use lm::tokenizer::Tokenizer;
use serde_json::Value;

use super::asking::Asking;
use super::generate::{check_sampling, limits_for, makers_sampling, stop_tokens};
use super::model_argument::{ComputeDType, ModelArguments, OpenModel};
use super::output::Output;
use super::stop_strings::StopStrings;
use crate::outcome::{self, WrongUse, failure};
use crate::visible::note;

/// What `ferule chat` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Reads one message on each line; /reset forgets the conversation, /exit or Ctrl-D ends it. Replies go to stdout.

    ferule chat --model Qwen/Qwen3-0.6B --system 'Answer in one sentence.'
    ferule chat --model judgment          # the student of the run called judgment
    ferule chat --model judgment/grpo-teacher")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Divides the logits; 0 takes the most likely token [default: the model's]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the K most likely tokens; 0 keeps all [default: the model's]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the most likely tokens that hold this probability mass [default: the model's]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least this likely relative to the most likely one [default: the model's]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Makes tokens that occurred before less likely [default: the model's]
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f32>,
    /// The most tokens in a reply [default: the rest of the context]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<std::num::NonZeroUsize>,
    /// Equal seeds and messages give equal replies
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// End a reply before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// A variable for the chat template, such as enable_thinking=false; may be given several times
    #[arg(long, value_name = "NAME=JSON", value_parser = variable)]
    template_variable: Vec<(String, Value)>,
}

fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON, such as enable_thinking=false")?;
    Ok((name.to_string(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

impl Arguments {
    /// What the command line asks for, and the makers' defaults for the rest.
    fn sampling(&self, open: &OpenModel) -> anyhow::Result<Sampling> {
        let makers = makers_sampling(open.checkpoint.generation());
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(makers.temperature),
            top_k: self.top_k.unwrap_or(makers.top_k),
            top_p: self.top_p.unwrap_or(makers.top_p),
            min_p: self.min_p.unwrap_or(makers.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(makers.repetition_penalty),
        };
        check_sampling(&sampling)?;
        Ok(sampling)
    }
}

/// Runs the conversation until the input ends.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let model = arguments.model.open()?;
    match model.dtype {
        ComputeDType::F32 => run_in::<f32>(&arguments, &model),
        ComputeDType::Bf16 => run_in::<kernels::bf16>(&arguments, &model),
    }
}

fn run_in<T: Real>(arguments: &Arguments, open: &OpenModel) -> anyhow::Result<()> {
    let sampling = arguments.sampling(open)?;
    let Some(tokenizer) = open.tokenizer()? else {
        return Err(failure(
            format!("{} has no tokenizer.json", open.name),
            "chat needs a tokenizer beside the weights",
        ));
    };
    let interrupt = Interrupt::install()?;
    let mut conversation = Conversation {
        arguments,
        open,
        sampling,
        tokenizer: &tokenizer,
        asking: Asking::of(open, arguments.system.as_deref(), &arguments.template_variable)?,
        model: open.load::<T>(0)?,
        interrupt,
        turns: 0,
        output: Output::stdout(),
    };
    conversation.asking.notes().iter().for_each(|note| note!("{note}"));
    let at_terminal = io::stdin().is_terminal();
    if at_terminal {
        note!("{}; /reset forgets, /exit ends, Ctrl-C stops a reply", open.name);
    }
    let mut line = String::new();
    loop {
        if at_terminal {
            eprint!("> ");
            // A failure to show the prompt is no reason to stop.
            let _ = io::stderr().flush();
        }
        line.clear();
        let read = io::stdin().lock().read_line(&mut line).map_err(|error| {
            failure(format!("cannot read the message: {error}"), "messages are lines of UTF-8 text")
        })?;
        match line.trim() {
            _ if read == 0 => break,
            "" => {}
            "/exit" | "/quit" => break,
            "/reset" => conversation.asking.reset(),
            command if command.starts_with('/') && !command.contains(' ') => {
                note!("{command} is not a command; the commands are /reset and /exit");
            }
            message => conversation.turn(message)?,
        }
    }
    if at_terminal {
        eprintln!();
    }
    Ok(())
}

struct Conversation<'a, T: Real> {
    arguments: &'a Arguments,
    open: &'a OpenModel,
    sampling: Sampling,
    tokenizer: &'a Tokenizer,
    asking: Asking,
    model: Model<T>,
    interrupt: Interrupt,
    turns: u64,
    output: Output,
}

impl<T: Real> Conversation<'_, T> {
    /// One message and its reply.
    fn turn(&mut self, message: &str) -> anyhow::Result<()> {
        let prompt = self.asking.ask(message, self.tokenizer)?;
        if let Err(error) = self.open.check_context(prompt.len()) {
            // The conversation outgrew the context; the user decides what to forget.
            note!("error: {}\nhint: /reset forgets the conversation", outcome::message(&error));
            self.asking.answered(None);
            return Ok(());
        }
        let reply = self.reply(prompt)?;
        self.asking.answered(Some(&reply));
        Ok(())
    }

    /// Streams the reply to `prompt` and returns it.
    fn reply(&mut self, prompt: Vec<u32>) -> anyhow::Result<String> {
        let queue = &self.open.queue;
        let room = self.model.config().max_position_embeddings - prompt.len();
        let new = self.arguments.max_new_tokens.map_or(room, |most| most.get().min(room));
        let longest = prompt.len() + new;
        self.model.reserve_context(queue, longest);
        let mut scheduler =
            Scheduler::new(queue, self.model.config(), limits_for::<T>(self.model.config(), 1, longest)?);
        scheduler.submit(Request {
            prompt,
            samples: 1,
            sampling: self.sampling.clone(),
            max_new_tokens: new,
            stop_tokens: stop_tokens(self.open, Some(self.tokenizer), false),
            key: Key::new(self.arguments.seed).word("chat").number(self.turns),
            top_logprobs: 0,
        });
        self.turns += 1;

        let mut decoder = self.tokenizer.decode_stream(true);
        let mut stops = StopStrings::new(&self.arguments.stop);
        let (mut reply, mut failed, mut finish) = (String::new(), None, None);
        self.interrupt.begin();
        while !scheduler.is_idle() && failed.is_none() && !self.interrupt.came() {
            let finished = scheduler.step(queue, &self.model, &mut |_, _, token| {
                if !token.logprob.is_finite() {
                    let hint = "the weights overflow this dtype; try --dtype f32";
                    failed = Some(failure("the logits are not finite", hint));
                    return Flow::Stop;
                }
                let piece = stops.push(&decoder.push(token.id));
                reply += &piece;
                match self.output.text(&piece).and_then(|()| self.output.flush()) {
                    Err(error) => {
                        failed = Some(error);
                        Flow::Stop
                    }
                    Ok(()) if stops.stopped() => Flow::Stop,
                    Ok(()) => Flow::Continue,
                }
            });
            finish = finished.first().map(|completion| completion.finish);
        }
        let interrupted = self.interrupt.end();
        if let Some(error) = failed {
            return Err(error);
        }
        if !interrupted {
            let rest = stops.push(&decoder.finish()) + &stops.finish();
            self.output.text(&rest)?;
            reply += &rest;
        }
        self.output.text("\n")?;
        self.output.flush()?;
        match finish {
            _ if interrupted => eprintln!("(stopped)"),
            Some(Finish::Length) => eprintln!("(cut at {new} tokens)"),
            _ => {}
        }
        Ok(reply)
    }
}

/// Ctrl-C: stops the reply while there is one, otherwise ends the program.
struct Interrupt {
    replying: Arc<AtomicBool>,
    came: Arc<AtomicBool>,
}

impl Interrupt {
    fn install() -> anyhow::Result<Self> {
        let interrupt = Self { replying: Arc::default(), came: Arc::default() };
        let (replying, came) = (interrupt.replying.clone(), interrupt.came.clone());
        ctrlc::set_handler(move || {
            // A second one before the reply has stopped ends the program.
            if !replying.load(Ordering::SeqCst) || came.swap(true, Ordering::SeqCst) {
                eprintln!();
                std::process::exit(130);
            }
        })
        .map_err(|error| WrongUse::error(format!("cannot watch for Ctrl-C: {error}"), "start a process of its own"))?;
        Ok(interrupt)
    }

    fn begin(&self) {
        self.came.store(false, Ordering::SeqCst);
        self.replying.store(true, Ordering::SeqCst);
    }

    fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Stops watching, and returns whether the reply was interrupted.
    fn end(&self) -> bool {
        self.replying.store(false, Ordering::SeqCst);
        self.came.swap(false, Ordering::SeqCst)
    }
}
