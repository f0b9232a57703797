//! Reading a recipe: TOML, then `--set`, then types, then sense.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::foreign_names::FOREIGN_NAMES;
use super::{EvalSettings, ModelSource, Optimisation, Recipe, Source, Stage, StageKind, validate};
use tasks::suggest;

/// What can be wrong with a recipe. Messages name the file, the line where it is known, the key, and the mend.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("{path}: {source}\nhint: give the path of a recipe, such as recipes/judgment.toml")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{path}:{line}: {message}\nhint: strings stand in quotes, a table is `[name]`, a stage `[[stages]]`")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// A key or value that cannot be.
    #[error("{path}{}: {key}: {problem}\nhint: {hint}", line.map(|line| format!(":{line}")).unwrap_or_default())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where the key stands in the file.
        line: Option<usize>,
        /// The key with its place, such as `stages.sft-teacher.epochs`.
        key: String,
        /// What is wrong.
        problem: String,
        /// The mend.
        hint: String,
    },
}

struct Reader {
    source: Source,
}

impl Recipe {
    /// Reads, resolves and checks a recipe. `sets` are `key=value` with dotted keys (`stages.sft-teacher.epochs=3`), values in TOML.
    ///
    /// # Errors
    /// [`RecipeError`], before any work is done.
    pub fn read(path: &Path, sets: &[String]) -> Result<Recipe, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let stem = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        let source = Source { path: path.to_path_buf(), text };
        Reader { source }.recipe(sets, &stem, folder)
    }
}

impl Reader {
    fn recipe(&self, sets: &[String], stem: &str, folder: PathBuf) -> Result<Recipe, RecipeError> {
        let mut table: Table = self.source.text.parse().map_err(|error| self.source.syntax(&error))?;
        for set in sets {
            self.set(&mut table, set)?;
        }
        let known = ["name", "seed", "dtype", "cost_per_hour", "task", "models", "eval", "stages"];
        self.refuse_unknown("", &table, &known)?;
        let task: Table = self
            .take(&mut table, "task")?
            .ok_or_else(|| self.missing("task", "add `[task]` with `name = \"judgment\"`"))?;
        let models: BTreeMap<String, ModelSource> = self.models(&mut table)?;
        let stages = self.stages(&mut table, &models)?;
        let recipe = Recipe {
            name: self.take(&mut table, "name")?.unwrap_or_else(|| stem.to_string()),
            seed: self.take(&mut table, "seed")?.unwrap_or(0),
            dtype: self.take(&mut table, "dtype")?.unwrap_or_else(|| "bf16".to_string()),
            cost_per_hour: self.take(&mut table, "cost_per_hour")?.unwrap_or(0.0),
            eval: self.eval(&mut table)?,
            task,
            models,
            stages,
            folder,
            source: self.source.clone(),
        };
        if !["f32", "bf16"].contains(&recipe.dtype.as_str()) {
            return Err(self.field("dtype", format!("\"{}\" is no dtype", recipe.dtype), "write \"f32\" or \"bf16\""));
        }
        validate::check(&recipe)?;
        Ok(recipe)
    }

    fn eval(&self, table: &mut Table) -> Result<EvalSettings, RecipeError> {
        let eval: Table = self.take(table, "eval")?.unwrap_or_default();
        self.refuse_unknown("eval.", &eval, suggest::fields_of::<EvalSettings>())?;
        self.typed("eval", eval)
    }

    fn models(&self, table: &mut Table) -> Result<BTreeMap<String, ModelSource>, RecipeError> {
        let models: Table = self.take(table, "models")?.unwrap_or_default();
        let mut sources = BTreeMap::new();
        for (name, value) in models {
            let key = format!("models.{name}");
            let Value::Table(fields) = value else {
                return Err(self.field(
                    &key,
                    "is not a table",
                    "write `[models.NAME]` with a shape, a `path` or `from`",
                ));
            };
            let source = if fields.contains_key("path") {
                self.refuse_unknown(&format!("{key}."), &fields, &["path"])?;
                self.typed(&key, fields)?
            } else if fields.contains_key("from") {
                self.refuse_unknown(&format!("{key}."), &fields, &["from"])?;
                self.typed(&key, fields)?
            } else {
                let known = [suggest::fields_of::<lm::config::Shape>(), &["path", "from"]].concat();
                self.refuse_unknown(&format!("{key}."), &fields, &known)?;
                ModelSource::Random(self.typed(&key, fields)?)
            };
            sources.insert(name, source);
        }
        Ok(sources)
    }

