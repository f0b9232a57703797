//! `ferule serve`: a model behind the API that OpenAI's clients speak, and the wheel's first half: collecting, feedback, review.
//!
//! | file | what it does |
//! |---|---|
//! | [`engine`] | the thread that owns the model and answers all requests in one batch |
//! | [`chat`] | what a request may say, and how an answer looks |
//! | [`completions`] | the handler: from a request to its answer, at once or piece by piece |
//! | [`upstream`], [`forward`] | a black box behind the same API in place of a model |
//! | [`access`] | keys, and the names by which a server may be called |
//! | [`server`] | what all handlers share |
//! | [`listener`] | connections: how many, how slow, and how they end |
//! | [`feedback`], [`review`] | what clients and people say of answers |
//! | [`metrics`] | figures for Prometheus |
//!
//! What is acknowledged is durable first: with `--collect` the last piece of an answer is sent when the exchange is on the disk.
//! It never trains, and it sends nothing anywhere but to its clients and to the upstream that was allowed.

pub mod access;
pub mod chat;
pub mod completions;
pub mod engine;
pub mod feedback;
pub mod forward;
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

/// All routes.
pub fn router(server: Arc<Server>) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(completions::complete))
        .route("/v1/models", get(list_models))
        .route("/v1/feedback", post(feedback::give))
        .route("/metrics", get(show_metrics))
        .route_layer(from_fn_with_state(server.clone(), with_key));
    Router::new()
        .merge(api)
        .merge(review::router())
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .fallback(|| async { Problem::not_found("there is nothing here; see /v1/models") })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(server.clone(), within_limits))
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

/// Reads the body within its limits, refuses foreign names, and counts the answer.
async fn within_limits(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = async {
        access::check_host(server.address, &parts.headers)?;
        let whole = axum::body::to_bytes(body, server.body_bytes);
        match tokio::time::timeout(BODY_TIME, whole).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(Problem::too_large(server.body_bytes)),
            Err(_) => Err(Problem::too_slow()),
        }
    };
    let response = match read.await {
        Ok(bytes) => next.run(Request::from_parts(parts, bytes.into())).await,
        Err(problem) => problem.into_response(),
    };
    server.metrics.answered(response.status().as_u16());
    response
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
            let list = [model(&engine.model().name, &engine.model().digest)];
            Ok(Json(json!({ "object": "list", "data": list })).into_response())
        }
        (Source::Model(_), None) => Err(Problem::gone()),
    }
}
