//! Reads a GGUF file: configuration, weights, and the settings of text generation.
//!
//! Read next: `gguf/metadata.rs`.

use super::dequantise::dequantise;
use super::metadata::{Entry, Header, Value};
use super::{Kind, LLAMA3_SCALING, ROPE_FACTORS, architecture, hf_row, is_permuted, vocabulary};
use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::huggingface::GenerationConfig;
use crate::checkpoint::numbers;
use crate::checkpoint::source::{Storage, TensorSource, holding_all};
use crate::config::{Config, Family, LayerType, RopeScaling};
use crate::error::FormatError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An open GGUF file. Header and configuration have been read and checked; weights are read when they are asked for.
pub struct File {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    config: Config,
    generation: GenerationConfig,
    /// Tensors by Hugging Face name. Tensors that the family does not have keep their name from the file.
    places: BTreeMap<String, Place>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("config", &self.config).finish_non_exhaustive()
    }
}

struct Place {
    entry: usize,
    /// Whether the rows are in llama.cpp's rotary order.
    permuted: bool,
}

impl File {
    /// Opens a file: reads the header and the configuration.
    ///
    /// # Errors
    /// [`FormatError::Io`], [`FormatError::Malformed`] for a damaged file, [`FormatError::UnknownArchitecture`], and
    /// [`FormatError::Config`] for metadata that are missing or out of range.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::parse(Bytes::map(path)?, path)
    }

    /// Opens the bytes of a file. Messages name `path`.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, FormatError> {
        Self::parse(Bytes::Owned(bytes), path)
    }

    fn parse(bytes: Bytes, path: &Path) -> Result<Self, FormatError> {
        let header = Header::parse(&bytes).map_err(|problem| {
            let hint = "the download was cut short, or the file is damaged or of another kind";
            FormatError::malformed(path, format!("not a GGUF file that can be read: {problem}"), hint)
        })?;
        let config = config(&header, &bytes, path)?;
        let mut generation = GenerationConfig::of(&config);
        // Chat models have a second end token, which ends a turn.
        if let Some(id) = header.metadata.get("tokenizer.ggml.eot_token_id").and_then(Value::as_id) {
            if id as usize >= config.vocab_size {
                let problem = format!("{id} is outside the vocabulary of {}", config.vocab_size);
                let hint = "the file is damaged; convert the model again";
                return Err(FormatError::config(path, "tokenizer.ggml.eot_token_id", problem, hint));
            }
            generation.eos_token_id.extend(Some(id).filter(|id| !config.eos_token_id.contains(id)));
        }
        let mut by_name: BTreeMap<String, usize> =
            header.entries.iter().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
        by_name.remove(ROPE_FACTORS);
        let mut places = BTreeMap::new();
        for spec in config.tensors() {
            if let Some(entry) = by_name.remove(&spec.gguf) {
                let permuted = is_permuted(&config, &spec);
                places.insert(spec.name, Place { entry, permuted });
            }
        }
        places.extend(by_name.into_iter().map(|(name, entry)| (name, Place { entry, permuted: false })));
        Ok(Self { path: path.to_path_buf(), bytes, header, config, generation, places })
    }

    /// The configuration, from the metadata.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The end tokens. A GGUF file holds no other settings of text generation.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The tokenizer inside the file.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] if there is no tokenizer, or if its way of cutting text into words is unknown.
    pub fn tokenizer(&self) -> Result<Tokenizer, FormatError> {
        vocabulary::read(&self.header.metadata, &self.path)
    }

    /// The chat template inside the file, if any.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for a template that does not parse.
    pub fn template(&self) -> Result<Option<ChatTemplate>, FormatError> {
        let Some(source) = self.header.metadata.get("tokenizer.chat_template").and_then(Value::as_text) else {
            return Ok(None);
        };
        let fields = vocabulary::special_fields(&self.header.metadata);
        ChatTemplate::new(source.to_string(), None, &fields, &self.path).map(Some)
    }

    fn entry(&self, name: &str) -> Option<(&Entry, bool)> {
        let place = self.places.get(name)?;
        Some((&self.header.entries[place.entry], place.permuted))
    }
}

