//! The cache that the hub's clients share, in its usual layout.
//!
//! ```text
//! $HF_HUB_CACHE, or $HF_HOME/hub, or ~/.cache/huggingface/hub
//!   models--owner--name/
//!     blobs/<etag>                  contents, named by their etag
//!     blobs/<etag>.incomplete       a download that was interrupted
//!     snapshots/<commit>/<path>     links to blobs
//!     refs/<branch>                 the commit that a branch pointed to when it was pulled
//! ```

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::digest::difference;
use super::repository_id::RepositoryId;
use crate::outcome::failure;

/// Files up to this size are compared with their name whenever they are used.
const ALWAYS_COMPARED_BYTES: u64 = 16 << 20;

/// The cache's root folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache that the environment names.
    ///
    /// # Errors
    /// When neither `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn from_environment() -> anyhow::Result<Self> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = folder("HF_HUB_CACHE") {
            return Ok(Self { root });
        }
        Ok(Self { root: home()?.join("hub") })
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub fn repository(&self, id: &RepositoryId) -> RepositoryCache {
        RepositoryCache { folder: self.root.join(id.folder_name()) }
    }

    /// The snapshot of a branch or commit, if it was pulled. Damage to its files is noticed as far as that is cheap: by
    /// reading small files, and large ones that were written after their link was made.
    ///
    /// # Errors
    /// A damaged file.
    pub fn snapshot(&self, id: &RepositoryId, revision: &str) -> anyhow::Result<Option<PathBuf>> {
        self.checked(id, revision, |file, link| {
            file.len() <= ALWAYS_COMPARED_BYTES
                || matches!((file.modified(), link.modified()), (Ok(file), Ok(link)) if file > link)
        })
    }

    /// The same, with all files read.
    ///
    /// # Errors
    /// A damaged file.
    pub fn whole_snapshot(&self, id: &RepositoryId, revision: &str) -> anyhow::Result<Option<PathBuf>> {
        self.checked(id, revision, |_, _| true)
    }

    /// A snapshot whose chosen files were compared with their names. `chosen` is given the metadata of a file and of its
    /// link.
    fn checked(
        &self,
        id: &RepositoryId,
        revision: &str,
        chosen: impl Fn(&Metadata, &Metadata) -> bool,
    ) -> anyhow::Result<Option<PathBuf>> {
        let Some(snapshot) = self.find(id, revision) else { return Ok(None) };
        let mut folders = vec![snapshot.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()? {
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                    continue;
                }
                // A link names the contents. Where there are no links, nothing does.
                let Ok(target) = fs::read_link(&path) else { continue };
                let name = target.file_name().unwrap_or_default().to_string_lossy();
                let found = match fs::metadata(&path) {
                    Ok(file) if chosen(&file, &entry.metadata()?) => {
                        difference(&path, &name).with_context(|| format!("cannot read {}", path.display()))?
                    }
                    Ok(_) => None,
                    Err(error) => Some(error.to_string()),
                };
                if let Some(found) = found {
                    let problem =
                        format!("{} is damaged: where {name} was fetched, there is now {found}", path.display());
                    return Err(failure(problem, format!("`ferule pull {id}` fetches it again")));
                }
            }
        }
        Ok(Some(snapshot))
    }

    fn find(&self, id: &RepositoryId, revision: &str) -> Option<PathBuf> {
        let repository = self.repository(id);
        let commit = match fs::read_to_string(repository.folder.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_string(),
            Err(_) => revision.to_string(),
        };
        let snapshot = repository.snapshot(&commit);
        snapshot.is_dir().then_some(snapshot)
    }
}

/// `HF_HOME`: the folder of the hub's clients.
fn home() -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("HF_HOME")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(folder("HOME")?.join(".cache/huggingface")))
        .ok_or_else(|| failure("no place for the cache", "set HF_HOME to a folder"))
}

/// The token for the hub: `HF_TOKEN`, or the file in which other clients have saved it.
pub fn token() -> Option<String> {
    let from_file = || {
        let path = std::env::var_os("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home().ok()?.join("token")))?;
        fs::read_to_string(path).ok()
    };
    let token = std::env::var("HF_TOKEN").ok().or_else(from_file)?;
    Some(token.trim().to_string()).filter(|token| !token.is_empty())
}

/// One repository in the cache.
#[derive(Clone, Debug)]
pub struct RepositoryCache {
    folder: PathBuf,
}

impl RepositoryCache {
    /// The repository's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of the contents with this etag, whether they exist or not.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The folder of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Makes `path` of a commit a link to the contents with this etag.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> io::Result<()> {
        let at = self.snapshot(commit).join(path);
        fs::create_dir_all(at.parent().expect("a file lies in a folder"))?;
        match fs::remove_file(&at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let up = "../".repeat(2 + path.matches('/').count());
        link(Path::new(&format!("{up}blobs/{etag}")), &at)
    }

    /// Stores the commit that `revision` points to.
    pub fn set_ref(&self, revision: &str, commit: &str) -> io::Result<()> {
        let at = self.folder.join("refs").join(revision);
        fs::create_dir_all(at.parent().expect("a ref lies in a folder"))?;
        fs::write(at, commit)
    }
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    fs::copy(at.parent().expect("a file lies in a folder").join(target), at).map(|_| ())
}
