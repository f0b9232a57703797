//! Asks the hub for the files of a repository, and for each file's etag, size and contents.
//!
//! The token is sent only to the hub itself: same scheme, same host, same port. A hub that falls silent, never ends or
//! turns from HTTPS to HTTP is given up.

use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::cache;
use super::repository_id::RepositoryId;
use crate::outcome::{WrongUse, failure};

const PUBLIC_HUB: &str = "https://huggingface.co";

/// The longest list of a repository's files: in bytes, in files, and the longest time that it may take.
const LISTING_BYTES: u64 = 16 << 20;
const LISTING_FILES: usize = 100_000;
const LISTING_TIME: Duration = Duration::from_secs(60);

/// The most redirections that one request follows.
const REDIRECTIONS: usize = 5;

/// A hub, with the means to send requests to it.
pub struct Client {
    /// Its address. It may hold a name and a password, which are never shown.
    endpoint: Uri,
    token: Option<String>,
    agent: Agent,
    /// The longest time for which the hub may be silent.
    silence: Duration,
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
    /// Its size.
    pub size_bytes: u64,
}

/// What is asked of an address.
#[derive(Clone, Copy)]
enum Ask {
    /// What the hub says about the contents, without them.
    Description,
    /// The contents from a byte on, within a time.
    Contents { from: u64, time: Duration },
}

impl Client {
    /// The hub at `HF_ENDPOINT`, or the public one.
    ///
    /// # Errors
    /// `HF_ENDPOINT` or `HF_HUB_DOWNLOAD_TIMEOUT` makes no sense.
    pub fn from_environment() -> anyhow::Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.to_string());
        let endpoint = address(endpoint.trim_end_matches('/')).filter(|endpoint| endpoint.query().is_none());
        let endpoint = endpoint.ok_or_else(|| {
            WrongUse::error("HF_ENDPOINT is not the address of a hub", format!("write one such as {PUBLIC_HUB}"))
        })?;
        let seconds = set("HF_HUB_DOWNLOAD_TIMEOUT").map_or(Some(10), |text| text.parse().ok().filter(|&s| s > 0));
        let silence = seconds.map(Duration::from_secs).ok_or_else(|| {
            let hint = "give the seconds for which the hub may be silent, such as 10";
            WrongUse::error("HF_HUB_DOWNLOAD_TIMEOUT is not a number of seconds", hint)
        })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(silence))
            .timeout_connect(Some(silence))
            .timeout_send_request(Some(silence))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .user_agent(concat!("ferule/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { endpoint, token: cache::token(), agent: config.into(), silence })
    }

    /// The hub's address, as it may be shown.
    pub fn endpoint(&self) -> String {
        shown(&self.endpoint)
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
        let url = self.address(format_args!("/api/models/{id}/revision/{}", escape(revision)))?;
        let mut response = self.send(&url, Ask::Contents { from: 0, time: LISTING_TIME })?;
        check_status(&response, &url, || format!("{id} at revision {revision}"))?;
        let url = shown(&url);
        let mut body = Vec::new();
        let read = response.body_mut().as_reader().take(LISTING_BYTES + 1).read_to_end(&mut body);
        read.map_err(|error| self.broken(&error)).with_context(|| format!("{url}\n{HINT_NETWORK}"))?;
        let too_long = || {
            let problem =
                format!("{url}: the list of files is longer than {LISTING_BYTES} bytes or {LISTING_FILES} files");
            failure(problem, "is HF_ENDPOINT a hub?")
        };
        if body.len() as u64 > LISTING_BYTES {
            return Err(too_long());
        }
        let info: Info = serde_json::from_slice(&body).with_context(|| format!("{url}: not the answer of a hub"))?;
        if info.siblings.len() > LISTING_FILES {
            return Err(too_long());
        }
        if info.sha.len() != 40 || !info.sha.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(failure(format!("{url}: `{}` is no commit", info.sha), "is HF_ENDPOINT a hub?"));
        }
        let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if let Some(path) = files.iter().find(|path| !is_plain(path)) {
            return Err(failure(format!("{url}: `{path}` is no path inside a folder"), "do not trust this repository"));
        }
        Ok(Listing { commit: info.sha, files })
    }

    /// The hub's description of a file.
    pub fn describe(&self, url: &Uri) -> anyhow::Result<RemoteFile> {
        let response = self.send(url, Ask::Description)?;
        if !response.status().is_redirection() {
            check_status(&response, url, || shown(url))?;
        }
        let header = |name: &str| header(&response, name);
        let etag = header("x-linked-etag").or(header("etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let is_name = |etag: &&str| {
            (1..=128).contains(&etag.len()) && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let size = header("x-linked-size")
            .or_else(|| header("content-length").filter(|_| !response.status().is_redirection()));
        match (etag.filter(is_name), size.and_then(|size| size.parse().ok())) {
            (Some(etag), Some(size_bytes)) => Ok(RemoteFile { etag: etag.to_string(), size_bytes }),
            _ => {
                let problem = format!("{}: the server does not name the contents and their size", shown(url));
                Err(failure(problem, "is HF_ENDPOINT a hub?"))
            }
        }
    }

    /// The address of a repository's file.
    pub fn url(&self, id: &RepositoryId, commit: &str, path: &str) -> anyhow::Result<Uri> {
        let path: Vec<String> = path.split('/').map(escape).collect();
        self.address(format_args!("/{id}/resolve/{commit}/{}", path.join("/")))
    }

    fn address(&self, path: fmt::Arguments) -> anyhow::Result<Uri> {
        let url = format!("{}{path}", self.endpoint.to_string().trim_end_matches('/'));
        address(&url).ok_or_else(|| failure("the address of the file is too long", "do not trust this repository"))
    }

    /// The contents at `url` from byte `from` on, which must come within `time`.
    pub fn get(&self, url: &Uri, from: u64, time: Duration) -> anyhow::Result<Response<Body>> {
        self.send(url, Ask::Contents { from, time })
    }

    /// Says why reading broke off.
    pub fn broken(&self, error: &io::Error) -> anyhow::Error {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
        match cause {
            Some(ureq::Error::Timeout(ureq::Timeout::PerRead)) => {
                anyhow::anyhow!("the hub sent nothing for {} s", self.silence.as_secs())
            }
            Some(ureq::Error::Timeout(_)) => anyhow::anyhow!("the hub sends too slowly"),
            _ => anyhow::anyhow!("the connection ended early: {error}"),
        }
    }

    /// Sends a request and follows redirections. A description that is found on the way ends it.
    fn send(&self, url: &Uri, ask: Ask) -> anyhow::Result<Response<Body>> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTIONS {
            let request = match ask {
                Ask::Description => self.agent.head(&at).header("accept-encoding", "identity"),
                Ask::Contents { from, time } => {
                    let request = self.agent.get(&at).config().timeout_recv_body(Some(time)).build();
                    if from == 0 { request } else { request.header("range", format!("bytes={from}-")) }
                }
            };
            let request = match self.token.as_ref().filter(|_| origin(&at) == origin(&self.endpoint)) {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            let response = request.call().with_context(|| format!("cannot reach {}\n{HINT_NETWORK}", shown(&at)))?;
            let described = matches!(ask, Ask::Description) && header(&response, "x-linked-etag").is_some();
            let Some(to) = header(&response, "location").filter(|_| response.status().is_redirection() && !described)
            else {
                return Ok(response);
            };
            let target = redirected(&at, to).filter(|to| to.scheme() == at.scheme() || at.scheme_str() == Some("http"));
            at = target.ok_or_else(|| {
                let problem = format!("{}: it redirects to an address that is not followed", shown(&at));
                failure(problem, "is HF_ENDPOINT a hub?")
            })?;
        }
        Err(failure(format!("{}: redirected too often", shown(url)), "is HF_ENDPOINT a hub?"))
    }
}

const HINT_NETWORK: &str = "hint: check the network, HF_ENDPOINT and HTTPS_PROXY; run the command again to resume";

/// Turns a refusal of the hub into an error with a hint.
pub fn check_status(response: &Response<Body>, url: &Uri, what: impl Fn() -> String) -> anyhow::Result<()> {
    let status = response.status();
    let hint = match status.as_u16() {
        200..=299 => return Ok(()),
        401 | 403 => "set HF_TOKEN to a token that may read it; a gated model's terms are accepted on its page",
        404 => "check owner, name and revision for a slip",
        429 => "the hub asks for patience: run the command again in a few minutes",
        500..=599 => "the hub has a problem: run the command again later",
        _ => "is HF_ENDPOINT a hub?",
    };
    Err(failure(format!("{}: the hub answers {status} ({})", what(), shown(url)), hint))
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The absolute address that a text is, if it is one that this client can use.
fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    usable.then_some(uri)
}

/// The address to which `at` redirects.
fn redirected(at: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    match to {
        _ if to.starts_with("//") => address(&format!("{scheme}:{to}")),
        _ if to.starts_with('/') => address(&format!("{scheme}://{authority}{to}")),
        _ => address(to),
    }
}

/// Scheme, host and port: who answers at an address.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), uri.port_u16().or(Some(usual)))
}

