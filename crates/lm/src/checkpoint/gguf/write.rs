//! Writes a GGUF file that llama.cpp loads.
//!
//! Norms, biases and rotary factors are written in F32, which llama.cpp requires. Matrices are written in the requested
//! storage, or in F16 if their rows are not whole blocks of that storage. One tensor at a time is held in memory.

use super::metadata::Value;
use super::{ALIGNMENT, Kind, LLAMA3_SCALING, MAGIC, ROPE_FACTORS, architecture, hf_row, is_permuted, vocabulary};
use crate::atomic::write_atomically;
use crate::checkpoint::numbers;
use crate::checkpoint::source::{Storage, TensorSource, check, read_for};
use crate::config::{Config, Family, RopeScaling};
use crate::error::FormatError;
use crate::table::TensorSpec;
use crate::tokenizer::Tokenizer;
use half::f16;
use std::io::Write;
use std::path::Path;

/// The content of a file beside the weights.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The model's name, shown by other programs.
    pub name: &'a str,
    /// The configuration.
    pub config: &'a Config,
    /// The tokenizer. llama.cpp loads no file without one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Source of the chat template.
    pub template: Option<&'a str>,
}

/// Writes a file atomically.
///
/// # Errors
/// [`FormatError::Io`], the errors of [`check`], and [`FormatError::NotFinite`]. [`FormatError::Config`] for a shape
/// that llama.cpp does not support. [`FormatError::Malformed`] for a tokenizer that has no counterpart in llama.cpp,
/// and for values that are too large for half precision.
pub fn save(path: &Path, export: Export, source: &dyn TensorSource, storage: Storage) -> Result<(), FormatError> {
    check(export.config, source)?;
    let config = export.config;
    if config.model_type == Family::Qwen2 && config.query_size() != config.hidden_size {
        let problem =
            format!("llama.cpp's qwen2 has heads of hidden_size / num_attention_heads, not {}", config.head_dim);
        return Err(FormatError::config(path, "head_dim", problem, "export a Hugging Face folder instead"));
    }
    let mut metadata = config_metadata(export, storage);
    if let Some(tokenizer) = export.tokenizer {
        metadata.extend(vocabulary::write(tokenizer, config.vocab_size).map_err(|problem| {
            let hint = "export a Hugging Face folder instead";
            FormatError::malformed(path, format!("the tokenizer cannot be stored: {problem}"), hint)
        })?);
    }
    if let Some(template) = export.template {
        metadata.push(("tokenizer.chat_template".into(), Value::Text(template.into())));
    }
    let factors = rope_factors(config);
    let mut plans: Vec<Plan> = Vec::new();
    let mut end = 0;
    if let Some(factors) = &factors {
        end = Plan::push(&mut plans, None, ROPE_FACTORS.into(), vec![factors.len()], Kind::F32, end);
    }
    for spec in config.tensors() {
        let kind = kind_of(&spec, storage);
        let (name, shape) = (spec.gguf.clone(), spec.shape.clone());
        end = Plan::push(&mut plans, Some(spec), name, shape, kind, end);
    }
    let mut header = header(&metadata, &plans);
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);

    // `write_atomically` passes on only errors of the disk, so an error of the source is kept here.
    let mut failed = None;
    let written = write_atomically(path, |file| {
        file.write_all(&header)?;
        let mut values = Vec::new();
        let mut bytes = Vec::new();
        for plan in &plans {
            match &plan.spec {
                None => values.clone_from(factors.as_ref().expect("planned because there are factors")),
                Some(spec) => {
                    values.resize(spec.len(), 0.0);
                    let read = read_for(path, source, &spec.name, &mut values);
                    if let Err(error) =
                        read.and_then(|()| numbers::check_fits(plan.fixed_width(), &values, &spec.name, path))
                    {
                        failed = Some(error);
                        return Err(std::io::Error::other("the source failed"));
                    }
                    if is_permuted(config, spec) {
                        values = permute(&values, spec, config.head_dim);
                    }
                }
            }
            bytes.clear();
            match plan.fixed_width() {
                Some(storage) => numbers::append_narrowed(storage, &values, &mut bytes),
                None => append_q8_0(&values, &mut bytes),
            }
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            file.write_all(&bytes)?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written,
    }
}

/// A tensor that will be written.
struct Plan {
    /// `None` for the rotary factors, which come from the configuration.
    spec: Option<TensorSpec>,
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    offset: usize,
}

impl Plan {
    /// Adds a tensor that begins at `offset`. Returns where the next one begins.
    fn push(
        plans: &mut Vec<Plan>,
        spec: Option<TensorSpec>,
        name: String,
        shape: Vec<usize>,
        kind: Kind,
        offset: usize,
    ) -> usize {
        let (elements, size) = kind.block();
        let len = shape.iter().product::<usize>() / elements * size;
        plans.push(Plan { spec, name, shape, kind, offset });
        (offset + len).next_multiple_of(ALIGNMENT)
    }

    /// The storage of single elements; `None` for block formats.
    fn fixed_width(&self) -> Option<Storage> {
        match self.kind {
            Kind::F32 => Some(Storage::F32),
            Kind::F16 => Some(Storage::F16),
            Kind::Bf16 => Some(Storage::Bf16),
            _ => None,
        }
    }
}

fn kind_of(spec: &TensorSpec, storage: Storage) -> Kind {
    match storage {
        _ if !spec.is_matrix() => Kind::F32,
        Storage::F32 => Kind::F32,
        Storage::F16 => Kind::F16,
        Storage::Bf16 => Kind::Bf16,
        Storage::Q8_0 if spec.shape[1].is_multiple_of(32) => Kind::Q8_0,
        Storage::Q8_0 => Kind::F16,
    }
}

fn config_metadata(export: Export, storage: Storage) -> Vec<(String, Value)> {
    let config = export.config;
    let name = architecture(config.model_type);
    let file_type = match storage {
        Storage::F32 => 0,
        Storage::F16 => 1,
        Storage::Q8_0 => 7,
        Storage::Bf16 => 32,
    };
    let mut metadata = vec![
        ("general.architecture".to_string(), Value::Text(name.into())),
        ("general.type".to_string(), Value::Text("model".into())),
        ("general.name".to_string(), Value::Text(export.name.into())),
        ("general.file_type".to_string(), Value::Unsigned(file_type)),
    ];
    if storage == Storage::Q8_0 {
        metadata.push(("general.quantization_version".into(), Value::Unsigned(2)));
    }
    let counts = [
        ("vocab_size", config.vocab_size),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    metadata.extend(counts.map(|(key, count)| (format!("{name}.{key}"), Value::Unsigned(count as u64))));
    metadata.push((format!("{name}.rope.freq_base"), Value::Float(config.rope_theta)));
    metadata.push((format!("{name}.attention.layer_norm_rms_epsilon"), Value::Float(config.rms_norm_eps)));
    match config.rope_scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => {
            metadata.push((format!("{name}.rope.scaling.type"), Value::Text("linear".into())));
            metadata.push((format!("{name}.rope.scaling.factor"), Value::Float(factor)));
        }
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings }) => {
            let context = original_max_position_embeddings as f64;
            let numbers = [factor, low_freq_factor, high_freq_factor, context].map(Value::Float);
            metadata.push((LLAMA3_SCALING.into(), Value::List(numbers.into())));
        }
    }
    // These keys belong to the tokenizer, but a model without a tokenizer has end tokens too.
    if export.tokenizer.is_none() {
        if let Some(id) = config.bos_token_id {
            metadata.push(("tokenizer.ggml.bos_token_id".into(), Value::Unsigned(id.into())));
        }
        if let Some(&id) = config.eos_token_id.first() {
            metadata.push(("tokenizer.ggml.eos_token_id".into(), Value::Unsigned(id.into())));
        }
    }
    metadata
}