impl TensorSource for File {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.entry(name).map(|(entry, _)| entry.shape.clone())
    }

    fn has_f32_matrices(&self) -> bool {
        self.header.entries.iter().any(|entry| entry.kind == Kind::F32 && entry.shape.len() == 2)
    }

    fn lossless_storage(&self) -> Storage {
        let matrices = self.header.entries.iter().filter(|entry| entry.shape.len() == 2);
        holding_all(matrices.filter_map(|entry| match entry.kind {
            Kind::F32 => Some(Storage::F32),
            Kind::F16 => Some(Storage::F16),
            Kind::Bf16 => Some(Storage::Bf16),
            _ => None,
        }))
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        let Some((entry, permuted)) = self.entry(name) else {
            return Err(FormatError::MissingTensor { path: self.path.clone(), name: name.into(), expected: vec![] });
        };
        if entry.shape.iter().product::<usize>() != out.len() {
            let (found, expected) = (entry.shape.clone(), vec![out.len()]);
            return Err(FormatError::Shape { path: self.path.clone(), name: name.into(), found, expected });
        }
        self.bytes.check_length()?;
        let bytes = &self.bytes[entry.start..entry.start + entry.len];
        let rows = entry.shape[0];
        if permuted && rows.is_multiple_of(self.config.head_dim) && rows > 0 {
            let (row_bytes, row_len) = (entry.len / rows, out.len() / rows);
            for (row, bytes) in bytes.chunks_exact(row_bytes.max(1)).enumerate() {
                let at = hf_row(row, self.config.head_dim) * row_len;
                dequantise(entry.kind, bytes, &mut out[at..at + row_len]);
            }
        } else {
            dequantise(entry.kind, bytes, out);
        }
        match numbers::first_not_finite(out) {
            None => Ok(()),
            Some((index, value)) => {
                Err(FormatError::NotFinite { path: self.path.clone(), name: name.into(), index, value })
            }
        }
    }
}

/// The configuration that the metadata describe.
fn config(header: &Header, bytes: &[u8], path: &Path) -> Result<Config, FormatError> {
    let metadata = &header.metadata;
    let name = metadata.get("general.architecture").and_then(Value::as_text).unwrap_or("");
    let family = [Family::Llama, Family::Qwen2, Family::Qwen3].into_iter().find(|&family| architecture(family) == name);
    let model_type = family.ok_or_else(|| FormatError::UnknownArchitecture {
        path: path.to_path_buf(),
        found: format!("`{name}` (general.architecture)"),
    })?;
    let hint = "the file was written by a program that leaves metadata out; convert the model again";
    let get = |key: &str| metadata.get(&format!("{name}.{key}"));
    let number = |key: &str| get(key).and_then(Value::as_unsigned).map(|count| count as usize);
    let need =
        |key: &str| number(key).ok_or_else(|| FormatError::config(path, &format!("{name}.{key}"), "is missing", hint));
    let float = |key: &str| get(key).and_then(Value::as_float).map(decimal);
    let shape = |tensor: &str| header.entries.iter().find(|entry| entry.name == tensor).map(|entry| &entry.shape);
    let embedding = shape("token_embd.weight").ok_or_else(|| FormatError::MissingTensor {
        path: path.to_path_buf(),
        name: "token_embd.weight".into(),
        expected: vec![],
    })?;
    let hidden_size = need("embedding_length")?;
    let layers = need("block_count")?;
    let heads = need("attention.head_count")?;
    let id = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}")).and_then(Value::as_id);
    let rope_theta = float("rope.freq_base").unwrap_or(10_000.0);
    let head_dim = match number("attention.key_length") {
        Some(width) => width,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let problem = format!("{heads} does not divide {name}.embedding_length {hidden_size}");
            return Err(FormatError::config(path, &format!("{name}.attention.head_count"), problem, hint));
        }
    };
    for (key, problem) in [
        ("rope.dimension_count", "only part of a head is turned"),
        ("attention.value_length", "values have another width than keys"),
    ] {
        if number(key).is_some_and(|width| width != head_dim) {
            let problem = format!("{problem} (of {head_dim}), which is not supported");
            return Err(FormatError::config(path, &format!("{name}.{key}"), problem, hint));
        }
    }
    let mut config = Config {
        model_type,
        hidden_size,
        num_hidden_layers: layers,
        layer_types: LayerType::full(layers),
        sliding_window: None,
        num_attention_heads: heads,
        num_key_value_heads: number("attention.head_count_kv").unwrap_or(heads),
        head_dim,
        intermediate_size: need("feed_forward_length")?,
        vocab_size: embedding[0],
        max_position_embeddings: need("context_length")?,
        rms_norm_eps: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        rope_theta,
        rope_scaling: None,
        tie_word_embeddings: shape("output.weight").is_none(),
        bos_token_id: id("bos_token_id"),
        eos_token_id: id("eos_token_id").into_iter().collect(),
        pad_token_id: id("padding_token_id"),
        initializer_range: 0.02,
    };
    config.validate(path)?;
    config.rope_scaling = rope_scaling(header, bytes, &config, name, path)?;
    if let Some(window) = number("attention.sliding_window")
        && window > 0
        && window < config.max_position_embeddings
    {
        let problem = format!(
            "layers that see only the last {window} tokens are not supported in a context of {}",
            config.max_position_embeddings
        );
        let hint = format!("take the model's Hugging Face folder, with max_position_embeddings set to {window}");
        return Err(FormatError::config(path, &format!("{name}.attention.sliding_window"), problem, hint));
    }
    Ok(config)
}

