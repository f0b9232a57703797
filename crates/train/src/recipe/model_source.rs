//! Where a model's first weights come from.
//!
//! The variants are matched in this file alone. All other code calls [`ModelSource::path`], [`ModelSource::copied_from`] or
//! [`ModelSource::shape`].

use std::fmt;
use std::path::{Path, PathBuf};

use lm::config::Shape;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::keys;
use tasks::refusal::Refusal;
use toml::Table;

use super::foreign_names::FOREIGN_NAMES;

/// The source of a model's first weights, as its table in the recipe describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ModelSource {
    /// A Hugging Face folder or a GGUF file.
    Path {
        /// The folder or file.
        path: PathBuf,
    },
    /// A copy of the weights that a stage has trained, so that several chains of stages can start from one model.
    Stage {
        /// The stage's name.
        from: String,
    },
    /// Random weights of a shape.
    Random(Shape),
}

/// Keys of a model that is read from a file.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct FileKeys {
    /// A Hugging Face folder, a GGUF file, or a repository that was pulled.
    path: PathBuf,
}

/// Keys of a model that is a copy.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct CopyKeys {
    /// The stage whose weights are copied.
    from: String,
}

impl ModelSource {
    /// Reads a source from its table: `path`, `from`, or the keys of a shape.
    ///
    /// # Errors
    /// A key that this kind of source does not have, or a value that it does not allow.
    pub(super) fn read(table: Table) -> Result<ModelSource, Refusal> {
        if table.contains_key("path") {
            return keys::read(table, FOREIGN_NAMES).map(|FileKeys { path }| ModelSource::Path { path });
        }
        if table.contains_key("from") {
            return keys::read(table, FOREIGN_NAMES).map(|CopyKeys { from }| ModelSource::Stage { from });
        }
        // A wrong key may have been meant for either of the other two.
        let shape = keys::names_of::<Shape>();
        let known: Vec<&str> = shape.iter().map(String::as_str).chain(["path", "from"]).collect();
        keys::refuse_unknown(&table, &known, FOREIGN_NAMES)?;
        keys::read(table, FOREIGN_NAMES).map(ModelSource::Random)
    }

    /// The folder or file that holds the weights.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ModelSource::Path { path } => Some(path),
            _ => None,
        }
    }

    /// The stage whose weights are copied.
    pub fn copied_from(&self) -> Option<&str> {
        match self {
            ModelSource::Stage { from } => Some(from),
            _ => None,
        }
    }

    /// The shape of random weights.
    pub fn shape(&self) -> Option<&Shape> {
        match self {
            ModelSource::Random(shape) => Some(shape),
            _ => None,
        }
    }

    /// Replaces the path of a model that is read from a file, for example a repository's name by its folder in the cache.
    pub fn relocate(&mut self, to: PathBuf) {
        if let ModelSource::Path { path } = self {
            *path = to;
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ModelSource::Path { path } => write!(f, "{}", path.display()),
            ModelSource::Stage { from } => write!(f, "stage {from}"),
            ModelSource::Random(_) => write!(f, "random weights"),
        }
    }
}
