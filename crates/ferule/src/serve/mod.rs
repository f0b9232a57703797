//! `ferule serve`: a model behind the API that OpenAI's clients speak, and the wheel's first half: collecting, feedback, review.
//!
//! | file | what it does |
//! |---|---|
//! | [`job`] | a request on its way, and what is known of the model |
//! | [`engine`], [`batch`] | a running model, and the thread that owns it and answers all requests in one batch |
//! | [`form`] | how messages become a prompt |
//! | [`chat`] | what a request may say, and how an answer looks |
//! | [`completions`] | the handler: from a request to its answer, at once or piece by piece |
//! | [`upstream`], [`forward`], [`event_lines`] | a black box behind the same API in place of a model |
//! | [`access`] | keys, and the names by which a server may be called |
//! | [`server`] | what all handlers share |
//! | [`listener`] | connections: how many, how slow, and how they end |
//! | [`feedback`], [`review`] | what clients and people say of answers |
//! | [`metrics`] | figures for Prometheus |
//!
//! What is acknowledged is durable first: with `--collect` the last piece of an answer is sent when the exchange is on the disk.
//! It never trains, and it sends nothing anywhere but to its clients and to the upstream that was allowed.

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

/// All routes. Who asks is settled before a body is read.
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

/// Lets a request through that brings a key.
async fn with_key(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    match server.keys.caller(request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(Caller(caller));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Reads the body within its limits.
async fn with_body(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, server.body_bytes)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => Problem::too_large(server.body_bytes).into_response(),
        Err(_) => Problem::too_slow().into_response(),
    }
}

/// Refuses what a page elsewhere made a browser send, and counts the answers.
async fn from_here(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let response = match access::check_source(server.address, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    server.metrics.answered(response.status().as_u16());
    response
}

/// Whether requests are answered.
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