    fn stages(&self, table: &mut Table, models: &BTreeMap<String, ModelSource>) -> Result<Vec<Stage>, RecipeError> {
        let list: Vec<Table> = self.take(table, "stages")?.unwrap_or_default();
        if list.is_empty() {
            return Err(self.missing("stages", "add at least one `[[stages]]` with a `kind`"));
        }
        let mut names = BTreeSet::new();
        let mut stages = Vec::new();
        for (index, mut fields) in list.into_iter().enumerate() {
            let place = format!("stages[{index}]");
            let kind: String = self.take(&mut fields, "kind")?.ok_or_else(|| {
                self.missing(&format!("{place}.kind"), "name what the stage does, such as kind = \"sft\"")
            })?;
            let name: Option<String> = self.take(&mut fields, "name")?;
            let kind = self.kind(&place, &kind, fields)?;
            let name = name.unwrap_or_else(|| match kind.model() {
                Some(model) => format!("{}-{model}", kind.name()),
                None => kind.name().to_string(),
            });
            if !names.insert(name.clone()) {
                let hint = "give one of the two a `name`";
                return Err(self.field(&format!("{place}.name"), format!("a second stage called \"{name}\""), hint));
            }
            for (key, model) in [("model", kind.model()), ("teacher", kind.teacher())] {
                let Some(model) = model else { continue };
                let key = format!("{place}.{key}");
                let Some(source) = models.get(model) else {
                    let hint = match models.is_empty() {
                        true => format!("add `[models.{model}]` with a shape, a `path` or `from`"),
                        false => suggest::hint(model, models.keys().map(String::as_str)),
                    };
                    return Err(self.field(&key, format!("there is no model \"{model}\""), hint));
                };
                self.made_before(&key, model, source, &stages)?;
            }
            stages.push(Stage { name, kind });
        }
        Ok(stages)
    }

    /// A copy of a stage's weights exists only after that stage.
    fn made_before(&self, key: &str, model: &str, source: &ModelSource, before: &[Stage]) -> Result<(), RecipeError> {
        let ModelSource::Stage { from } = source else { return Ok(()) };
        if before.iter().any(|stage| stage.name == *from && stage.kind.trained().is_some()) {
            return Ok(());
        }
        let problem = format!(
            "model \"{model}\" is a copy of what \"{from}\" makes, and no earlier training stage has that name"
        );
        let makers = before.iter().filter(|stage| stage.kind.trained().is_some()).map(|stage| stage.name.as_str());
        Err(self.field(key, problem, suggest::hint(from, makers)))
    }

    fn kind(&self, place: &str, kind: &str, fields: Table) -> Result<StageKind, RecipeError> {
        Ok(match kind {
            "tokenizer" => StageKind::Tokenizer(self.stage(place, fields, false)?),
            "pretrain" => StageKind::Pretrain(self.stage(place, fields, true)?),
            "sft" => StageKind::Sft(self.stage(place, fields, true)?),
            "grpo" => StageKind::Grpo(self.stage(place, fields, true)?),
            "sample" => StageKind::Sample(self.stage(place, fields, false)?),
            "distill" => StageKind::Distill(self.stage(place, fields, true)?),
            "dialogue" => StageKind::Dialogue(self.stage(place, fields, true)?),
            "eval" => StageKind::Eval(self.stage(place, fields, false)?),
            _ => {
                let known = ["tokenizer", "pretrain", "sft", "grpo", "sample", "distill", "dialogue", "eval"];
                let problem = format!("there is no stage \"{kind}\"");
                return Err(self.field(&format!("{place}.kind"), problem, suggest::hint(kind, known)));
            }
        })
    }

