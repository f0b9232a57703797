//! An upstream in place of a model: an endpoint with the same API.
//!
//! Its host must have been allowed by name. Redirects are not followed, and no proxy is used. If the client
//! disconnects, the request's future is dropped, which closes the connection to the upstream.
//!
//! Read next: `forward.rs`, the handler.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response as HttpResponse, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::Problem;
use crate::outcome::{WrongUse, failure};

/// The largest answer, in bytes.
pub const MOST_BYTES: usize = 64 << 20;
/// The longest time until an answer begins. An answer that is not streamed begins when it is complete.
const ANSWER_TIME: Duration = Duration::from_secs(600);
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// An endpoint.
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    key: Option<String>,
    places: Arc<Semaphore>,
}

impl Upstream {
    /// The endpoint at `base`, such as `http://127.0.0.1:8000/v1`.
    ///
    /// * `allowed`: the hosts to which requests may be sent.
    /// * `key`: this server's own key for the endpoint.
    /// * `places`: the largest number of requests at once.
    ///
    /// # Errors
    /// An invalid address, or one whose host was not allowed.
    pub fn new(base: &str, allowed: &[String], key: Option<String>, places: usize) -> anyhow::Result<Upstream> {
        let uri: Uri = base.parse().map_err(|error| {
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
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIME));
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(connector);
        let base = base.trim_end_matches('/').to_string();
        let base = if base.ends_with("/v1") { base } else { format!("{base}/v1") };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Upstream { client, base, key, places: Arc::new(Semaphore::new(places)) })
    }

    /// Reserves a place for a request. It is held until the answer has ended.
    ///
    /// # Errors
    /// 429 if no place is free.
    pub fn reserve(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.places.clone().try_acquire_owned().map_err(|_| Problem::busy())
    }

    /// The upstream's response to `/v1/models`.
    ///
    /// # Errors
    /// An upstream that cannot be reached or fails.
    pub async fn models(&self) -> Result<Response, Problem> {
        let answer = self.ask("GET", "models", Body::empty()).await?;
        if !answer.status().is_success() {
            return Err(Problem::upstream(format!("the upstream answers with status {}", answer.status().as_u16())));
        }
        let text = read_whole(answer.into_body()).await?;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    /// Sends a body to the endpoint's chat completions.
    ///
    /// # Errors
    /// An upstream that cannot be reached, does not answer in time, or redirects.
    pub async fn send(&self, body: String) -> Result<HttpResponse<Body>, Problem> {
        self.ask("POST", "chat/completions", body.into()).await
    }

    async fn ask(&self, method: &str, path: &str, body: Body) -> Result<HttpResponse<Body>, Problem> {
        let mut request = Request::builder().method(method).uri(format!("{}/{path}", self.base));
        if method == "POST" {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(body).map_err(|error| Problem::failed(error.to_string()))?;
        match timeout(ANSWER_TIME, self.client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_redirection() => {
                Err(Problem::upstream("the upstream sends elsewhere, and redirects are not followed"))
            }
            Ok(Ok(answer)) => Ok(answer.map(Body::new)),
            Ok(Err(error)) => Err(Problem::upstream(format!("the upstream cannot be reached: {error}"))),
            Err(_) => Err(Problem::upstream("the upstream does not answer")),
        }
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }
}

/// Reads a whole answer, within limits of size and time.
///
/// # Errors
/// An answer that is too long, too slow or incomplete.
pub async fn read_whole(body: Body) -> Result<Bytes, Problem> {
    match timeout(ANSWER_TIME, axum::body::to_bytes(body, MOST_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Problem::upstream(format!("the upstream broke off, or its answer is too long: {error}"))),
        Err(_) => Err(Problem::upstream("the upstream does not come to an end")),
    }
}
