//! Turns the user's turn file into a recipe.
//!
//! A turn file is a recipe without data and models; the turn supplies those. The table `[flywheel]` holds the keys that
//! a recipe does not have.
//!
//! ```toml
//! [flywheel]
//! planned_looks = 8        # turns over which the chance of a wrong promotion is spread
//! replay = 1.0             # old cases for each new one
//!
//! [[stages]]
//! kind = "sft"             # one stage more is one table more
//! epochs = 4
//! ```

use std::path::{Path, PathBuf};

use kernels::rng::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::data_folder::found::FoundLabel;
use store::data_folder::review::Signed;
use store::data_folder::turns::{RecordRole, TurnRecord};
use store::disk::{RealDisk, write_whole};
use store::{RunView, StageRow};
use tasks::data::file;
use tasks::keys;
use tasks::refusal::Refusal;
use toml::{Table, Value};

use super::dataset::Dataset;
use crate::error::TrainError;
use crate::recipe::foreign_names::FOREIGN_NAMES;

/// The name of the stage that measures the model in service.
pub const INCUMBENT: &str = "incumbent";
/// The name of the model that a turn trains.
pub const CANDIDATE: &str = "candidate";

/// What a turn file says beyond a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FlywheelKeys {
    /// Turns over which the chance of a wrong promotion is spread.
    #[schemars(range(min = 1, max = 1000))]
    pub planned_looks: u64,
    /// Old cases (of earlier turns, and found labels) for each new one.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub replay: f64,
    /// New verdicts below which no turn is begun.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub least_verdicts: usize,
    /// Items of the gate below which no turn is begun.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub least_gate: usize,
}

impl Default for FlywheelKeys {
    fn default() -> Self {
        FlywheelKeys { planned_looks: 8, replay: 1.0, least_verdicts: 20, least_gate: 20 }
    }
}

/// A turn file that was read.
#[derive(Clone, Debug)]
pub struct TurnFile {
    /// The keys of `[flywheel]`.
    pub keys: FlywheelKeys,
    /// The file's text.
    pub text: String,
    recipe: Table,
}

impl TurnFile {
    /// Reads a turn file.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, an unknown key of `[flywheel]`, the keys `task.path` or
    /// `task.heldout`, which the turn supplies, or no stage.
    pub fn read(path: &Path) -> Result<TurnFile, Refusal> {
        let text = file::read_to_string(path).map_err(|error| {
            Refusal::new(error.to_string(), "give the path of a turn file; the guide shows one").in_file(path)
        })?;
        TurnFile::parse(&text).map_err(|refusal| refusal.in_file(path))
    }

    /// Reads a turn file's text.
    ///
    /// # Errors
    /// As [`Self::read`], without the file's name.
    pub fn parse(text: &str) -> Result<TurnFile, Refusal> {
        let mut recipe: Table = text.parse().map_err(|error: toml::de::Error| {
            Refusal::new(error.message().to_string(), "write TOML, as in a recipe")
        })?;
        let keys = match recipe.remove("flywheel") {
            None => FlywheelKeys::default(),
            Some(Value::Table(table)) => {
                keys::read(table, FOREIGN_NAMES).map_err(|refusal| refusal.in_key("flywheel"))?
            }
            Some(_) => return Err(Refusal::new("is no table", "write [flywheel]").in_key("flywheel")),
        };
        for (table, key) in [("task", "path"), ("task", "heldout")] {
            if recipe.get(table).and_then(|table| table.get(key)).is_some() {
                let hint = "leave it out: a turn trains and is judged on signed verdicts";
                return Err(Refusal::new("a turn has data of its own", hint).in_key(format!("{table}.{key}")));
            }
        }
        if recipe.get("stages").and_then(Value::as_array).is_none_or(|stages| stages.is_empty()) {
            let hint = "write at least [[stages]] with kind = \"sft\"";
            return Err(Refusal::new("there is no stage", hint).in_key("stages"));
        }
        Ok(TurnFile { keys, text: text.to_string(), recipe })
    }

