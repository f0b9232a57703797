//! Repositories of models on a Hugging Face-style hub, and the cache on this machine that all its clients share.
//!
//! * `cache.rs`: where things lie: blobs by content, snapshots by commit, refs by branch. Never uses the network.
//! * `client.rs`: what the hub says of a repository and its files.
//! * `download.rs`: one file into the cache, resumed where a previous try ended.
//!
//! Only `ferule pull` reaches the network, and only through here.

mod cache;
mod client;
mod download;

use std::fmt;
use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use client::Client;
pub use download::download;

/// The id of a repository: `owner/name`, or `name` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// Reads an id; none for text that no repository can be called.
    pub fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && !part.starts_with(['.', '-'])
                && !part.contains("..")
                && !part.contains("--")
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let parts: Vec<&str> = text.split('/').collect();
        (parts.len() <= 2 && parts.iter().all(|part| is_part(part))).then(|| Self(text.to_string()))
    }

    /// The folder's name in the cache.
    fn folder_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `HF_HUB_OFFLINE` forbids the network.
pub fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
}

/// The model in a snapshot: the folder itself, or the one `.gguf` file of a repository that holds nothing else.
pub fn model_in(snapshot: &Path) -> PathBuf {
    if snapshot.join("config.json").exists() {
        return snapshot.to_path_buf();
    }
    let entries = std::fs::read_dir(snapshot).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).collect();
    match files.len() {
        1 => files.remove(0),
        _ => snapshot.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::RepositoryId;

    #[test]
    fn ids_are_names_and_never_paths() {
        for id in ["gpt2", "Qwen/Qwen3-0.6B", "a_b/c.d-e"] {
            assert_eq!(RepositoryId::parse(id).map(|id| id.to_string()), Some(id.to_string()));
        }
        for text in ["", "/", "a/", "../etc", "a/../b", "a/b/c", "a--b/c", "./model", "模型", "a b"] {
            assert_eq!(RepositoryId::parse(text), None, "{text}");
        }
        assert_eq!(RepositoryId::parse("Qwen/Qwen3-0.6B").unwrap().folder_name(), "models--Qwen--Qwen3-0.6B");
    }
}
