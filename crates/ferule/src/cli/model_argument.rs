//! `--model`, `--dtype` and `--threads`, the same in every command.
//!
//! A model is a Hugging Face folder, a `.gguf` file, a model that a run made ([`super::run_model`]), or the id of a
//! repository that `ferule pull` has put into the cache. The dtype is the one of the computation: by default bf16 if
//! the weights are stored in 16 bits or fewer, and f32 otherwise.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kernels::{Isa, Queue, Real};
use lm::checkpoint::{self, Checkpoint};
use lm::template::ChatTemplate;
use lm::tokenizer::Tokenizer;
use lm::{Model, Role};
use store::Runs;

use super::{machine, run_model};
use crate::hub;
use crate::outcome::{WrongUse, failure};

/// Which model, and how to compute.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArguments {
    /// A Hugging Face folder, a .gguf file, a run's name (RUN for its student, RUN/STAGE), or the id of a pulled repository
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

/// How to compute.
#[derive(clap::Args, Clone, Debug)]
pub struct ComputeArguments {
    /// Compute in f32 or bf16 [default: bf16 if the weights are stored in 16 bits or fewer, otherwise f32]
    #[arg(long, value_enum)]
    pub dtype: Option<ComputeDType>,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_name = "N", value_parser = counted::<1024>)]
    pub threads: Option<NonZeroUsize>,
}

/// Reads a count from 1 to `MOST`.
pub fn counted<const MOST: usize>(text: &str) -> Result<NonZeroUsize, String> {
    let count: Option<NonZeroUsize> = text.parse().ok();
    count.filter(|count| count.get() <= MOST).ok_or_else(|| format!("it takes an integer from 1 to {MOST}"))
}

/// The dtypes products are computed in; sums are always f32.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeDType {
    F32,
    Bf16,
}

impl ComputeArguments {
    /// The queue to compute on.
    ///
    /// # Errors
    /// `FERULE_ISA` names no instruction path of this machine.
    pub fn queue(&self) -> anyhow::Result<Queue> {
        let isa =
            Isa::choose().map_err(|problem| WrongUse::error(problem, "unset FERULE_ISA to take the best path"))?;
        Ok(Queue::cpu(self.threads.map_or_else(machine::cores, NonZeroUsize::get), isa))
    }
}

/// A model on disk with everything around it, before its weights are read.
pub struct OpenModel {
    pub name: String,
    /// Its path; none for a repository of the cache.
    pub path: Option<PathBuf>,
    pub checkpoint: Checkpoint,
    /// The task of the run that made it.
    pub task: Option<toml::Table>,
    pub dtype: ComputeDType,
    pub queue: Queue,
}

impl ModelArguments {
    /// Finds and opens the model. Weights are not read yet.
    pub fn open(&self) -> anyhow::Result<OpenModel> {
        let queue = self.compute.queue()?;
        let of_run = match self.model.exists() {
            true => None,
            false => run_model::find(&Runs::open(&self.runs), &self.model.to_string_lossy())?,
        };
        let path = of_run.as_ref().unwrap_or(&self.model);
        let (checkpoint, task) = (open(path)?, run_model::task_of(path));
        let dtype = self.compute.dtype.unwrap_or(match checkpoint.tensors().has_f32_matrices() {
            true => ComputeDType::F32,
            false => ComputeDType::Bf16,
        });
        let place = path.exists().then(|| path.clone());
        Ok(OpenModel { name: self.model.display().to_string(), path: place, checkpoint, task, dtype, queue })
    }
}

impl OpenModel {
    /// Reads the weights, for contexts of up to `context` tokens.
    pub fn load<T: Real>(&self, context: usize) -> anyhow::Result<Model<T>> {
        let config = self.checkpoint.config();
        let mut model = Model::load(&self.queue, config, self.checkpoint.tensors(), Role::Inference)?;
        model.reserve_context(&self.queue, context.min(config.max_position_embeddings));
        Ok(model)
    }

    /// The tokenizer; none if the model has none.
    pub fn tokenizer(&self) -> anyhow::Result<Option<Tokenizer>> {
        tokenizer_of(&self.checkpoint)
    }

    /// The chat template.
    ///
    /// # Errors
    /// The model has none.
    pub fn template(&self) -> anyhow::Result<ChatTemplate> {
        self.checkpoint.template()?.ok_or_else(|| {
            let problem = format!("{} has no chat template", self.name);
            failure(problem, "continue plain text with `ferule generate` and {\"prompt\": …}")
        })
    }

    /// Refuses a text that is far longer than the context, before it is encoded.
    pub fn check_text(&self, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<()> {
        let context = self.checkpoint.config().max_position_embeddings;
        if tokenizer.exceeds(text, context) {
            let problem =
                format!("a text of {} bytes has more tokens than the model's context of {context}", text.len());
            return Err(failure(problem, format!("shorten it to fewer than {context} tokens")));
        }
        Ok(())
    }

    /// Refuses a prompt that leaves no room for a token.
    pub fn check_context(&self, tokens: usize) -> anyhow::Result<()> {
        let context = self.checkpoint.config().max_position_embeddings;
        if tokens >= context {
            let problem = format!("the prompt has {tokens} tokens, and the model's context ends at {context}");
            return Err(failure(problem, format!("shorten the prompt to fewer than {context} tokens")));
        }
        Ok(())
    }
}

/// The tokenizer, if the model has one.
pub fn tokenizer_of(model: &Checkpoint) -> anyhow::Result<Option<Tokenizer>> {
    if let Checkpoint::Folder(folder) = model
        && !folder.path().join("tokenizer.json").exists()
    {
        return Ok(None);
    }
    Ok(Some(model.tokenizer()?))
}

/// Opens a folder, a file, or a repository of the cache.
pub fn open(model: &Path) -> anyhow::Result<Checkpoint> {
    if model.exists() {
        return Ok(checkpoint::open(model)?);
    }
    checkpoint::open(&pulled(model)?).with_context(|| format!("{} in the cache", model.display()))
}

/// The path of a repository's model in the cache.
pub fn pulled(model: &Path) -> anyhow::Result<PathBuf> {
    let text = model.to_string_lossy();
    let not_found = || {
        let place = hub::Cache::from_environment().map(|cache| cache.root().display().to_string()).unwrap_or_default();
        let problem = format!("{text} is neither a folder, nor a .gguf file, nor a repository in {place}");
        let hint = match hub::RepositoryId::parse(&text) {
            Some(id) => format!("`ferule pull {id}` fetches a repository of that name"),
            None => "check the path for a mistake".to_string(),
        };
        failure(problem, hint)
    };
    let id = hub::RepositoryId::parse(&text).ok_or_else(not_found)?;
    let snapshot = hub::Cache::from_environment()?.snapshot(&id, "main")?.ok_or_else(not_found)?;
    Ok(hub::model_in(&snapshot))
}
