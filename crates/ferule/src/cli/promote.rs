//! `ferule promote MODEL` and `ferule rollback`: a person decides which model is in service.

use std::path::Path;

use serde_json::json;
use store::data_folder::service::ServedModel;
use store::{DataFolder, Runs};

use super::data_argument::DataArguments;
use super::model_argument::{ComputeArguments, open};
use super::output::Output;
use super::run_model;
use crate::people;

/// What `ferule promote` reads.
#[derive(clap::Args)]
#[command(after_help = "\
A server on the same data folder switches to the model within a second and drops no request.

    ferule promote 9f86d081         # the beginning of a digest that `ferule flywheel status` lists
    ferule promote judgment         # a run's student; a folder or a .gguf file works too")]
pub struct PromoteArguments {
    /// A digest, a run's model, a Hugging Face folder or a .gguf file
    model: String,
    /// The reason, which is kept in the ledger
    #[arg(long, default_value = "by hand")]
    reason: String,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: std::path::PathBuf,
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// What `ferule rollback` reads.
#[derive(clap::Args)]
pub struct RollbackArguments {
    #[command(flatten)]
    data: DataArguments,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Puts a model into service.
pub fn promote(arguments: PromoteArguments) -> anyhow::Result<()> {
    let data = DataFolder::open(&arguments.data.data)?;
    let person = people::signed_in_or_operator(&data)?;
    let known = data.models()?.iter().any(|model| model.id.starts_with(&arguments.model));
    let model = match known {
        true => data.model(&arguments.model)?,
        false => note(&data, &arguments.model, &arguments.runs)?,
    };
    data.promote(&person, &model.id, &arguments.reason)?;
    tell(&model, arguments.json)
}

/// Puts the previous model back into service.
pub fn rollback(arguments: RollbackArguments) -> anyhow::Result<()> {
    let data = DataFolder::open_existing(&arguments.data.data)?;
    let person = people::signed_in_or_operator(&data)?;
    let id = data.roll_back(&person)?;
    tell(&data.model(&id)?, arguments.json)
}

/// Records a model from outside the data folder, under the digest of its weights.
///
/// # Errors
/// A model that cannot be found or read.
pub fn note(data: &DataFolder, name: &str, runs: &Path) -> anyhow::Result<ServedModel> {
    let path = match Path::new(name).exists() {
        true => None,
        false => run_model::find(&Runs::open(runs), name)?,
    };
    let path = path.unwrap_or_else(|| name.into());
    let compute = ComputeArguments { dtype: None, threads: None };
    let checkpoint = open(&path)?;
    let digest = train::pipeline::digest_of(compute.queue()?.device(), &checkpoint)?;
    let place = if path.exists() { path } else { super::model_argument::pulled(&path)? };
    data.note_model(&digest, &data.relative(&place), None)?;
    Ok(data.model(&digest)?)
}

fn tell(model: &ServedModel, as_json: bool) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    match as_json {
        true => output.json_line(&json!({ "in_service": model.id, "path": model.path, "turn": model.turn }))?,
        false => output.text(&format!("in service: {}  {}\n", model.id, model.path))?,
    }
    output.flush()
}
