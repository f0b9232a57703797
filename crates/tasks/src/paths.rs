//! Paths in a recipe.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A path, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// `"cases.jsonl"`
    One(#[schemars(extend("format" = "path"))] PathBuf),
    /// `["a.jsonl", "b.jsonl"]`
    Several(#[schemars(extend("items" = { "type": "string", "format": "path" }))] Vec<PathBuf>),
}

impl Default for Paths {
    fn default() -> Paths {
        Paths::Several(Vec::new())
    }
}

impl Paths {
    /// Each path as [`located`] finds it; empty if the recipe gives none.
    pub fn located(&self, folder: &Path) -> Vec<PathBuf> {
        let paths = match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Several(paths) => paths,
        };
        paths.iter().map(|path| located(folder, path)).collect()
    }
}

/// Resolves a path of a recipe: relative to the recipe's folder or, if nothing exists there, to the current folder,
/// because `--set` is written where the command runs.
pub fn located(folder: &Path, path: &Path) -> PathBuf {
    let beside = folder.join(path);
    if !beside.exists() && path.exists() { path.to_path_buf() } else { beside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_recipe_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("Cargo.toml");
        // The tests run in the crate's folder, where there is a Cargo.toml too.
        let found = || Paths::One("Cargo.toml".into()).located(folder.path());
        assert_eq!(found(), [PathBuf::from("Cargo.toml")]);
        std::fs::write(&beside, "").unwrap();
        assert_eq!(found(), [beside]);
        let missing = Paths::Several(vec!["missing".into()]).located(folder.path());
        assert_eq!(missing, [folder.path().join("missing")]);
    }
}
