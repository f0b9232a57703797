//! `ferule serve`: a model behind OpenAI's API, and the first half of the flywheel: collecting, feedback, review.
//!
//! | file | what it does |
//! |---|---|
//! | [`job`] | a request, and what is known about the model |
//! | [`engine`], [`batch`] | a running model, and the thread that owns it and answers all requests in one batch |
//! | [`form`] | turns messages into a prompt |
//! | [`chat`] | parses requests and writes answers |
//! | [`completions`] | the handler: from a request to its answer, in one response or as a stream |
//! | [`upstream`], [`forward`], [`event_lines`] | an endpoint with the same API in place of a model |
//! | [`access`] | keys, and the host names under which a server may be addressed |
//! | [`server`] | what all handlers share |
//! | [`listener`] | connections: their number, their slowness, and their end |
//! | [`feedback`], [`review`] | clients' feedback and people's verdicts |
//! | [`metrics`] | metrics for Prometheus |
//!
//! `openapi.json` describes all routes and is served too.
//!
//! A change is on the disk before it is acknowledged: with `--collect`, the last piece of an answer is sent after the
//! exchange is on the disk. The server never trains, and it sends data only to its clients and to the upstream that was
//! allowed.

pub mod access;
pub mod batch;
pub mod chat;
pub mod completions;
pub mod engine;
pub mod event_lines;
pub mod feedback;
pub mod form;
pub mod forward;
pub mod job;
pub mod listener;
pub mod metrics;
pub mod problem;
pub mod review;
pub mod server;
pub mod sessions;
pub mod upstream;

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;

use listener::Patience;
use problem::Problem;
use server::{Caller, Server, Source};

/// What [`router`] offers; a test compares the two.
const OPENAPI: &str = include_str!("openapi.json");

/// All routes. The key is checked before a body is read.
pub fn router(server: Arc<Server>) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(completions::complete))
        .route("/v1/models", get(list_models))
        .route("/v1/feedback", post(feedback::give))
        .route("/metrics", get(show_metrics))
        .route_layer(from_fn_with_state(server.clone(), with_body))
        .route_layer(from_fn_with_state(server.clone(), with_key));
    Router::new()
        .merge(api)
        .merge(review::router().route_layer(from_fn_with_state(server.clone(), with_body)))
        .route("/health", get(health))
        .route("/openapi.json", get(describe))
        .fallback(|| async { Problem::not_found("there is nothing here; see /v1/models") })
        .method_not_allowed_fallback(|| async { Problem::wrong_method() })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(server.clone(), from_here))
        .with_state(server)
}

/// Accepts only requests with a valid key.
async fn with_key(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    match server.keys.caller(request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(Caller(caller));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// A body of more bytes than this has to wait for its turn.
const LARGE_BODY: u64 = 64 << 10;

/// Reads the body within the limits of size, time and number.
async fn with_body(
    State(server): State<Arc<Server>>,
    Extension(patience): Extension<Patience>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let limit = server.body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Problem::too_large(limit).into_response();
    }
    // A body of unknown length counts as a large one.
    let _turn = match body.size_hint().upper().is_none_or(|bytes| bytes > LARGE_BODY) {
        true => match tokio::time::timeout(patience.body, server.large_bodies.acquire()).await {
            Ok(turn) => Some(turn),
            Err(_) => return Problem::too_many_large().into_response(),
        },
        false => None,
    };
    match tokio::time::timeout(patience.body, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, body.to_bytes().into())).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => Problem::too_large(limit).into_response(),
        Ok(Err(_)) => Problem::malformed("the body ended early or is not well-formed").into_response(),
        Err(_) => Problem::too_slow().into_response(),
    }
}

/// Refuses requests that another site's page made a browser send, and counts the answers.
async fn from_here(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let response = match access::check_source(server.address, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    server.metrics.answered(response.status().as_u16());
    response
}

/// Whether the server answers requests.
async fn health(State(server): State<Arc<Server>>) -> Response {
    match server.engine().is_none_or(|engine| engine.is_alive()) {
        true => Json(json!({ "status": "ok" })).into_response(),
        false => Problem::stopped().into_response(),
    }
}

/// The API, in OpenAPI's form.
async fn describe() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn show_metrics(State(server): State<Arc<Server>>) -> Response {
    let text = server.metrics.text(server.engine().as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn list_models(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let model = |id: &str, digest: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "ferule", "digest": digest });
    match (&server.source, server.engine()) {
        (Source::Upstream(upstream), _) => upstream.models().await,
        (_, Some(engine)) => {
            let list = [model(&server.name, &engine.model().digest)];
            Ok(Json(json!({ "object": "list", "data": list })).into_response())
        }
        (Source::Model(_), None) => Err(Problem::gone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).unwrap();
        let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let routes =
            |source: &'static str| source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        // This line is no route.
        let here = include_str!("mod.rs").split("mod tests").next().unwrap();
        let routed: BTreeSet<&str> = routes(here).chain(routes(include_str!("review/mod.rs"))).collect();
        assert_eq!(described, routed);
    }
}
