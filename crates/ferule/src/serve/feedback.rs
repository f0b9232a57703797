//! `/v1/feedback`: a client's feedback on its own completion.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use store::StoreError;
use store::data_folder::exchanges::Feedback;

use super::problem::Problem;
use super::server::{Caller, Server};

/// Keeps feedback. The response is sent when the feedback is on the disk.
pub async fn give(
    State(server): State<Arc<Server>>,
    Extension(Caller(caller)): Extension<Caller>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let feedback: Feedback = serde_json::from_slice(&body).map_err(|error| {
        let form = "send {\"id\", \"thumb\": \"up\" or \"down\", \"correction\": text, \"reason\": text}";
        Problem::malformed(format!("the body cannot be read: {error}; {form}"))
    })?;
    let Some(data) = server.data.clone() else {
        return Err(Problem::not_found("this server collects nothing: it was started without --collect"));
    };
    let id = feedback.id.clone();
    match tokio::task::spawn_blocking(move || data.feedback(&feedback, caller.as_deref())).await {
        Ok(Ok(())) => Ok(Json(json!({ "id": id, "kept": true }))),
        Ok(Err(StoreError::NotPossible { problem, hint })) => Err(match problem.starts_with("no completion") {
            true => Problem::not_found(format!("{problem}: {hint}")),
            false => Problem::conflict(format!("{problem}: {hint}")),
        }),
        Ok(Err(error)) => Err(Problem::failed(error.to_string())),
        Err(_) => Err(Problem::gone()),
    }
}
