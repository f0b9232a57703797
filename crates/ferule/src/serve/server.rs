//! What all handlers share: where answers come from, who may ask, and where exchanges are kept.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use store::DataFolder;
use store::data_folder::exchanges::Exchange;

use super::access::Keys;
use super::engine::Engine;
use super::metrics::Metrics;
use super::problem::Problem;
use super::sessions::Sessions;
use super::upstream::Upstream;
use crate::secrets::random_hex;

/// Where answers come from.
pub enum Source {
    /// A model in this process; it may be replaced while requests run.
    Model(RwLock<Engine>),
    /// An endpoint elsewhere.
    Upstream(Upstream),
}

/// Everything that handlers share.
pub struct Server {
    /// The name under which clients ask for the model, whichever is in service.
    pub name: String,
    /// Where answers come from.
    pub source: Source,
    /// Who may ask.
    pub keys: Keys,
    /// Where it listens.
    pub address: IpAddr,
    /// The data folder, where there is one.
    pub data: Option<Arc<DataFolder>>,
    /// Whether exchanges are kept.
    pub collect: bool,
    /// The most bytes of a body.
    pub body_bytes: usize,
    /// The most tokens of a completion.
    pub max_tokens: usize,
    /// Counted and measured.
    pub metrics: Metrics,
    /// Reviewers who are signed in.
    pub sessions: Sessions,
}

/// The hash of the key with which a request came.
#[derive(Clone, Debug)]
pub struct Caller(pub Option<String>);

impl Server {
    /// The engine that answers now; none in front of an upstream.
    pub fn engine(&self) -> Option<Engine> {
        match &self.source {
            Source::Model(engine) => Some(engine.read().unwrap_or_else(PoisonError::into_inner).clone()),
            Source::Upstream(_) => None,
        }
    }

    /// Puts another engine in the place of the present one, which answers what it has accepted.
    pub fn replace(&self, with: Engine) {
        if let Source::Model(engine) = &self.source {
            *engine.write().unwrap_or_else(PoisonError::into_inner) = with;
        }
    }
}

/// Keeps an exchange, unless nothing is collected; returns when it is on the disk.
pub async fn collect(server: &Server, exchange: Exchange) -> Result<(), Problem> {
    let Some(data) = server.data.clone().filter(|_| server.collect) else { return Ok(()) };
    match tokio::task::spawn_blocking(move || data.collect(&exchange)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Problem::failed(format!("the exchange could not be kept: {error}"))),
        Err(_) => Err(Problem::gone()),
    }
}

/// An id that nobody can guess.
pub fn fresh_id() -> Result<String, Problem> {
    let id = random_hex::<16>().map_err(|error| Problem::failed(format!("no random numbers: {error}")))?;
    Ok(format!("chatcmpl-{id}"))
}

/// A frame of a stream of server-sent events.
pub fn frame(data: impl Display) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}
