//! `ferule bench`: this machine's peak speeds, and the speed of Ferule on it.
//!
//! Peaks are measured in the same run as the figures that are compared with them. Peaks and products are the best of many short rounds; every
//! other figure is the median of several rounds. The training step is the one that every stage takes. The step of reinforcement learning is that
//! of a recipe, with its files.
//!
//! The arithmetic never differs from that of the other commands.

mod arguments;
mod generation;
mod grpo;
mod products;
mod subject;
mod timing;
mod training;

use kernels::{Queue, Real, bf16};
use serde::Serialize;

use super::machine;
use super::model_argument::ComputeDType;
use super::output::Output;
use crate::outcome::WrongUse;

pub use arguments::Arguments;
use arguments::Topic;
use subject::Subject;

/// All measurements. The field names are a contract with scripts.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    model: ModelFacts,
    peak: Peak,
    gemm: Vec<products::Row>,
    train: Vec<training::Row>,
    decode: Vec<generation::DecodeRow>,
    prefill: Vec<generation::PrefillRow>,
    grpo: Vec<grpo::Row>,
}

#[derive(Serialize)]
struct Machine {
    processor: Option<String>,
    cores: usize,
    threads: usize,
    isa: &'static str,
}

#[derive(Serialize)]
struct ModelFacts {
    name: String,
    parameters: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    vocab_size: usize,
}

#[derive(Serialize, Clone, Copy)]
struct Peak {
    f32_gflops: f64,
    bf16_gflops: f64,
    memory_gb_per_s: f64,
}

impl Peak {
    fn of<T: Real>(&self) -> f64 {
        if T::DTYPE == kernels::DType::F32 { self.f32_gflops } else { self.bf16_gflops }
    }
}

/// The number of bytes that are read to measure memory bandwidth: far more than a last-level cache holds.
const BANDWIDTH_BYTES: usize = 256 << 20;

/// Measures and prints the results.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let queue = arguments.compute.queue()?;
    let subject = Subject::of(&arguments)?;
    let context = subject.config.max_position_embeddings;
    if arguments.prompt.get() + arguments.new.get() > context {
        let problem =
            format!("--prompt {} and --new {} exceed the context of {context}", arguments.prompt, arguments.new);
        return Err(WrongUse::error(problem, "ask for fewer tokens"));
    }
    let wanted = |topic| match (topic, arguments.only.is_empty()) {
        (Topic::Grpo, _) if arguments.grpo => true,
        (Topic::Grpo, true) => false,
        (Topic::Train, true) => subject.checkpoint.is_none(),
        (_, true) => true,
        (_, false) => arguments.only.contains(&topic),
    };
    let peak = Peak {
        f32_gflops: kernels::peak::measure(&queue, kernels::DType::F32),
        bf16_gflops: kernels::peak::measure(&queue, kernels::DType::Bf16),
        memory_gb_per_s: kernels::peak::bandwidth(&queue, BANDWIDTH_BYTES),
    };
    let mut report = Report {
        machine: Machine {
            processor: machine::processor(),
            cores: machine::cores(),
            threads: queue.threads(),
            isa: queue.isa().name(),
        },
        model: ModelFacts {
            name: subject.name.clone(),
            parameters: subject.config.parameters(),
            hidden_size: subject.config.hidden_size,
            num_hidden_layers: subject.config.num_hidden_layers,
            vocab_size: subject.config.vocab_size,
        },
        peak,
        gemm: Vec::new(),
        train: Vec::new(),
        decode: Vec::new(),
        prefill: Vec::new(),
        grpo: Vec::new(),
    };
    for dtype in [ComputeDType::F32, ComputeDType::Bf16] {
        if arguments.compute.dtype.is_some_and(|only| only != dtype) {
            continue;
        }
        match dtype {
            ComputeDType::F32 => measure::<f32>(&arguments, &queue, &subject, &wanted, &mut report)?,
            ComputeDType::Bf16 => measure::<bf16>(&arguments, &queue, &subject, &wanted, &mut report)?,
        }
    }
    let mut output = Output::stdout();
    match arguments.json {
        true => output.json_line(&report)?,
        false => output.text(&table(&report))?,
    }
    output.flush()
}

fn measure<T: Real>(
    arguments: &Arguments,
    queue: &Queue,
    subject: &Subject,
    wanted: &dyn Fn(Topic) -> bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rounds = arguments.rounds.get();
    if wanted(Topic::Gemm) {
        report.gemm.extend(products::measure::<T>(queue, &subject.config));
    }
    if wanted(Topic::Train) {
        report.train.push(training::measure::<T>(queue, subject.master()?, report.peak.of::<T>(), rounds));
    }
    if wanted(Topic::Decode) || wanted(Topic::Prefill) {
        let model = generation::model::<T>(queue, subject)?;
        if wanted(Topic::Decode) {
            for batch in &arguments.batch {
                let lengths = (arguments.prompt.get(), arguments.new.get());
                report.decode.push(generation::decode(queue, &model, batch.get(), lengths, rounds)?);
            }
        }
        if wanted(Topic::Prefill) {
            report.prefill.extend(generation::prefill(queue, &model, rounds)?);
        }
    }
    if wanted(Topic::Grpo) {
        // If only this topic and a dtype were requested, this process is already the separate one.
        let alone = arguments.only == [Topic::Grpo] && arguments.compute.dtype.is_some();
        report.grpo.push(match alone {
            true => grpo::measure::<T>(queue, subject.master()?, rounds)?,
            false => grpo::measure_apart(arguments, T::DTYPE.name())?,
        });
    }
    Ok(())
}

fn table(report: &Report) -> String {
    let (machine, model, peak) = (&report.machine, &report.model, &report.peak);
    let processor = machine.processor.as_deref().unwrap_or("an unnamed processor");
    let mut text = format!(
        "{processor}, {} of {} cores, {}\n{}: {} parameters\n\npeak      f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, memory {:.1} GB/s\n",
        machine.threads,
        machine.cores,
        machine.isa,
        model.name,
        model.parameters,
        peak.f32_gflops,
        peak.bf16_gflops,
        peak.memory_gb_per_s
    );
    for row in &report.gemm {
        let what = format!("{} {}x{}x{}", row.operation, row.m, row.n, row.k);
        text += &format!("gemm      {:<5} {what:<24} {:>8.1} GFLOP/s\n", row.dtype, row.gflops);
    }
    for row in &report.train {
        text += &format!(
            "train     {:<5} {:.0} tokens/s, {:.1}% of the peak, {} resident\n",
            row.dtype,
            row.tokens_per_s,
            100.0 * row.peak_fraction,
            row.peak_bytes.map_or("unknown memory".into(), machine::readable)
        );
    }
    for row in &report.decode {
        let what = format!("batch {}, {} + {} tokens", row.batch, row.prompt, row.new);
        text += &format!("decode    {:<5} {what:<28} {:>8.0} tokens/s\n", row.dtype, row.tokens_per_s);
    }
    for row in &report.prefill {
        let what = format!("batch {}, {} tokens", row.batch, row.prompt);
        text += &format!("prefill   {:<5} {what:<28} {:>8.0} tokens/s\n", row.dtype, row.tokens_per_s);
    }
    for row in &report.grpo {
        let what = format!("{} x {}, {} + {} tokens", row.prompts, row.group, row.prompt_tokens, row.new_tokens);
        let peak = row.peak_bytes.map_or("unknown memory".into(), machine::readable);
        text +=
            &format!("grpo      {:<5} {what:<28} {:>8.2} s a step, {peak} resident\n", row.dtype, row.seconds_per_step);
    }
    text
}