/// The shortest decimal number that rounds to this f32: files hold 1e-5 as 9.999999747378752e-6. A number that is no f32
/// stays as it is.
fn decimal(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().expect("a float prints as a float") } else { value }
}

/// Scaling of the rotary embedding. Files store Llama 3's scaling as its result, one divisor for each frequency.
/// Ferule's own files also hold the parameters from which the divisors were computed. For other files, the parameters
/// of known releases are tried.
fn rope_scaling(
    header: &Header,
    bytes: &[u8],
    config: &Config,
    name: &str,
    path: &Path,
) -> Result<Option<RopeScaling>, FormatError> {
    let get = |key: &str| header.metadata.get(&format!("{name}.rope.scaling.{key}"));
    let kind = get("type").and_then(Value::as_text).unwrap_or("none");
    let refuse = |problem: String| {
        let hint = "take the model's Hugging Face folder";
        Err(FormatError::config(path, &format!("{name}.rope.scaling.type"), problem, hint))
    };
    match kind {
        "none" => {}
        "linear" => {
            let factor = get("factor").and_then(Value::as_float).map_or(1.0, decimal);
            let scaled = Config { rope_scaling: Some(RopeScaling::Linear { factor }), ..config.clone() };
            scaled.validate(path)?;
            return Ok(scaled.rope_scaling.filter(|_| factor != 1.0));
        }
        other => return refuse(format!("`{other}` is not supported")),
    }
    let Some(entry) = header.entries.iter().find(|entry| entry.name == ROPE_FACTORS) else { return Ok(None) };
    let half = config.head_dim / 2;
    if entry.shape != [half] {
        return refuse(format!("`{ROPE_FACTORS}` has shape {:?} where [{half}] is needed", entry.shape));
    }
    let mut factors = vec![0.0; half];
    dequantise(entry.kind, &bytes[entry.start..entry.start + entry.len], &mut factors);
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(None);
    }
    let plain = config.rotary_frequencies();
    let noted = header.metadata.get(LLAMA3_SCALING).and_then(Value::as_list).unwrap_or_default();
    let noted: Option<Vec<f64>> = noted.iter().map(|number| number.as_float().map(decimal)).collect();
    // Llama 3.1 has 8, Llama 3.2 has 32; the others occur in other releases.
    let releases = [8.0, 32.0, 2.0, 4.0, 16.0, 64.0].map(|factor| vec![factor, 1.0, 4.0, 8192.0]);
    for candidate in noted.into_iter().chain(releases) {
        let [factor, low_freq_factor, high_freq_factor, context] = candidate[..] else { continue };
        let scaling = RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: context as usize,
        };
        let scaled = Config { rope_scaling: Some(scaling), ..config.clone() };
        let frequencies = scaled.rotary_frequencies();
        let mut pairs = plain.iter().zip(&frequencies).zip(&factors);
        if pairs.all(|((plain, scaled), &factor)| (plain / scaled / f64::from(factor) - 1.0).abs() < 1e-4) {
            scaled.validate(path)?;
            return Ok(Some(scaling));
        }
    }
    refuse(format!("the frequencies in `{ROPE_FACTORS}` are not those of any Llama 3 release"))
}
