//! `/review`: a page on which people judge answers by keyboard, and its routes.
//!
//! Verdicts are blind. The page shows the messages and the answer; only after the verdict does it show the model, its
//! confidence and the client's feedback. The page loads nothing from other sites and runs only its own code. Messages
//! and answers are inserted as text.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use store::data_folder::review::{Submission, Waiting};
use store::{DataFolder, StoreError};

use super::problem::Problem;
use super::server::Server;
use super::sessions::{COOKIE, Session};
use crate::people;

/// The header with a session's CSRF secret. Another site's page cannot set it.
const CSRF: &str = "x-ferule-csrf";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// The routes.
pub fn router() -> Router<Arc<Server>> {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/review", file("text/html; charset=utf-8", include_str!("page.html")))
        .route("/review/page.css", file("text/css; charset=utf-8", include_str!("page.css")))
        .route("/review/page.js", file("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/review/login", post(login))
        .route("/review/logout", post(logout))
        .route("/review/session", get(session))
        .route("/review/next", get(next))
        .route("/review/verdict", post(verdict))
        .route("/review/revoke", post(revoke))
        .layer(from_fn(from_here))
        .layer(map_response(strict))
}

/// Adds headers that restrict what the page may do.
async fn strict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn folder(server: &Server) -> Result<Arc<DataFolder>, Problem> {
    server
        .data
        .clone()
        .ok_or_else(|| Problem::not_found("this server keeps nothing to review: start it with --collect"))
}

/// Runs work on the ledger on a blocking thread.
async fn on_ledger<T: Send + 'static>(
    data: Arc<DataFolder>,
    work: impl FnOnce(&DataFolder) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(move || work(&data)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(StoreError::NotPossible { problem, hint })) => Err(Problem::conflict(format!("{problem}: {hint}"))),
        Ok(Err(error)) => Err(Problem::failed(error.to_string())),
        Err(_) => Err(Problem::gone()),
    }
}

/// The session of a request that changes nothing. It has ended if the person's token was replaced or removed.
async fn signed_in(server: &Server, headers: &HeaderMap) -> Result<Session, Problem> {
    let session = server.sessions.of(headers).ok_or_else(|| Problem::forbidden("sign in first"))?;
    if !session.is_of(&on_ledger(folder(server)?, DataFolder::people).await?) {
        server.sessions.end(&session.id);
        return Err(Problem::forbidden("the token of this session is void; sign in with another one"));
    }
    Ok(session)
}

/// The session of a request that changes something. The request must also carry the CSRF secret.
async fn from_page(server: &Server, headers: &HeaderMap) -> Result<Session, Problem> {
    let session = signed_in(server, headers).await?;
    let given = headers.get(CSRF).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !session.is_csrf(given) {
        return Err(Problem::forbidden("the request does not come from the page of this session"));
    }
    Ok(session)
}

/// Refuses requests that a browser sends for another site's page.
async fn from_here(request: Request, next: Next) -> Response {
    match request.method() == Method::GET || is_from_here(request.headers()) {
        true => next.run(request).await,
        false => Problem::forbidden("the request comes from a page elsewhere").into_response(),
    }
}

/// Whether the request comes from this server's page. A program that is not a browser sends no such information.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => origin.split_once("://").map(|(_, rest)| rest) == text("host"),
        (None, None) => true,
    }
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// Signs a person in by token.
async fn login(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Result<Response, Problem> {
    let data = folder(&server)?;
    let Login { token } = serde_json::from_slice(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    let turn = server.sessions.turn(peer.ip()).await?;
    let check = move || {
        // The permission ends with the check, even if the client does not wait for it.
        let _turn = turn;
        people::owner(&data, token.trim())
    };
    let person = tokio::task::spawn_blocking(check).await;
    let person = person.map_err(|_| Problem::gone())?.map_err(|error| Problem::failed(error.to_string()))?;
    let Some(person) = person else {
        server.sessions.failed(peer.ip());
        return Err(Problem::forbidden("this is nobody's token"));
    };
    let session = server.sessions.begin(person)?;
    let cookie = format!("{COOKIE}={}; Path=/review; HttpOnly; SameSite=Strict; Max-Age=43200", session.id);
    Ok(([(header::SET_COOKIE, cookie)], Json(shown(&session))).into_response())
}

async fn logout(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Response, Problem> {
    let session = from_page(&server, &headers).await?;
    server.sessions.end(&session.id);
    let cookie = format!("{COOKIE}=; Path=/review; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok((StatusCode::OK, [(header::SET_COOKIE, cookie)], Json(json!({}))).into_response())
}

/// The signed-in person, for a page that was reloaded.
async fn session(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&signed_in(&server, &headers).await?)))
}

fn shown(session: &Session) -> Value {
    json!({ "person": session.person, "csrf": session.csrf })
}

#[derive(Deserialize)]
struct Which {
    /// Items that the page holds already.
    #[serde(default)]
    skip: String,
}

/// The next items, without what a blind verdict must not show.
async fn next(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Problem> {
    let person = signed_in(&server, &headers).await?.person;
    let held: Vec<String> = which.skip.split(',').map(String::from).collect();
    let (queue, left) = on_ledger(folder(&server)?, move |data| {
        let queue = data.queue(&person, held.len() + 2)?;
        let left = data.waiting_for(&person)?;
        Ok((queue.into_iter().filter(|item| !held.contains(&item.item)).collect::<Vec<_>>(), left))
    })
    .await?;
    let blind = |item: &Waiting| {
        let messages: Value = serde_json::from_str(&item.messages).unwrap_or_default();
        json!({
            "item": item.item, "request": item.request, "messages": messages, "completion": item.completion, "reason": item.reason,
        })
    };
    Ok(Json(json!({ "items": queue.iter().map(blind).collect::<Vec<_>>(), "waiting": left })))
}

/// Signs a verdict and returns what was hidden before. It is on the disk when the response is sent.
async fn verdict(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    let session = from_page(&server, &headers).await?;
    let submission: Submission =
        serde_json::from_slice(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    let told = on_ledger(folder(&server)?, move |data| {
        let verdict = data.submit(&session.person, &submission)?;
        let behind = data.behind(&submission.item)?;
        Ok(json!({ "verdict": verdict, "behind": behind }))
    });
    Ok(Json(told.await?))
}

#[derive(Deserialize)]
struct Revoke {
    verdict: i64,
}

async fn revoke(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    let session = from_page(&server, &headers).await?;
    let Revoke { verdict } = serde_json::from_slice(&body).map_err(|error| Problem::malformed(error.to_string()))?;
    on_ledger(folder(&server)?, move |data| data.revoke(&session.person, verdict)).await?;
    Ok(Json(json!({ "revoked": verdict })))
}