/// The divisor of each rotary frequency under Llama 3's scaling.
fn rope_factors(config: &Config) -> Option<Vec<f32>> {
    let Some(RopeScaling::Llama3 { .. }) = config.rope_scaling else { return None };
    let plain = Config { rope_scaling: None, ..config.clone() }.rotary_frequencies();
    Some(plain.iter().zip(config.rotary_frequencies()).map(|(plain, scaled)| (plain / scaled) as f32).collect())
}

/// The rows of a query or key projection in llama.cpp's rotary order.
fn permute(values: &[f32], spec: &TensorSpec, head_dim: usize) -> Vec<f32> {
    let (rows, row_len) = (spec.shape[0], values.len() / spec.shape[0]);
    let rows = (0..rows).map(|row| hf_row(row, head_dim) * row_len);
    rows.flat_map(|at| &values[at..at + row_len]).copied().collect()
}

/// Appends blocks of 32: the largest magnitude becomes ±127, and the scale is stored in half precision.
fn append_q8_0(values: &[f32], bytes: &mut Vec<u8>) {
    for block in values.chunks_exact(32) {
        let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        bytes.extend(f16::from_f32(scale).to_le_bytes());
        bytes.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
    }
}

fn header(metadata: &[(String, Value)], plans: &[Plan]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((plans.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(key, &mut bytes);
        bytes.extend(value_kind(value).to_le_bytes());
        put_value(value, &mut bytes);
    }
    for plan in plans {
        put_text(&plan.name, &mut bytes);
        bytes.extend((plan.shape.len() as u32).to_le_bytes());
        plan.shape.iter().rev().for_each(|&dim| bytes.extend((dim as u64).to_le_bytes()));
        bytes.extend(plan.kind.number().to_le_bytes());
        bytes.extend((plan.offset as u64).to_le_bytes());
    }
    bytes
}

fn put_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// ggml's number for the kind of a value. Counts are written in 32 bits, as readers expect.
fn value_kind(value: &Value) -> u32 {
    match value {
        Value::Unsigned(_) => 4,
        Value::Signed(_) => 5,
        Value::Float(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::List(_) => 9,
    }
}

fn put_value(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Unsigned(value) => bytes.extend((*value as u32).to_le_bytes()),
        Value::Signed(value) => bytes.extend((*value as i32).to_le_bytes()),
        Value::Float(value) => bytes.extend((*value as f32).to_le_bytes()),
        Value::Bool(value) => bytes.push(u8::from(*value)),
        Value::Text(text) => put_text(text, bytes),
        Value::List(values) => {
            bytes.extend(values.first().map_or(8, value_kind).to_le_bytes());
            bytes.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put_value(value, bytes));
        }
    }
}
