//! Requests to an upstream, and its answers.
//!
//! The client's key stays here, and so does who asks. The upstream's id of an answer is replaced by one of this server, which cannot be guessed.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use store::data_folder::exchanges::Exchange;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;

use super::chat::Asked;
use super::problem::Problem;
use super::server::{Server, collect, frame, fresh_id};
use super::upstream::{MOST_BYTES, Upstream, read_whole};

/// Sends a request on and brings the answer back.
///
/// # Errors
/// An upstream that cannot be reached, sends elsewhere or answers with something that is no answer; what it refuses is passed on with its status.
pub async fn complete(
    upstream: &Upstream,
    server: Arc<Server>,
    caller: Option<String>,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut body: Value = serde_json::from_slice(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    // Whether an exchange may be kept, and who asks, is between the client and this server.
    if let Some(body) = body.as_object_mut() {
        body.remove("store");
        body.remove("user");
    }
    let (id, began, stream) = (fresh_id()?, Instant::now(), asked.stream);
    let name = asked.model.clone().unwrap_or_default();
    let exchange = Exchange {
        id: id.clone(),
        api_key: caller,
        user: asked.user.clone(),
        model: format!("{}#{name}", upstream.base()),
        messages: Value::from(asked.messages.clone()).to_string(),
        ..Exchange::default()
    };
    let mut response = upstream.send(body.to_string()).await?;
    let status = response.status();
    if status.is_redirection() {
        return Err(Problem::upstream("the upstream sends elsewhere, and redirects are not followed"));
    }
    let keep = asked.store;
    if stream && status.is_success() {
        let (send, pieces) = mpsc::channel::<Result<Bytes, Infallible>>(64);
        let runtime = tokio::runtime::Handle::current();
        let reader = response.into_body().into_reader();
        std::thread::spawn(move || pass_on(reader, exchange, began, keep, &server, &runtime, &send));
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        return Ok((headers, Body::from_stream(ReceiverStream::new(pieces))).into_response());
    }
    let text = tokio::task::spawn_blocking(move || read_whole(response.body_mut().as_reader()));
    let text = text.await.map_err(|_| Problem::gone())??;
    let mut answer: Value =
        serde_json::from_slice(&text).map_err(|_| Problem::upstream("the upstream's answer is no JSON"))?;
    if !status.is_success() {
        let status = StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        // What is wrong with this server's key is nothing that its clients can mend.
        let hidden = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        return match hidden {
            true => Err(Problem::upstream("the upstream refuses this server's key")),
            false => Ok((status, axum::Json(answer)).into_response()),
        };
    }
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
    answer["id"] = id.into();
    if keep {
        collect(&server, kept).await?;
    }
    server.metrics.finished(began, answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize);
    Ok(axum::Json(answer).into_response())
}

/// Passes a stream on, event by event. The exchange is on the disk before the end is sent.
fn pass_on(
    reader: impl Read,
    mut exchange: Exchange,
    began: Instant,
    keep: bool,
    server: &Server,
    runtime: &tokio::runtime::Handle,
    send: &Sender<Result<Bytes, Infallible>>,
) {
    let mut ended = false;
    for line in BufReader::new(reader.take(MOST_BYTES)).lines() {
        let Ok(line) = line else { break };
        let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
        if data == "[DONE]" {
            ended = true;
            break;
        }
        let Ok(mut event) = serde_json::from_str::<Value>(data) else { continue };
        let first = &event["choices"][0];
        if first["index"].as_u64().unwrap_or(0) == 0 {
            exchange.completion += first["delta"]["content"].as_str().unwrap_or_default();
            exchange.finish += first["finish_reason"].as_str().unwrap_or_default();
        }
        event["id"] = exchange.id.clone().into();
        // The client has left: the upstream sees the connection close.
        if send.blocking_send(Ok(frame(event))).is_err() {
            return;
        }
    }
    exchange.latency_ms = began.elapsed().as_millis() as u64;
    server.metrics.finished(began, 0);
    let end = match (ended, keep) {
        (false, _) => frame(Problem::upstream("the upstream broke off").json()),
        (true, false) => frame("[DONE]"),
        (true, true) => match runtime.block_on(collect(server, exchange)) {
            Ok(()) => frame("[DONE]"),
            Err(problem) => frame(problem.json()),
        },
    };
    let _ = send.blocking_send(Ok(end));
}
