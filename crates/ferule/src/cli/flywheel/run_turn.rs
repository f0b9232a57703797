//! The part that a turn and its replay share: writes records to files and runs them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use kernels::{Queue, bf16};
use store::data_folder::service::ServedModel;
use store::data_folder::turns::{RecordRole, Turn, TurnRecord};
use store::{DataFolder, RunView, Runs};
use tasks::jsonl::{Jsonl, JsonlKeys};
use tasks::{Split, Task};
use train::check::check;
use train::flywheel::dataset::{Dataset, dataset};
use train::flywheel::turn::{self, TurnFile};
use train::pipeline::run as run_pipeline;
use train::recipe::Recipe;

use super::super::progress::{Lines, Terminal};
use super::super::run_model;
use crate::outcome::failure;

/// The name of a turn's run in the turn's folder.
const RUN: &str = "run";

/// A turn whose files are written and whose recipe is checked.
pub struct Prepared {
    /// The records that it trains on or uses in the gate.
    pub records: Vec<TurnRecord>,
    /// The same records as cases.
    pub dataset: Dataset,
    /// The number of cases for fine-tuning. The others are kept for choosing among checkpoints.
    pub demonstrations: usize,
    recipe: Recipe,
    task: Box<dyn Task>,
    folder: PathBuf,
}

/// The items that earlier turns trained on as new ones. What a refused candidate was trained on still counts as new,
/// because the model in service was not trained on it.
pub fn learned_before(data: &DataFolder, turn: i64) -> anyhow::Result<Vec<String>> {
    let mut items = Vec::new();
    let promoted = |before: &&Turn| before.id < turn && before.decision.as_deref() == Some("promoted");
    for before in data.turns()?.iter().filter(promoted) {
        let records = data.turn_records(before.id)?;
        items.extend(records.into_iter().filter(|record| record.role == RecordRole::Label).map(|record| record.item));
    }
    Ok(items)
}

/// The records of a turn that uses the ledger as it was at a moment.
///
/// # Errors
/// A ledger that cannot be read.
pub fn records(data: &DataFolder, file: &TurnFile, turn: i64, at_ms: i64) -> anyhow::Result<Vec<TurnRecord>> {
    let used = learned_before(data, turn)?;
    Ok(turn::choose(&file.keys, &data.verdicts_at(at_ms)?, &data.found_at(at_ms)?, &used, turn as u64))
}

/// Writes the files of a turn into `folder` and checks its recipe.
///
/// # Errors
/// A recipe that cannot be run, a disk that cannot be written.
pub fn prepare(
    data: &DataFolder,
    file: &TurnFile,
    records: Vec<TurnRecord>,
    at_ms: i64,
    incumbent: &ServedModel,
    folder: PathBuf,
) -> anyhow::Result<Prepared> {
    let verdicts: Vec<_> = data.verdicts_at(at_ms)?;
    let chosen = |item: &str| records.iter().any(|record| record.item == item);
    let verdicts: Vec<_> = verdicts.into_iter().filter(|verdict| chosen(&verdict.item)).collect();
    let found: Vec<_> = data
        .found_at(at_ms)?
        .into_iter()
        .filter(|label| records.iter().any(|record| record.item == label.item && record.verdict.is_none()))
        .collect();
    let dataset = dataset(&verdicts, &found);
    data.private_subfolder(&folder)?;
    turn::write_cases(&folder, &dataset)?;
    let demonstrations = demonstrations(&folder)?;
    let model = data.resolve(&incumbent.path);
    let model = model.canonicalize().map_err(|error| {
        let hint = "bring the model back, or promote another one with `ferule promote`";
        failure(format!("the model in service is not at {}: {error}", model.display()), hint)
    })?;
    let text = file.recipe(run_model::task_of(&model).as_ref(), &model, &dataset, demonstrations);
    let path = turn::write_recipe(&folder, &text)?;
    let recipe = Recipe::read(&path, &[])?;
    let task = recipe.build_task()?;
    check(&recipe, &*task)?;
    Ok(Prepared { records, dataset, demonstrations, recipe, task, folder })
}

/// The number of cases for fine-tuning; one in ten cases is kept for choosing among checkpoints.
fn demonstrations(folder: &Path) -> anyhow::Result<usize> {
    let keys = JsonlKeys { path: "train.jsonl".into(), ..JsonlKeys::default() };
    let gate = folder.join("gate.jsonl");
    let heldout = std::fs::metadata(&gate).is_ok_and(|gate| gate.len() > 0).then(|| "gate.jsonl".into());
    Ok(Jsonl::open(JsonlKeys { heldout, ..keys }, folder)?.demonstrated(Split::Train))
}

impl Prepared {
    /// Runs the turn's recipe to its end, or resumes it.
    ///
    /// # Errors
    /// The errors of a run.
    pub fn run(&self, queue: &Queue, quiet: bool, stop: &AtomicBool) -> anyhow::Result<RunView> {
        let runs = Runs::open(&self.folder);
        let (recipe, task) = (&self.recipe, &*self.task);
        let bf16s = recipe.settings.dtype != "f32";
        let mut lines = Lines::new(quiet);
        let mut terminal = Terminal::new();
        let observer: &mut dyn train::trainer::Observer =
            if Terminal::fits() && !quiet { &mut terminal } else { &mut lines };
        match bf16s {
            true => run_pipeline::<bf16>(queue, recipe, task, &runs, observer, stop)?,
            false => run_pipeline::<f32>(queue, recipe, task, &runs, observer, stop)?,
        };
        Ok(runs.view(RUN)?)
    }
}

/// The turn file of a recorded turn.
///
/// # Errors
/// A file that this version cannot read.
pub fn file_of(turn: &Turn) -> anyhow::Result<TurnFile> {
    Ok(TurnFile::parse(&turn.recipe)?)
}
