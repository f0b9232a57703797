//! `ferule doctor`: what this machine offers, which model sizes fit and how fast they run, and what is missing.
//!
//! Peaks are measured, for a fraction of a second each. Everything about a model is an estimate from its shape and
//! these peaks, and is called one: training is assumed to reach [`EFFICIENCY`] of the arithmetic peak, decoding the
//! same share of the memory's.

use std::path::Path;

use kernels::{DType, Isa, Queue};
use lm::Config;
use lm::config::Shape;
use lm::lora::LoraConfig;
use serde::Serialize;

use super::machine::{self, readable};
use super::model_argument::ComputeArguments;
use super::output::Output;
use crate::hub::Cache;

/// The share of a peak that estimates assume; `ferule bench` measures the real one.
const EFFICIENCY: f64 = 0.5;
/// Tokens of a micro-batch in the estimates of training.
const MICRO_BATCH: usize = 2048;
/// The adapters of the LoRA column.
const LORA: LoraConfig = LoraConfig { rank: 16, alpha: 16.0 };
/// Positions of cache in the estimate of serving.
const SERVED_TOKENS: usize = 4096;
/// Positions of cache in the estimate of reinforcement learning: 32 completions of a thousand tokens at once.
const ROLLOUT_TOKENS: usize = 32 * 1024;
/// Memory that must stay free for the system.
const RESERVE_BYTES: u64 = 512 << 20;

/// What `ferule doctor` is told.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    compute: ComputeArguments,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    processor: Option<String>,
    cores: usize,
    threads: usize,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    isa: &'static str,
    isa_available: Vec<&'static str>,
    f32_gflops: f64,
    bf16_gflops: f64,
    memory_gb_per_s: f64,
    gpu: String,
    cache: Option<String>,
    sizes: Vec<Size>,
    advice: Vec<String>,
}

/// The needs of one model size, and its estimated speed.
#[derive(Serialize)]
struct Size {
    name: &'static str,
    parameters: usize,
    serve: Use,
    lora: Use,
    full: Use,
    rl: Use,
}

#[derive(Serialize)]
struct Use {
    bytes: u64,
    fits: Option<bool>,
    tokens_per_s: f64,
}

/// Examines the machine and prints the result.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let queue = arguments.compute.queue()?;
    let report = examine(&queue);
    let mut output = Output::stdout();
    match arguments.json {
        true => output.json_line(&report)?,
        false => output.text(&text(&report))?,
    }
    output.flush()
}

fn examine(queue: &Queue) -> Report {
    let peaks = Peaks {
        f32_gflops: kernels::peak::measure(queue, DType::F32),
        bf16_gflops: kernels::peak::measure(queue, DType::Bf16),
        memory_gb_per_s: kernels::peak::bandwidth(queue, 256 << 20),
    };
    let available = machine::available_bytes();
    let isa_available: Vec<&'static str> = Isa::available().into_iter().map(Isa::name).collect();
    Report {
        processor: machine::processor(),
        cores: machine::cores(),
        threads: queue.threads(),
        memory_bytes: machine::memory_bytes(),
        available_bytes: available,
        isa: queue.isa().name(),
        f32_gflops: peaks.f32_gflops,
        bf16_gflops: peaks.bf16_gflops,
        memory_gb_per_s: peaks.memory_gb_per_s,
        gpu: gpu(),
        cache: Cache::from_environment().ok().map(|cache| cache.root().display().to_string()),
        sizes: shapes().into_iter().map(|(name, config)| size(name, &config, &peaks, available)).collect(),
        advice: advice(queue, &isa_available, available),
        isa_available,
    }
}

struct Peaks {
    f32_gflops: f64,
    bf16_gflops: f64,
    memory_gb_per_s: f64,
}

fn gpu() -> String {
    let seen = Path::new("/dev/nvidia0").exists();
    let device = if seen { "; this machine's NVIDIA device is not used" } else { "" };
    format!("no GPU support in this build{device}")
}

