//! A tiny model on disk, and the binary run on it.

// Every test file uses its own part of this.
#![allow(dead_code)]

pub mod http;
pub mod recipe;
pub mod wheel;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use kernels::Device;
use lm::checkpoint::Storage;
use lm::checkpoint::huggingface::{self, Companions, GenerationConfig};
use lm::tokenizer::{Tokenizer, TrainOptions};
use lm::{Arena, Config};

/// Positions of the tiny model's context.
pub const CONTEXT: usize = 64;

const TEXT: &str = "the ruler is flat, the ruler is long; 尺子是平的，尺子是长的。 Is the ruler flat? It is. 1 2 3 ";

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes a model of random weights with a trained byte-level tokenizer and a chat template; returns its configuration.
pub fn tiny_model(folder: &Path, storage: Storage) -> Config {
    tiny_model_of(folder, storage, TEXT)
}

/// The same with a tokenizer trained on `text`.
pub fn tiny_model_of(folder: &Path, storage: Storage, text: &str) -> Config {
    let options = TrainOptions { vocab_size: 280, ..TrainOptions::default() };
    let tokenizer = Tokenizer::train([text], &options, Path::new("test")).expect("enough text");
    let shape = serde_json::json!({
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 280, "max_position_embeddings": CONTEXT, "initializer_range": 0.3,
    });
    let shape = serde_json::from_value(shape).expect("a shape");
    let mut config = Config::from_shape(&shape, None, Path::new("test")).expect("a valid shape");
    config.eos_token_id = tokenizer.special().eos.into_iter().collect();
    let arena = Arena::random(Device::Cpu, &config, 5);
    let generation = GenerationConfig::of(&config);
    let companions =
        Companions { config: &config, generation: &generation, tokenizer: Some(&tokenizer), template: Some(TEMPLATE) };
    huggingface::save(folder, companions, &arena, storage).expect("a writable folder");
    config
}

/// The tokenizer of [`tiny_model`].
pub fn tokenizer(folder: &Path) -> Tokenizer {
    Tokenizer::open_folder(folder).expect("the tokenizer just written")
}

/// What a run gave.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Stdout as JSON lines.
    pub fn json(&self) -> Vec<serde_json::Value> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }
}

/// Runs the binary with arguments and stdin, away from this machine's caches and settings.
pub fn ferule(arguments: &[&str], stdin: &str) -> Run {
    run(command(arguments), stdin.as_bytes())
}

/// The binary with arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferule"));
    command.args(arguments);
    for name in [
        "FERULE_ISA",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "http_proxy",
        "HTTP_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.env("HF_HOME", "/nonexistent-cache");
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    // A program that refuses its arguments does not read its input.
    let _ = child.stdin.take().expect("piped").write_all(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the binary ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Run { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}
