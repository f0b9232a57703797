//! Asks the hub for the files of a repository, and for each file's etag, size and location.
//!
//! The token is sent to the hub alone: redirects to another host do not carry it.

use std::path::{Component, Path};

use anyhow::Context;
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::cache;
use super::repository_id::RepositoryId;
use crate::outcome::failure;

const PUBLIC_HUB: &str = "https://huggingface.co";

/// A hub, with the means to send requests to it.
pub struct Client {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// A repository at one commit.
pub struct Listing {
    /// The commit, as 40 hexadecimal digits.
    pub commit: String,
    /// Paths of its files.
    pub files: Vec<String>,
}

/// One file on the hub.
pub struct RemoteFile {
    /// The name of its contents: their SHA-256 for large files, git's id otherwise.
    pub etag: String,
    /// Its size, if the hub states it.
    pub size_bytes: Option<u64>,
}

impl Client {
    /// The hub at `HF_ENDPOINT`, or the public one.
    pub fn from_environment() -> Self {
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|url| !url.is_empty());
        let endpoint = endpoint.unwrap_or_else(|| PUBLIC_HUB.to_string());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(std::time::Duration::from_secs(20)))
            .timeout_recv_response(Some(std::time::Duration::from_secs(60)))
            .user_agent(concat!("ferule/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { endpoint: endpoint.trim_end_matches('/').to_string(), token: cache::token(), agent: config.into() }
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The files of a repository at a branch, tag or commit.
    pub fn list(&self, id: &RepositoryId, revision: &str) -> anyhow::Result<Listing> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let url = format!("{}/api/models/{id}/revision/{}", self.endpoint, escape(revision));
        let mut response = self.get(&url, None)?;
        check_status(&response, &url, || format!("{id} at revision {revision}"))?;
        let info: Info = serde_json::from_reader(response.body_mut().as_reader())
            .with_context(|| format!("{url}: not the answer of a hub"))?;
        if info.sha.len() != 40 || !info.sha.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(failure(format!("{url}: `{}` is no commit", info.sha), "is HF_ENDPOINT a hub?"));
        }
        let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if let Some(path) = files.iter().find(|path| !is_plain(path)) {
            return Err(failure(format!("{url}: `{path}` would leave its folder"), "do not trust this repository"));
        }
        Ok(Listing { commit: info.sha, files })
    }

    /// The hub's description of a file.
    pub fn describe(&self, url: &str) -> anyhow::Result<RemoteFile> {
        let mut url = url.to_string();
        for _ in 0..5 {
            let request = self.agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            let request = request.header("accept-encoding", "identity");
            let request = match &self.token {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            let response = request.call().with_context(|| format!("cannot reach {url}\n{HINT_NETWORK}"))?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            // The hub redirects a renamed repository to another path of the same hub.
            if let Some(path) =
                header("location").filter(|to| to.starts_with('/') && response.status().is_redirection())
                && header("x-linked-etag").is_none()
            {
                url = format!("{}{path}", self.endpoint);
                continue;
            }
            if !response.status().is_redirection() {
                check_status(&response, &url, || url.clone())?;
            }
            let etag =
                header("x-linked-etag").or(header("etag")).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            let etag =
                etag.filter(|etag| !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
            let Some(etag) = etag else {
                return Err(failure(format!("{url}: the server does not name the contents"), "is HF_ENDPOINT a hub?"));
            };
            let size = header("x-linked-size")
                .or_else(|| header("content-length").filter(|_| !response.status().is_redirection()));
            return Ok(RemoteFile { etag: etag.to_string(), size_bytes: size.and_then(|size| size.parse().ok()) });
        }
        Err(failure(format!("{url}: redirected too often"), "is HF_ENDPOINT a hub?"))
    }

    /// The address of a repository's file.
    pub fn url(&self, id: &RepositoryId, commit: &str, path: &str) -> String {
        let path: Vec<String> = path.split('/').map(escape).collect();
        format!("{}/{id}/resolve/{commit}/{}", self.endpoint, path.join("/"))
    }

    /// The contents at `url`, from byte `from` on if it is given.
    pub fn get(&self, url: &str, from: Option<u64>) -> anyhow::Result<Response<Body>> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().with_context(|| format!("cannot reach {url}\n{HINT_NETWORK}"))
    }
}

const HINT_NETWORK: &str = "hint: check the network, HF_ENDPOINT and HTTPS_PROXY; run the command again to resume";

/// Turns a refusal of the hub into an error with a hint.
pub fn check_status(response: &Response<Body>, url: &str, what: impl Fn() -> String) -> anyhow::Result<()> {
    let status = response.status();
    let hint = match status.as_u16() {
        200..=299 => return Ok(()),
        401 | 403 => "set HF_TOKEN to a token that may read it; a gated model's terms are accepted on its page",
        404 => "check owner, name and revision for a slip",
        429 => "the hub asks for patience: run the command again in a few minutes",
        500..=599 => "the hub has a problem: run the command again later",
        _ => "is HF_ENDPOINT a hub?",
    };
    Err(failure(format!("{}: the hub answers {status} ({url})", what()), hint))
}

/// Whether a path stays inside its repository.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)))
}

/// A path segment, escaped for a URL.
fn escape(segment: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    segment
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_and_paths_stay_inside() {
        assert_eq!(escape("refs/pr/1 a.json"), "refs%2Fpr%2F1%20a.json");
        assert!(is_plain("onnx/model.onnx"));
        for path in ["", "/etc/passwd", "../a", "a/../../b", "a\\b"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
