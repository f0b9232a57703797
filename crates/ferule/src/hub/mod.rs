//! Repositories of models on a Hugging Face-style hub, and the cache on this machine that all its clients share.
//!
//! * `cache.rs`: the layout of the cache: blobs by content, snapshots by commit, refs by branch. Never uses the
//!   network.
//! * `client.rs`: asks the hub about a repository and its files.
//! * `digest.rs`: compares contents with their name.
//! * `download.rs`: downloads one file into the cache and resumes an interrupted download.
//!
//! `ferule pull` is the only command that downloads, and it does so only through this module.
//!
//! The crate `hf-hub` is not used. Neither 1.0.0 nor 0.5.0 compares a download with the SHA-256 that the hub announces,
//! and neither obeys `HF_HUB_OFFLINE`. Version 1.0.0 downloads an interrupted file again from its start, and it would
//! add more than 100 crates to the binary. Version 0.5.0 resumes and adds few crates, but with its client on `ureq` the
//! token also goes to the host to which the hub redirects a large file.

mod cache;
mod client;
mod digest;
mod download;
mod repository_id;

use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use client::Client;
pub use download::download;
pub use repository_id::RepositoryId;

/// Whether `HF_HUB_OFFLINE` forbids the network.
pub fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE")
        .is_ok_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
}

/// The model in a snapshot: the folder itself, or the `.gguf` file if the repository holds nothing else.
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
