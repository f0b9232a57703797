//! A black box in place of a model: an endpoint that speaks the same API.
//!
//! The address must have been allowed by name, redirects are not followed, and no proxy is used.
//!
//! Read next: `forward.rs`, the handler.

use std::io::Read;
use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use ureq::Agent;

use super::problem::Problem;
use crate::outcome::{WrongUse, failure};

/// The most bytes of an answer that does not stream.
pub const MOST_BYTES: u64 = 64 << 20;

/// An endpoint.
pub struct Upstream {
    agent: Agent,
    base: String,
    key: Option<String>,
}

impl Upstream {
    /// The endpoint at `base`, such as `http://127.0.0.1:8000/v1`.
    ///
    /// * `allowed`: the hosts to which something may be sent.
    /// * `key`: this server's own key for it.
    ///
    /// # Errors
    /// No address, or one whose host was not allowed.
    pub fn new(base: &str, allowed: &[String], key: Option<String>) -> anyhow::Result<Upstream> {
        let uri: axum::http::Uri = base.parse().map_err(|error| {
            WrongUse::error(format!("--upstream {base}: {error}"), "give an address such as http://127.0.0.1:8000/v1")
        })?;
        let host = uri.host().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))).ok_or_else(|| {
            WrongUse::error(format!("--upstream {base} is no address"), "give one such as http://127.0.0.1:8000/v1")
        })?;
        if !allowed.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            let hint = format!("if prompts may go there, say so with --allow-egress {host}");
            return Err(WrongUse::error(format!("nothing may be sent to {host}"), hint));
        }
        if key.as_ref().is_some_and(|key| key.chars().any(|c| c.is_control() || !c.is_ascii())) {
            return Err(failure(
                "the upstream's key holds characters that no key has",
                "write the key alone into its file",
            ));
        }
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(600)))
            .build();
        let base = base.trim_end_matches('/').to_string();
        let base = if base.ends_with("/v1") { base } else { format!("{base}/v1") };
        Ok(Upstream { agent: config.into(), base, key })
    }

    /// What the upstream answers to `/v1/models`.
    ///
    /// # Errors
    /// An upstream that cannot be reached or fails.
    pub async fn models(&self) -> Result<Response, Problem> {
        let (agent, url, key) = (self.agent.clone(), format!("{}/models", self.base), self.key.clone());
        let work = move || {
            let mut request = agent.get(&url);
            if let Some(key) = key {
                request = request.header("authorization", format!("Bearer {key}"));
            }
            let mut response = request.call().map_err(|error| unreachable_now(&error))?;
            read_whole(response.body_mut().as_reader())
        };
        let text = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::gone())??;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    /// Sends a body to the endpoint's chat completions.
    ///
    /// # Errors
    /// An upstream that cannot be reached.
    pub async fn send(&self, body: String) -> Result<ureq::http::Response<ureq::Body>, Problem> {
        let (agent, url, key) = (self.agent.clone(), format!("{}/chat/completions", self.base), self.key.clone());
        let work = move || {
            let mut request = agent.post(&url).header("content-type", "application/json");
            if let Some(key) = key {
                request = request.header("authorization", format!("Bearer {key}"));
            }
            request.send(body.as_bytes()).map_err(|error| unreachable_now(&error))
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Problem::gone())?
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }
}

fn unreachable_now(error: &ureq::Error) -> Problem {
    Problem::upstream(format!("the upstream cannot be reached: {error}"))
}

/// Reads an answer to its end, within a limit.
///
/// # Errors
/// One that is too long or breaks off.
pub fn read_whole(reader: impl Read) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = reader.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 <= MOST_BYTES => Ok(bytes),
        Ok(_) => Err(Problem::upstream("the upstream's answer is too long")),
        Err(error) => Err(Problem::upstream(format!("the upstream broke off: {error}"))),
    }
}