/// Released models of each size, as examples.
fn shapes() -> Vec<(&'static str, Config)> {
    // hidden_size, layers, heads, key heads, head_dim, SwiGLU, vocabulary, tied
    let table = [
        ("stories15M", (288, 6, 6, 6, 48, 768, 32_000, true)),
        ("MiniMind2-Small", (512, 8, 8, 2, 64, 1408, 6400, true)),
        ("SmolLM2-135M", (576, 30, 9, 3, 64, 1536, 49_152, true)),
        ("SmolLM2-360M", (960, 32, 15, 5, 64, 2560, 49_152, true)),
        ("Qwen3-0.6B", (1024, 28, 16, 8, 128, 3072, 151_936, true)),
        ("Qwen3-1.7B", (2048, 28, 16, 8, 128, 6144, 151_936, true)),
        ("Qwen3-4B", (2560, 36, 32, 8, 128, 9728, 151_936, true)),
        ("Qwen3-8B", (4096, 36, 32, 8, 128, 12_288, 151_936, false)),
    ];
    table
        .into_iter()
        .map(|(name, (hidden_size, layers, heads, key_heads, head_dim, inner, vocabulary, tied))| {
            let shape = Shape {
                hidden_size,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                model_type: if name.starts_with("Qwen3") { "qwen3" } else { "llama" }.into(),
                num_key_value_heads: Some(key_heads),
                head_dim: Some(head_dim),
                intermediate_size: Some(inner),
                vocab_size: Some(vocabulary),
                max_position_embeddings: 4096,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                tie_word_embeddings: tied,
                initializer_range: 0.02,
            };
            (name, Config::from_shape(&shape, None, name.as_ref()).expect("a released shape is valid"))
        })
        .collect()
}

fn size(name: &'static str, config: &Config, peaks: &Peaks, available: Option<u64>) -> Size {
    let parameters = config.parameters();
    let head = config.vocab_size * config.hidden_size;
    // The head uses every row for each token. An untied embedding is only looked up.
    let active = if config.tie_word_embeddings { parameters } else { parameters - head };
    let weights = 2 * (active + head) as u64;
    let page_bytes = (2 * config.num_hidden_layers * config.key_value_size() * 2) as u64;
    let cache = |tokens: usize| page_bytes * tokens as u64;
    // Residuals before every layer, the inside of one layer, and the head's blocks.
    let widths = 8 * config.hidden_size + 3 * config.intermediate_size + 2 * config.query_size();
    let activations = (MICRO_BATCH * (4 * config.hidden_size * (config.num_hidden_layers + 1) + 6 * widths)) as u64;
    let working = activations + (24 << 20);
    let packed_for_training = weights + 2 * active as u64;
    let master = 4 * parameters as u64;
    let adapters = 4 * LORA.parameters(config) as u64;
    let lora_flops = config.training_flops(Some(LORA), MICRO_BATCH, MICRO_BATCH, 0);

    let compute = EFFICIENCY * peaks.bf16_gflops * 1e9;
    let decode_one = EFFICIENCY * peaks.memory_gb_per_s * 1e9 / (2 * active) as f64;
    let decode_many = (32.0 * decode_one).min(compute / (2 * active) as f64);
    let train = compute / (6 * active) as f64;
    let using = |bytes: u64, tokens_per_s: f64| Use {
        bytes,
        fits: available.map(|available| bytes + RESERVE_BYTES <= available),
        tokens_per_s,
    };
    Size {
        name,
        parameters,
        serve: using(weights + cache(SERVED_TOKENS), decode_one),
        lora: using(master + 4 * adapters + packed_for_training + working, compute * MICRO_BATCH as f64 / lora_flops),
        full: using(4 * master + packed_for_training + working, train),
        rl: using(
            4 * master + packed_for_training + working + cache(ROLLOUT_TOKENS),
            1.0 / (1.0 / decode_many + 1.0 / train),
        ),
    }
}

