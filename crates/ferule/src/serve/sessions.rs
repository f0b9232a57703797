//! Who is signed in at the review page.
//!
//! Sessions live in memory: a server that starts again asks people to sign in again. After a few wrong tokens every attempt waits longer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};

use super::problem::Problem;

/// The cookie's name.
pub const COOKIE: &str = "ferule_session";
/// How long a session lasts.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Wrong tokens in a row that cost nothing.
const FREE_FAILURES: u32 = 5;

/// A person who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    /// The secret in the cookie.
    pub id: String,
    /// The secret that the page sends with what changes something.
    pub csrf: String,
    /// The person.
    pub person: String,
    since: Instant,
}

/// All who are signed in.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<String, Session>>,
    failures: AtomicU32,
}

impl Sessions {
    /// Begins a session.
    ///
    /// # Errors
    /// No random numbers.
    pub fn begin(&self, person: &str) -> Result<Session, Problem> {
        self.failures.store(0, Ordering::Relaxed);
        let session = Session { id: secret()?, csrf: secret()?, person: person.to_string(), since: Instant::now() };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| session.since.elapsed() < LIFE);
        open.insert(session.id.clone(), session.clone());
        Ok(session)
    }

    /// The session of a request.
    pub fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let id = cookies
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(id).filter(|session| session.since.elapsed() < LIFE).cloned()
    }

    /// Ends a session.
    pub fn end(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Notes a wrong token.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits after several wrong tokens, up to five seconds.
    pub async fn pause_after_failures(&self) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_sub(FREE_FAILURES);
        if failures > 0 {
            tokio::time::sleep(Duration::from_millis(250 * u64::from(failures.min(20)))).await;
        }
    }
}

fn secret() -> Result<String, Problem> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| Problem::failed(format!("no random numbers: {error}")))?;
    Ok(bits.iter().map(|byte| format!("{byte:02x}")).collect())
}
