//! Reads a recipe in four steps: the TOML, the changes of `--set`, the typed tables, and the checks of [`super::validate`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tasks::data::file;
use tasks::{keys, suggest};
use toml::{Table, Value};

use super::foreign_names::FOREIGN_NAMES;
use super::keys::RecipeKeys;
use super::model_source::ModelSource;
use super::resolved::{Recipe, RecipeStage};
use super::settings::Settings;
use super::source::Source;
use super::{overrides, validate};
use crate::stages::registry;
use tasks::refusal::Refusal;

struct Reader {
    source: Source,
}

impl Recipe {
    /// Reads, resolves and validates a recipe.
    ///
    /// * `sets`: changes as `key=value`, with dotted keys (`stages.sft-teacher.epochs=3`) and values in TOML.
    ///
    /// # Errors
    /// A recipe that cannot be run, as far as its text shows it. The refusal names the line and the key.
    pub fn read(path: &Path, sets: &[String]) -> Result<Recipe, Refusal> {
        let text = file::read_to_string(path).map_err(|error| {
            let hint = "give the path of a recipe, such as recipes/judgment.toml";
            Refusal::new(error.to_string(), hint).in_file(path)
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let stem = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        let source = Source { path: path.to_path_buf(), text };
        Reader { source }.recipe(sets, &stem, folder)
    }
}

impl Reader {
    fn recipe(&self, sets: &[String], stem: &str, folder: PathBuf) -> Result<Recipe, Refusal> {
        let mut table: Table = self.source.text.parse().map_err(|error| self.source.syntax(&error))?;
        for set in sets {
            overrides::apply(&self.source, &mut table, set)?;
        }
        let keys: RecipeKeys = self.typed("", table)?;
        let hint = "add `[task]` with `name = \"judgment\"`";
        let task = keys.task.ok_or_else(|| self.refuse("task", "is missing", hint))?;
        let models = self.models(keys.models)?;
        let stages = self.stages(keys.stages)?;
        let settings = Settings {
            name: keys.name.unwrap_or_else(|| stem.to_string()),
            seed: keys.seed,
            dtype: keys.dtype,
            cost_per_hour: keys.cost_per_hour,
            eval: self.typed("eval", keys.eval)?,
            task,
            models,
            folder,
            source: self.source.clone(),
        };
        let recipe = Recipe::new(settings, stages);
        validate::check(&recipe)?;
        Ok(recipe)
    }

    fn models(&self, models: Table) -> Result<BTreeMap<String, ModelSource>, Refusal> {
        let mut sources = BTreeMap::new();
        for (name, value) in models {
            let key = format!("models.{name}");
            let Value::Table(table) = value else {
                let hint = "write `[models.NAME]` with a shape, a `path` or `from`";
                return Err(self.refuse(&key, "is not a table", hint));
            };
            let source = ModelSource::read(table).map_err(|refusal| self.within(&key, refusal))?;
            sources.insert(name, source);
        }
        Ok(sources)
    }

    fn stages(&self, list: Vec<Table>) -> Result<Vec<RecipeStage>, Refusal> {
        if list.is_empty() {
            return Err(self.refuse("stages", "is missing", "add at least one `[[stages]]` with a `kind`"));
        }
        let mut names = BTreeSet::new();
        let mut stages: Vec<RecipeStage> = Vec::new();
        for (index, mut fields) in list.into_iter().enumerate() {
            let place = format!("stages[{index}]");
            let kind = self.take_word(&place, &mut fields, "kind")?.ok_or_else(|| {
                let hint = "name what the stage does, such as kind = \"sft\"";
                self.refuse(&format!("{place}.kind"), "is missing", hint)
            })?;
            let name = self.take_word(&place, &mut fields, "name")?;
            let mut stage = self.stage(&place, &kind, fields)?;
            // The default name has the kind as it was written. So a recipe with an older word for the kind keeps its random numbers.
            stage.name = name.unwrap_or_else(|| match stage.outline().model() {
                Some(model) => format!("{kind}-{model}"),
                None => kind,
            });
            if !names.insert(stage.name.clone()) {
                let problem = format!("a second stage called \"{}\"", stage.name);
                return Err(self.refuse(&format!("{place}.name"), problem, "give one of the two a `name`"));
            }
            stages.push(stage);
        }
        Ok(stages)
    }

    fn stage(&self, place: &str, kind: &str, fields: Table) -> Result<RecipeStage, Refusal> {
        let Some(entry) = registry::find(kind) else {
            let problem = format!("there is no stage \"{kind}\"");
            let hint = suggest::hint(kind, registry::STAGES.iter().map(|entry| entry.kind));
            return Err(self.refuse(&format!("{place}.kind"), problem, hint));
        };
        let stage = (entry.read)(fields).map_err(|refusal| self.within(place, refusal))?;
        Ok(RecipeStage::new("", stage))
    }

    /// Reads a table as a typed struct.
    fn typed<T: JsonSchema + DeserializeOwned>(&self, place: &str, fields: Table) -> Result<T, Refusal> {
        keys::read(fields, FOREIGN_NAMES).map_err(|refusal| self.within(place, refusal))
    }

    /// A refusal found in a table, at its key's line.
    fn within(&self, place: &str, refusal: Refusal) -> Refusal {
        if place.is_empty() { self.source.located(refusal) } else { self.source.at(place, refusal) }
    }

    fn take_word(&self, place: &str, table: &mut Table, key: &str) -> Result<Option<String>, Refusal> {
        match table.remove(key) {
            None => Ok(None),
            Some(Value::String(word)) => Ok(Some(word)),
            Some(other) => {
                let problem = format!("{other} is not a string");
                Err(self.refuse(&format!("{place}.{key}"), problem, "write it in quotes"))
            }
        }
    }

    fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.source.refuse(key, problem, hint)
    }
}
