//! Hugging Face folders: `config.json`, weights, tokenizer, chat template, `generation_config.json`.
//!
//! [`Folder::open`] reads and checks the two configurations and the headers of the weights. The tokenizer and the
//! template are read only when they are asked for, because scoring token ids needs neither. [`save`] writes a folder
//! that `transformers` and [`Folder::open`] can read.
//!
//! Nothing is ever downloaded.
//!
//! Read next: [`crate::tokenizer`], [`crate::template`].

use super::safetensors::{self, Weights};
use super::source::{Storage, TensorSource, check};
use crate::atomic::write_atomically;
use crate::config::Config;
use crate::error::FormatError;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How a model's authors recommend to sample from it: `generation_config.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text. If the file names none, those of `config.json`.
    pub eos_token_id: Vec<u32>,
    /// Whether to sample. If not, the most likely token is taken.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Number of most likely tokens from which to draw.
    pub top_k: Option<u32>,
    /// Total probability of the most likely tokens from which to draw.
    pub top_p: Option<f64>,
    /// Smallest probability of a token that may be drawn, relative to the most likely token.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that are already in the sequence.
    pub repetition_penalty: Option<f64>,
    /// All fields of the file; [`save`] writes them again.
    pub fields: Map<String, Value>,
}

/// One token id, or several; configurations use both forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

/// The fields of `generation_config.json` that are used.
#[derive(Deserialize)]
struct RawGeneration {
    eos_token_id: Option<Ids>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<u32>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// The default for a model without the file: greedy decoding that ends at the end tokens of `config.json`.
    pub fn of(config: &Config) -> Self {
        Self { eos_token_id: config.eos_token_id.clone(), ..Self::default() }
    }

    fn read(path: &Path, config: &Config) -> Result<Self, FormatError> {
        let text = std::fs::read_to_string(path).map_err(FormatError::io(path, "read"))?;
        let bad = |error: serde_json::Error| {
            FormatError::malformed(path, error.to_string(), "correct the file, or remove it to use the defaults")
        };
        let fields: Map<String, Value> = serde_json::from_str(&text).map_err(bad)?;
        let raw: RawGeneration = serde_json::from_value(Value::Object(fields.clone())).map_err(bad)?;
        let eos_token_id = match raw.eos_token_id {
            None => config.eos_token_id.clone(),
            Some(Ids::One(id)) => vec![id],
            Some(Ids::Many(ids)) => ids,
        };
        if let Some(id) = eos_token_id.iter().find(|&&id| id as usize >= config.vocab_size) {
            let problem = format!("{id} is outside the vocabulary of {}", config.vocab_size);
            return Err(FormatError::config(path, "eos_token_id", problem, "the file belongs to another model"));
        }
        for (field, value, least, most) in [
            ("temperature", raw.temperature, 0.0, 1e3),
            ("top_p", raw.top_p, 0.0, 1.0),
            ("min_p", raw.min_p, 0.0, 1.0),
            ("repetition_penalty", raw.repetition_penalty, 1e-3, 1e3),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let problem = format!("{value} is not between {least} and {most}");
                return Err(FormatError::config(path, field, problem, "correct the field, or remove it"));
            }
        }
        Ok(Self {
            eos_token_id,
            do_sample: raw.do_sample,
            temperature: raw.temperature,
            top_k: raw.top_k,
            top_p: raw.top_p,
            min_p: raw.min_p,
            repetition_penalty: raw.repetition_penalty,
            fields,
        })
    }

    /// The text of a `generation_config.json`.
    pub fn to_json(&self) -> String {
        let mut fields = self.fields.clone();
        if !self.eos_token_id.is_empty() {
            fields.insert("eos_token_id".into(), self.eos_token_id.clone().into());
        }
        serde_json::to_string_pretty(&fields).expect("a JSON value serialises") + "\n"
    }
}

/// A model's folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    config: Config,
    generation: GenerationConfig,
    weights: Weights,
}

impl Folder {
    /// Opens a folder: reads both configurations and the headers of the weights.
    ///
    /// It does not check whether the weights fit the configuration; [`super::check`] does.
    ///
    /// # Errors
    /// [`FormatError`], which names the file. A missing `generation_config.json` is no error.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let config = Config::read(&path.join("config.json"))?;
        let generation_path = path.join("generation_config.json");
        let generation = if generation_path.exists() {
            GenerationConfig::read(&generation_path, &config)?
        } else {
            GenerationConfig::of(&config)
        };
        let weights = Weights::open_folder(path)?;
        Ok(Self { path: path.to_path_buf(), config, generation, weights })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of `config.json`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The content of `generation_config.json`.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The weights.
    pub fn tensors(&self) -> &Weights {
        &self.weights
    }

    /// The tokenizer, from `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::open_folder`].
    pub fn tokenizer(&self) -> Result<Tokenizer, FormatError> {
        Tokenizer::open_folder(&self.path)
    }

    /// The chat template, from `chat_template.jinja` or `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`ChatTemplate::open_folder`].
    pub fn template(&self) -> Result<Option<ChatTemplate>, FormatError> {
        ChatTemplate::open_folder(&self.path)
    }
}

/// What [`save`] writes beside the weights.
#[derive(Debug, Clone, Copy)]
pub struct Companions<'a> {
    /// Written as `config.json`.
    pub config: &'a Config,
    /// Written as `generation_config.json`.
    pub generation: &'a GenerationConfig,
    /// Written as `tokenizer.json` and `tokenizer_config.json`, if the model has one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Source of the chat template, written as `chat_template.jinja`.
    pub template: Option<&'a str>,
}

/// Writes a folder, and creates it if needed. `config.json` is written last, because a folder without it is not a
/// model.
///
/// # Errors
/// [`FormatError::Io`], and the errors of [`check`] and [`safetensors::save`].
///
/// # Panics
/// For [`Storage::Q8_0`], which only GGUF files have.
pub fn save(
    folder: &Path,
    companions: Companions,
    source: &dyn TensorSource,
    storage: Storage,
) -> Result<(), FormatError> {
    check(companions.config, source)?;
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder, "create"))?;
    let write = |name: &str, text: &str| write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()));
    safetensors::save(&folder.join(safetensors::SINGLE), source, storage)?;
    if let Some(tokenizer) = companions.tokenizer {
        tokenizer.save(folder)?;
    }
    if let Some(template) = companions.template {
        write("chat_template.jinja", template)?;
    }
    write("generation_config.json", &companions.generation.to_json())?;
    let mut config: Map<String, Value> = serde_json::from_str(&companions.config.to_json()).expect("own JSON");
    let dtype = match storage {
        Storage::F32 => "float32",
        Storage::F16 => "float16",
        Storage::Bf16 | Storage::Q8_0 => "bfloat16",
    };
    config.insert("torch_dtype".into(), dtype.into());
    write("config.json", &(serde_json::to_string_pretty(&config).expect("a JSON value serialises") + "\n"))
}
