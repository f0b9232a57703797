//! The ids of a hub's repositories. An id is a name and never a path.

use std::fmt;

/// The id of a repository: `owner/name`, or `name` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// Parses an id; none for a text that cannot be one.
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
    pub fn folder_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