    /// The recipe of a turn, as TOML.
    ///
    /// * `task`: the task of the run that made the model in service. The turn file's own keys override it.
    /// * `demonstrations`: cases that fine-tuning may learn from.
    pub fn recipe(&self, task: Option<&Table>, model: &Path, dataset: &Dataset, demonstrations: usize) -> String {
        let mut recipe = self.recipe.clone();
        let jsonl = task.filter(|task| task.get("name").and_then(Value::as_str) == Some("jsonl"));
        let mut task = Table::from_iter([("name".into(), Value::from("jsonl"))]);
        task.extend(
            jsonl
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key == "template" || *key == "rules")
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        task.extend(recipe.get("task").and_then(Value::as_table).cloned().unwrap_or_default());
        task.entry("rules").or_insert_with(|| {
            let read = if dataset.in_blocks { "block" } else { "whole" };
            Value::Array(vec![
                Table::from_iter([("rule".into(), "exact".into()), ("read".into(), Value::from(read))]).into(),
            ])
        });
        task.insert("path".into(), "train.jsonl".into());
        task.insert("heldout".into(), "gate.jsonl".into());
        recipe.insert("task".into(), task.into());
        recipe.insert("name".into(), "run".into());

        let source =
            || Value::Table(Table::from_iter([("path".into(), Value::from(model.to_string_lossy().into_owned()))]));
        let models = recipe.entry("models").or_insert_with(|| Table::new().into());
        if let Some(models) = models.as_table_mut() {
            models.entry(CANDIDATE).or_insert_with(source);
            models.insert(INCUMBENT.into(), source());
        }
        let eval = recipe.entry("eval").or_insert_with(|| Table::new().into());
        if let Some(eval) = eval.as_table_mut() {
            eval.insert("cases".into(), (dataset.gate.len() as i64).into());
            eval.entry("baseline_demonstrations").or_insert((demonstrations as i64).into());
            eval.entry("few_shot_examples").or_insert(0.into());
        }
        if let Some(Value::Array(stages)) = recipe.get_mut("stages") {
            for stage in stages.iter_mut().filter_map(Value::as_table_mut) {
                stage.entry("model").or_insert(CANDIDATE.into());
                if stage.get("kind").and_then(Value::as_str) == Some("sft") {
                    stage.entry("demonstrations").or_insert((demonstrations as i64).into());
                }
            }
            let measure = [("kind", "eval"), ("name", INCUMBENT), ("model", INCUMBENT)];
            stages.insert(0, Table::from_iter(measure.map(|(key, value)| (key.into(), Value::from(value)))).into());
        }
        recipe.to_string()
    }
}

/// Chooses a turn's records: all new verdicts that have a right answer, a random sample of earlier ones, and the whole
/// gate.
///
/// * `used`: items that an earlier turn trained on.
pub fn choose(
    keys: &FlywheelKeys,
    verdicts: &[Signed],
    found: &[FoundLabel],
    used: &[String],
    turn: u64,
) -> Vec<TurnRecord> {
    let record = |verdict: &Signed, role| TurnRecord { item: verdict.item.clone(), role, verdict: Some(verdict.id) };
    let teaches = |verdict: &&Signed| !verdict.gate && verdict.right_answer().is_some();
    let (old, new): (Vec<&Signed>, Vec<&Signed>) =
        verdicts.iter().filter(teaches).partition(|v| used.contains(&v.item));
    let mut replay: Vec<TurnRecord> = old.into_iter().map(|verdict| record(verdict, RecordRole::Replay)).collect();
    // A found label is left out if a person has judged its item.
    let judged = |item: &String| verdicts.iter().any(|verdict| verdict.item == *item);
    replay.extend(found.iter().filter(|label| !judged(&label.item)).map(|label| TurnRecord {
        item: label.item.clone(),
        role: RecordRole::Replay,
        verdict: None,
    }));
    let key = Key::new(0).word("replay").number(turn);
    replay.sort_by_cached_key(|record| (key.word(&record.item).bits(0), record.item.clone()));
    replay.truncate((keys.replay * new.len() as f64).round() as usize);
    let gate = verdicts.iter().filter(|verdict| verdict.gate).map(|verdict| record(verdict, RecordRole::Gate));
    new.into_iter().map(|verdict| record(verdict, RecordRole::Label)).chain(replay).chain(gate).collect()
}

/// Writes a turn's cases into its folder.
///
/// # Errors
/// A disk that cannot be written.
pub fn write_cases(folder: &Path, dataset: &Dataset) -> Result<(), TrainError> {
    let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    for (name, cases) in [("train.jsonl", &dataset.train), ("gate.jsonl", &dataset.gate)] {
        write_whole(&RealDisk, &folder.join(name), lines(cases).as_bytes())?;
    }
    Ok(())
}

/// Writes a turn's recipe into its folder and returns its path.
///
/// # Errors
/// A disk that cannot be written.
pub fn write_recipe(folder: &Path, recipe: &str) -> Result<PathBuf, TrainError> {
    let path = folder.join("recipe.toml");
    write_whole(&RealDisk, &path, recipe.as_bytes())?;
    Ok(path)
}

/// What the run of a finished turn shows: the candidate's row, and for each item whether the incumbent and the
/// candidate were right (1 or 0).
///
/// # Errors
/// The run is incomplete.
pub fn outcome(view: &RunView) -> Result<(StageRow, Vec<(f64, f64)>), TrainError> {
    let rows = view.ledger().stages()?;
    let right = |row: &StageRow| -> Vec<f64> {
        let kept = row.extra.get("correct").and_then(|kept| kept.as_str()).unwrap_or("");
        kept.chars().map(|c| f64::from(u8::from(c == '1'))).collect()
    };
    let incumbent = rows.iter().find(|row| row.stage == INCUMBENT).map(right).unwrap_or_default();
    let last = rows.iter().rev().find(|row| row.model == CANDIDATE && row.digest.is_some());
    let missing = || TrainError::stage(INCUMBENT, "the run shows no comparison", "run the turn again to its end");
    let candidate = last.ok_or_else(missing)?;
    let answers = right(candidate);
    if incumbent.is_empty() || incumbent.len() != answers.len() {
        return Err(missing());
    }
    Ok((candidate.clone(), incumbent.into_iter().zip(answers).collect()))
}
