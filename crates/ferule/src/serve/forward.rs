//! Forwards requests to an upstream and returns its answers.
//!
//! The client's key and the user's name are not forwarded. The upstream's id of an answer is replaced by an unguessable
//! one of this server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Response as HttpResponse, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use store::data_folder::exchanges::Exchange;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::chat::Asked;
use super::event_lines::EventLines;
use super::problem::Problem;
use super::server::{Server, collect, frame, fresh_id};
use super::upstream::{MOST_BYTES, Upstream, read_whole};

/// The longest pause in a stream.
const SILENCE: Duration = Duration::from_secs(300);
/// Fields for this server alone: whether an exchange may be kept, and who asks.
const OWN_FIELDS: [&str; 3] = ["store", "user", "safety_identifier"];

/// Forwards a request and returns the answer.
///
/// # Errors
/// An upstream that cannot be reached, redirects, fails, or returns an invalid answer. If it refuses the request as the
/// client's mistake, its refusal is passed on with its status.
pub async fn complete(
    upstream: &Upstream,
    server: Arc<Server>,
    caller: Option<String>,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Problem> {
    let place = upstream.reserve()?;
    let mut body: Value = serde_json::from_slice(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    if let Some(body) = body.as_object_mut() {
        OWN_FIELDS.iter().for_each(|field| drop(body.remove(*field)));
    }
    let (id, began) = (fresh_id()?, Instant::now());
    let name = asked.model.clone().unwrap_or_default();
    let exchange = Exchange {
        id: id.clone(),
        api_key: caller,
        user: asked.user.clone(),
        model: format!("{}#{name}", upstream.base()),
        messages: Value::from(asked.messages.clone()).to_string(),
        ..Exchange::default()
    };
    let response = upstream.send(body.to_string()).await?;
    if !response.status().is_success() {
        return refused(response).await;
    }
    server.metrics.begun(began);
    if asked.stream {
        let (send, pieces) = mpsc::channel::<Result<Bytes, Infallible>>(64);
        let passing = Passing { exchange, began, keep: asked.store, server, send, _place: place };
        tokio::spawn(passing.run(response.into_body()));
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        return Ok((headers, Body::from_stream(ReceiverStream::new(pieces))).into_response());
    }
    let text = read_whole(response.into_body()).await?;
    let mut answer: Value =
        serde_json::from_slice(&text).map_err(|_| Problem::upstream("the upstream's answer is no JSON"))?;
    let first = &answer["choices"][0];
    let Some(completion) = first["message"]["content"].as_str() else {
        return Err(Problem::upstream("the upstream's answer holds no text"));
    };
    let kept = Exchange {
        completion: completion.to_string(),
        finish: first["finish_reason"].as_str().unwrap_or_default().to_string(),
        latency_ms: began.elapsed().as_millis() as u64,
        ..exchange
    };
    let tokens = |of: &str| answer["usage"][of].as_u64().unwrap_or(0) as usize;
    server.metrics.accepted(tokens("prompt_tokens"));
    server.metrics.finished(began, tokens("completion_tokens"));
    answer["id"] = id.into();
    if asked.store {
        collect(&server, kept).await?;
    }
    Ok(axum::Json(answer).into_response())
}

/// The response if the upstream gives no answer: the client's own mistakes in the upstream's words, everything else as
/// a failure of the upstream.
async fn refused(response: HttpResponse<Body>) -> Result<Response, Problem> {
    let (status, retry) = (response.status(), response.headers().get(header::RETRY_AFTER).cloned());
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Problem::upstream("the upstream refuses this server's key"));
    }
    let text = read_whole(response.into_body()).await?;
    let said = serde_json::from_slice(&text).ok().filter(|said: &Value| said.get("error").is_some());
    match said.filter(|_| status.is_client_error()) {
        Some(said) => {
            let mut response = (status, axum::Json(said)).into_response();
            response.headers_mut().extend(retry.map(|retry| (header::RETRY_AFTER, retry)));
            Ok(response)
        }
        None => Err(Problem::upstream(format!("the upstream answers with status {}", status.as_u16()))),
    }
}

/// A stream from the upstream to a client.
struct Passing {
    exchange: Exchange,
    began: Instant,
    keep: bool,
    server: Arc<Server>,
    send: Sender<Result<Bytes, Infallible>>,
    _place: OwnedSemaphorePermit,
}

/// Why a stream ended too early.
enum Ended {
    /// The client has disconnected.
    Left,
    /// The upstream disconnected, or sent something that is not a stream of events.
    Broken(&'static str),
}

impl Passing {
    /// Passes a stream on, event by event. The exchange is on the disk before the last event is sent.
    async fn run(mut self, body: Body) {
        let tokens = match self.events(body).await {
            Ok(tokens) => tokens,
            Err(Ended::Left) => return,
            Err(Ended::Broken(why)) => {
                let _ = self.send.send(Ok(frame(Problem::upstream(why).json()))).await;
                return;
            }
        };
        self.exchange.latency_ms = self.began.elapsed().as_millis() as u64;
        self.server.metrics.finished(self.began, tokens);
        let kept = if self.keep { collect(&self.server, self.exchange).await } else { Ok(()) };
        let end = kept.map_or_else(|problem| frame(problem.json()), |()| frame("[DONE]"));
        let _ = self.send.send(Ok(end)).await;
    }

    /// Passes on all events but the last. Returns the number of tokens, if the upstream states it.
    async fn events(&mut self, body: Body) -> Result<usize, Ended> {
        let mut pieces = body.into_data_stream();
        let mut lines = EventLines::default();
        let (mut bytes, mut tokens) = (0, 0);
        loop {
            let piece = tokio::select! {
                piece = timeout(SILENCE, pieces.next()) => piece,
                () = self.send.closed() => return Err(Ended::Left),
            };
            let piece = match piece {
                Ok(Some(Ok(piece))) => piece,
                Ok(_) => return Err(Ended::Broken("the upstream broke off")),
                Err(_) => return Err(Ended::Broken("the upstream fell silent")),
            };
            bytes += piece.len();
            if bytes > MOST_BYTES {
                return Err(Ended::Broken("the upstream's answer is too long"));
            }
            for data in lines.push(&piece) {
                if data == "[DONE]" {
                    return Ok(tokens);
                }
                let Ok(Value::Object(mut event)) = serde_json::from_str(&data) else {
                    return Err(Ended::Broken("the upstream's stream is no stream of answers"));
                };
                if event.contains_key("error") {
                    return Err(Ended::Broken("the upstream failed while it answered"));
                }
                let first = event.get("choices").map_or(&Value::Null, |choices| &choices[0]);
                if first["index"].as_u64().unwrap_or(0) == 0 {
                    self.exchange.completion += first["delta"]["content"].as_str().unwrap_or_default();
                    self.exchange.finish += first["finish_reason"].as_str().unwrap_or_default();
                }
                tokens = event.get("usage").and_then(|usage| usage["completion_tokens"].as_u64()).unwrap_or(0) as usize;
                event.insert("id".into(), self.exchange.id.clone().into());
                self.send.send(Ok(frame(Value::Object(event)))).await.map_err(|_| Ended::Left)?;
            }
        }
    }
}