/// An address without name, password and query, which may be secrets.
fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{place}{}", uri.scheme_str().unwrap_or_default(), uri.path().trim_end_matches('/'))
}

/// Whether a path stays inside its repository, and is no longer than file systems take.
fn is_plain(path: &str) -> bool {
    (1..=4096).contains(&path.len())
        && !path.contains(['\\', '\0'])
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
        for path in ["", "/etc/passwd", "../a", "a/../../b", "a\\b", "a\0b", &"a".repeat(5000)] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn a_hub_is_its_scheme_host_and_port() {
        let of = |text: &str| address(text).unwrap();
        let same = |one: &str, other: &str| origin(&of(one)) == origin(&of(other));
        assert!(same("https://hub.example/a", "https://user:secret@HUB.example:443/b"));
        for other in ["http://hub.example", "https://hub.example:8443", "https://cdn.hub.example", "https://hub"] {
            assert!(!same("https://hub.example", other), "{other}");
        }
        assert_eq!(shown(&of("https://me:secret@hub.example:1/a/?signature=secret")), "https://hub.example:1/a");
        let from = |to: &str| redirected(&of("https://hub.example/a"), to).map(|to| to.to_string());
        assert_eq!(from("/b?c").as_deref(), Some("https://hub.example/b?c"));
        assert_eq!(from("//cdn.example/b").as_deref(), Some("https://cdn.example/b"));
        assert_eq!(from("http://cdn.example/b").as_deref(), Some("http://cdn.example/b"));
        for to in ["b", "", "file:///etc/passwd", "ftp://a/b", "http://"] {
            assert_eq!(from(to), None, "{to}");
        }
    }
}