fn advice(queue: &Queue, isa_available: &[&'static str], available: Option<u64>) -> Vec<String> {
    let mut advice = Vec::new();
    if queue.isa().name() != isa_available[0] {
        advice.push(format!("FERULE_ISA={} is set; unset it to compute with {}", queue.isa().name(), isa_available[0]));
    }
    if isa_available[0] == "portable" {
        advice
            .push("this processor has no vector path (AVX2 with FMA, AVX-512 or NEON): everything will be slow".into());
    } else if queue.isa() != Isa::Avx512Bf16 {
        advice.push("bf16 is widened to f32 in matrix products: it saves memory, but no arithmetic".into());
    }
    if queue.threads() < machine::cores() {
        advice.push(format!("--threads {} leaves cores idle; there are {}", queue.threads(), machine::cores()));
    }
    if available.is_some_and(|bytes| bytes < 2 << 30) {
        advice.push("less than 2 GiB of memory is free: close other programs, or expect small models only".into());
    }
    if available.is_none() {
        advice.push("the system does not say how much memory is free, so it is unknown which sizes fit".into());
    }
    if Cache::from_environment().is_err() {
        advice.push("there is no place for the cache of `ferule pull`: set HF_HOME to a folder".into());
    }
    advice.push("this build does not use a GPU".into());
    advice
}

fn text(report: &Report) -> String {
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_string(), readable);
    let mut text = format!(
        "machine    {}, {} cores\nmemory     {}, {} free\npaths      {} (using {} on {} threads)\n",
        report.processor.as_deref().unwrap_or("unnamed processor"),
        report.cores,
        bytes(report.memory_bytes),
        bytes(report.available_bytes),
        report.isa_available.join(", "),
        report.isa,
        report.threads,
    );
    text += &format!(
        "peak       f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, memory {:.1} GB/s (measured now)\ngpu        {}\ncache      {}\n\n",
        report.f32_gflops,
        report.bf16_gflops,
        report.memory_gb_per_s,
        report.gpu,
        report.cache.as_deref().unwrap_or("none"),
    );
    text += &format!(
        "Estimates in bf16 at {:.0}% of the peaks: memory, and tokens per second; `-` means that free memory is too small.\n\
         {:<17}{:>7}  {:>17}  {:>17}  {:>17}  {:>17}\n",
        100.0 * EFFICIENCY,
        "",
        "",
        "serving",
        "LoRA",
        "full training",
        "RL"
    );
    for size in &report.sizes {
        let cell = |used: &Use| match used.fits {
            Some(false) => format!("- ({})", readable(used.bytes)),
            _ => format!("{}, {:.0}/s", readable(used.bytes), used.tokens_per_s),
        };
        text += &format!(
            "{:<17}{:>6.0}M  {:>17}  {:>17}  {:>17}  {:>17}\n",
            size.name,
            size.parameters as f64 / 1e6,
            cell(&size.serve),
            cell(&size.lora),
            cell(&size.full),
            cell(&size.rl)
        );
    }
    text += &format!(
        "\nServing: one sequence, a cache of {SERVED_TOKENS} tokens. Training: {MICRO_BATCH} tokens at a time, AdamW in f32; LoRA of rank {}.\n\
         RL: rollouts of 32 sequences and the training step on them. `ferule bench` measures instead of estimating.\n\n",
        LORA.rank
    );
    for line in &report.advice {
        text += &format!("note: {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_releases() {
        let parameters = |wanted: &str| {
            let shapes = shapes();
            let (_, config) = shapes.iter().find(|(name, _)| *name == wanted).expect("a known name");
            config.parameters()
        };
        assert_eq!(parameters("SmolLM2-135M"), 134_515_008);
        assert_eq!(parameters("SmolLM2-360M"), 361_821_120);
        assert_eq!(parameters("Qwen3-0.6B"), 596_049_920);
    }

    #[test]
    fn more_is_asked_for_the_more_is_trained() {
        let peaks = Peaks { f32_gflops: 200.0, bf16_gflops: 400.0, memory_gb_per_s: 30.0 };
        for (name, config) in shapes() {
            let size = size(name, &config, &peaks, Some(16 << 30));
            assert!(size.lora.bytes < size.full.bytes && size.full.bytes < size.rl.bytes, "{name}");
            assert!(size.full.tokens_per_s < size.lora.tokens_per_s && size.rl.tokens_per_s < size.full.tokens_per_s);
        }
    }
}
