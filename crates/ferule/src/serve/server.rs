//! What all handlers share: the source of answers, the keys, and the data folder.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use store::DataFolder;
use store::data_folder::exchanges::Exchange;
use tokio::sync::Semaphore;

use super::access::Keys;
use super::engine::Engine;
use super::metrics::Metrics;
use super::problem::Problem;
use super::sessions::Sessions;
use super::upstream::Upstream;
use crate::secrets::random_hex;

/// The source of answers.
pub enum Source {
    /// A model in this process. It may be replaced while requests run.
    Model(RwLock<Engine>),
    /// An endpoint elsewhere.
    Upstream(Upstream),
}

/// Everything that handlers share.
pub struct Server {
    /// The name under which clients request the model, whichever is in service.
    pub name: String,
    /// The source of answers.
    pub source: Source,
    /// The keys of clients.
    pub keys: Keys,
    /// The address on which it listens.
    pub address: IpAddr,
    /// The data folder, if there is one.
    pub data: Option<Arc<DataFolder>>,
    /// Whether exchanges are kept.
    pub collect: bool,
    /// The largest body, in bytes.
    pub body_bytes: usize,
    /// The largest number of tokens of a completion.
    pub max_tokens: usize,
    /// Counts and durations.
    pub metrics: Metrics,
    /// Reviewers who are signed in.
    pub sessions: Sessions,
    /// Turns to make a prompt from messages. Long messages take much memory, so clients must not control how many are
    /// worked on at once.
    pub prompts: Arc<Semaphore>,
    /// Turns to have a large body in memory.
    pub large_bodies: Semaphore,
}

/// The hash of a request's key.
#[derive(Clone, Debug)]
pub struct Caller(pub Option<String>);

impl Server {
    /// The engine that answers now; none with an upstream.
    pub fn engine(&self) -> Option<Engine> {
        match &self.source {
            Source::Model(engine) => Some(engine.read().unwrap_or_else(PoisonError::into_inner).clone()),
            Source::Upstream(_) => None,
        }
    }

    /// Replaces the present engine. The old one still answers what it has accepted.
    pub fn replace(&self, with: Engine) {
        if let Source::Model(engine) = &self.source {
            *engine.write().unwrap_or_else(PoisonError::into_inner) = with;
        }
    }
}

/// Keeps an exchange, unless the server does not collect. Returns when it is on the disk.
pub async fn collect(server: &Server, exchange: Exchange) -> Result<(), Problem> {
    let Some(data) = server.data.clone().filter(|_| server.collect) else { return Ok(()) };
    match tokio::task::spawn_blocking(move || data.collect(&exchange)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Problem::failed(format!("the exchange could not be kept: {error}"))),
        Err(_) => Err(Problem::gone()),
    }
}

/// An unguessable id.
pub fn fresh_id() -> Result<String, Problem> {
    let id = random_hex::<16>().map_err(|error| Problem::failed(format!("no random numbers: {error}")))?;
    Ok(format!("chatcmpl-{id}"))
}

/// A frame of a stream of server-sent events.
pub fn frame(data: impl Display) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}
