//! `ferule import` and `ferule export`: convert a model from one file format to another.
//!
//! Both accept every format that Ferule reads. Tensors are read, converted and written one at a time.

use std::path::{Path, PathBuf};

use lm::checkpoint::huggingface::Companions;
use lm::checkpoint::{Checkpoint, Storage, gguf, huggingface};

use super::model_argument::{open, tokenizer_of};
use crate::outcome::WrongUse;
use crate::visible::note;

/// What `ferule import` is told.
#[derive(clap::Args)]
#[command(after_help = "    ferule import SmolLM2-135M-Q8_0.gguf SmolLM2-135M")]
pub struct ImportArguments {
    /// A .gguf file, a Hugging Face folder, or the id of a pulled repository
    model: PathBuf,
    /// The Hugging Face folder to write
    folder: PathBuf,
    /// How to store the weights [default: as the source does; f32 if its matrices differ in dtype, bf16 if they are quantised]
    #[arg(long, value_enum)]
    dtype: Option<FolderStorage>,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
}

/// What `ferule export` is told.
#[derive(clap::Args)]
#[command(after_help = "    ferule export runs/judgment/model judgment.gguf --dtype q8_0")]
pub struct ExportArguments {
    /// A Hugging Face folder, a .gguf file, or the id of a pulled repository
    model: PathBuf,
    /// The .gguf file to write
    file: PathBuf,
    /// How to store the matrices [default: as the source does; f32 if its matrices differ in dtype, bf16 if they are quantised]
    #[arg(long, value_enum)]
    dtype: Option<GgufStorage>,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum FolderStorage {
    F32,
    F16,
    Bf16,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum GgufStorage {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

/// Writes a Hugging Face folder.
pub fn import(arguments: ImportArguments) -> anyhow::Result<()> {
    let model = open(&arguments.model)?;
    refuse_existing(&arguments.folder, arguments.force)?;
    let storage = match arguments.dtype {
        None => model.tensors().lossless_storage(),
        Some(FolderStorage::F32) => Storage::F32,
        Some(FolderStorage::F16) => Storage::F16,
        Some(FolderStorage::Bf16) => Storage::Bf16,
    };
    let (tokenizer, template) = (tokenizer_of(&model)?, model.template()?);
    let companions = Companions {
        config: model.config(),
        generation: model.generation(),
        tokenizer: tokenizer.as_ref(),
        template: template.as_ref().map(|template| template.source()),
    };
    huggingface::save(&arguments.folder, companions, model.tensors(), storage)?;
    wrote(&arguments.folder, &model, storage);
    Ok(())
}

/// Writes a GGUF file.
pub fn export(arguments: ExportArguments) -> anyhow::Result<()> {
    let model = open(&arguments.model)?;
    refuse_existing(&arguments.file, arguments.force)?;
    let storage = match arguments.dtype {
        None => model.tensors().lossless_storage(),
        Some(GgufStorage::F32) => Storage::F32,
        Some(GgufStorage::F16) => Storage::F16,
        Some(GgufStorage::Bf16) => Storage::Bf16,
        Some(GgufStorage::Q8_0) => Storage::Q8_0,
    };
    let (tokenizer, template) = (tokenizer_of(&model)?, model.template()?);
    if tokenizer.is_none() {
        eprintln!("warning: the model has no tokenizer; llama.cpp loads no file without one");
    }
    let name = arguments.file.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let export = gguf::Export {
        name: &name,
        config: model.config(),
        tokenizer: tokenizer.as_ref(),
        template: template.as_ref().map(|template| template.source()),
    };
    gguf::save(&arguments.file, export, model.tensors(), storage)?;
    wrote(&arguments.file, &model, storage);
    Ok(())
}

fn refuse_existing(path: &Path, force: bool) -> anyhow::Result<()> {
    let occupied = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    };
    if occupied && !force {
        return Err(WrongUse::error(format!("{} exists", path.display()), "choose another name, or add --force"));
    }
    Ok(())
}

fn wrote(path: &Path, model: &Checkpoint, storage: Storage) {
    let dtype = match storage {
        Storage::F32 => "f32",
        Storage::F16 => "f16",
        Storage::Bf16 => "bf16",
        Storage::Q8_0 => "q8_0",
    };
    note!("wrote {}: {} parameters in {dtype}", path.display(), model.config().parameters());
}
