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
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use problem::Problem;
use server::{Caller, Server, Source};

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

/// The longest time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Reads the body within the limits of size and time.
async fn with_body(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, server.body_bytes)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => Problem::too_large(server.body_bytes).into_response(),
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