    /// A stage's struct holds its optimisation in a flattened field, whose keys serde cannot name; both lists are known here.
    fn stage<T: DeserializeOwned + StageFields>(
        &self,
        place: &str,
        fields: Table,
        trains: bool,
    ) -> Result<T, RecipeError> {
        let mut known: Vec<&str> = T::FIELDS.to_vec();
        if trains {
            known.extend(suggest::fields_of::<Optimisation>());
        }
        self.refuse_unknown(&format!("{place}."), &fields, &known)?;
        if trains {
            // By itself first: inside the flattened field serde forgets which key was wrong.
            let own = fields.iter().filter(|(key, _)| suggest::fields_of::<Optimisation>().contains(&key.as_str()));
            self.typed::<Optimisation>(place, own.map(|(key, value)| (key.clone(), value.clone())).collect())?;
        }
        self.typed(place, fields)
    }

    fn typed<T: DeserializeOwned>(&self, place: &str, fields: Table) -> Result<T, RecipeError> {
        serde_path_to_error::deserialize(Value::Table(fields)).map_err(|error| {
            let inner = error.path().to_string();
            let key = if inner == "." { place.to_string() } else { format!("{place}.{inner}") };
            self.field(
                &key,
                error.inner().message().trim().to_string(),
                "numbers stand without quotes, words in quotes, lists in brackets",
            )
        })
    }

    fn take<T: DeserializeOwned>(&self, table: &mut Table, key: &str) -> Result<Option<T>, RecipeError> {
        let Some(value) = table.remove(key) else { return Ok(None) };
        value.try_into().map(Some).map_err(|error: toml::de::Error| {
            self.field(
                key,
                error.message().trim().to_string(),
                "numbers stand without quotes, words in quotes, lists in brackets",
            )
        })
    }

    fn refuse_unknown(&self, place: &str, table: &Table, known: &[&str]) -> Result<(), RecipeError> {
        let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let elsewhere =
            FOREIGN_NAMES.iter().find(|(ours, theirs)| theirs.contains(&unknown.as_str()) && known.contains(ours));
        let hint = match elsewhere {
            Some((ours, _)) => format!("here it is called \"{ours}\""),
            None => suggest::hint(unknown, known.iter().copied()),
        };
        Err(self.field(&format!("{place}{unknown}"), "unknown key", hint))
    }

    /// `--set key=value`.
    fn set(&self, table: &mut Table, set: &str) -> Result<(), RecipeError> {
        let hint = "write --set stages.NAME.key=value, values as in TOML";
        let (key, value) = set.split_once('=').ok_or_else(|| self.field(set, "no `=` in --set", hint))?;
        // A word that is no TOML value is taken as a string: `dtype=f32` needs no quotes.
        let parsed = format!("x = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("x"));
        let value = parsed.unwrap_or_else(|| Value::String(value.into()));
        let mut parts = key.trim().split('.').peekable();
        let mut at: Option<&mut Value> = None;
        while let Some(part) = parts.next() {
            let inner: &mut Table = match at {
                None => &mut *table,
                Some(Value::Table(inner)) => inner,
                Some(Value::Array(stages)) => {
                    let stage = stages.iter_mut().find(|stage| stage_is(stage, part)).and_then(Value::as_table_mut);
                    let Some(stage) = stage else {
                        return Err(self.field(key, format!("there is no stage \"{part}\""), hint));
                    };
                    let Some(inner_key) = parts.next() else {
                        return Err(self.field(key, "names a stage and no key of it", hint));
                    };
                    stage.insert(inner_key.to_string(), value);
                    return Ok(());
                }
                Some(_) => return Err(self.field(key, format!("nothing lies below it at \"{part}\""), hint)),
            };
            if parts.peek().is_none() {
                inner.insert(part.to_string(), value);
                return Ok(());
            }
            at = Some(inner.entry(part.to_string()).or_insert_with(|| Value::Table(Table::new())));
        }
        Ok(())
    }

    fn missing(&self, key: &str, hint: &str) -> RecipeError {
        self.field(key, "is missing", hint)
    }

    fn field(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> RecipeError {
        self.source.wrong(key, problem, hint)
    }
}

/// The keys of a stage beside those of [`Optimisation`].
pub trait StageFields {
    /// In the struct's order.
    const FIELDS: &'static [&'static str];
}

fn stage_is(item: &Value, name: &str) -> bool {
    let word = |key: &str| item.get(key).and_then(Value::as_str);
    let unnamed = match (word("kind"), word("model")) {
        (Some(kind), Some(model)) => name == format!("{kind}-{model}"),
        (kind, _) => kind == Some(name),
    };
    word("name").map_or(unnamed, |given| given == name)
}
