//! The arguments of `ferule bench`: what is measured, and how often.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::cli::model_argument::ComputeArguments;

/// What `ferule bench` is told.
#[derive(clap::Args)]
#[command(after_help = "\
Without --model and --shape the reference shape is measured, with random weights: hidden_size 256, 6 layers, 8
heads of 32, SwiGLU 704, vocabulary 4096, untied. tokens_per_s of decode counts new tokens over the whole
time, prefill included; peak_bytes of train is the highest resident memory of the process; peak_fraction
counts 6 x matrix parameters (with the head, without the embedding) and causal attention, but no
recomputation. A step of --grpo samples 8 completions of 64 new tokens for each of 16 prompts of 32 tokens,
grades them by a trivial rule and trains on all of them, through the code and files of a `grpo` stage; each
dtype is measured in a process of its own, whose highest resident memory is peak_bytes.

    ferule bench --json --threads 2
    ferule bench --only grpo --dtype bf16
    ferule bench --model SmolLM2-135M --only decode --batch 1,16")]
pub struct Arguments {
    /// Measure with this model's weights (a folder, a .gguf file or a pulled repository)
    #[arg(long, value_name = "MODEL", conflicts_with = "shape")]
    pub model: Option<PathBuf>,
    /// Measure with random weights of the shape of this config.json
    #[arg(long, value_name = "FILE")]
    pub shape: Option<PathBuf>,
    #[command(flatten)]
    pub compute: ComputeArguments,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// What to measure [default: all but grpo; with --model, all but train and grpo]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Topic>,
    /// Also measure a step of reinforcement learning
    #[arg(long)]
    pub grpo: bool,
    /// Sequences decoded at once
    #[arg(long, value_name = "B", value_delimiter = ',', default_value = "1,32,256")]
    pub batch: Vec<NonZeroUsize>,
    /// Tokens in each prompt of decode
    #[arg(long, value_name = "N", default_value = "32")]
    pub prompt: NonZeroUsize,
    /// Tokens decoded for each sequence
    #[arg(long, value_name = "N", default_value = "128")]
    pub new: NonZeroUsize,
    /// Rounds of train, decode, prefill and grpo; the median is reported
    #[arg(long, value_name = "N", default_value = "3")]
    pub rounds: NonZeroUsize,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Peak,
    Gemm,
    Train,
    Decode,
    Prefill,
    Grpo,
}
