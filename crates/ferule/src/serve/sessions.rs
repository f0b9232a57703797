//! The sessions of the review page.
//!
//! Sessions are kept in memory: after a restart of the server, people sign in again. After a few wrong tokens an
//! address has to wait, each time longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use store::data_folder::people::Person;
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::secrets::random_hex;

/// The cookie's name.
pub const COOKIE: &str = "ferule_session";
/// How long a session lasts.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// The number of wrong tokens from one address that cause no wait.
const FREE_FAILURES: u32 = 5;
/// The longest wait of an address.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The time without a wrong token after which an address's failures are forgotten.
const FORGIVEN: Duration = Duration::from_secs(600);
/// The number of tokens that are checked at once. Each check takes 19 MiB, so clients must not control this number.
const CHECKS: usize = 2;

/// A person who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    /// The secret in the cookie.
    pub id: String,
    /// The secret that the page sends with every change.
    pub csrf: String,
    /// The person.
    pub person: String,
    token_hash: String,
    since: Instant,
}

impl Session {
    /// Whether a text equals the CSRF secret.
    pub fn is_csrf(&self, given: &str) -> bool {
        self.csrf.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// Whether the token with which the session began still belongs to one of these people.
    pub fn is_of(&self, people: &[Person]) -> bool {
        people.iter().any(|person| person.name == self.person && person.token_hash == self.token_hash)
    }
}

/// The wrong tokens from an address.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// How long the address still has to wait.
    fn wait(&self) -> Duration {
        match self.count.checked_sub(FREE_FAILURES) {
            None => Duration::ZERO,
            Some(more) => Duration::from_secs(1 << more.min(6)).min(LONGEST_WAIT).saturating_sub(self.last.elapsed()),
        }
    }
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    open: Mutex<HashMap<String, Session>>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    checks: Arc<Semaphore>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { open: Mutex::default(), failures: Mutex::default(), checks: Arc::new(Semaphore::new(CHECKS)) }
    }
}

impl Sessions {
    /// Begins a session.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn begin(&self, person: Person) -> Result<Session, Problem> {
        let Person { name, token_hash } = person;
        let session = Session { id: secret()?, csrf: secret()?, person: name, token_hash, since: Instant::now() };
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

    /// Waits for permission to check a token.
    ///
    /// # Errors
    /// Too many wrong tokens came from the address.
    pub async fn turn(&self, from: IpAddr) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = self.checks.clone().acquire_owned().await.map_err(|_| Problem::gone())?;
        let wait = self.failures().get(&from).map_or(Duration::ZERO, Failures::wait);
        if wait.is_zero() { Ok(permit) } else { Err(Problem::wait(wait.as_secs() + 1)) }
    }

    /// Records a wrong token.
    pub fn failed(&self, from: IpAddr) {
        let mut failures = self.failures();
        failures.retain(|_, failures| failures.last.elapsed() < FORGIVEN);
        let failures = failures.entry(from).or_insert(Failures { count: 0, last: Instant::now() });
        *failures = Failures { count: failures.count.saturating_add(1), last: Instant::now() };
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn secret() -> Result<String, Problem> {
    random_hex::<32>().map_err(|error| Problem::failed(format!("no random numbers: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn an_address_with_wrong_tokens_waits_and_others_do_not() {
        let sessions = Sessions::default();
        for _ in 0..FREE_FAILURES - 1 {
            sessions.failed(ip(1));
        }
        assert!(sessions.turn(ip(1)).await.is_ok());
        sessions.failed(ip(1));
        assert!(sessions.turn(ip(1)).await.is_err());
        assert!(sessions.turn(ip(2)).await.is_ok());
        let wait = |count| Failures { count, last: Instant::now() }.wait();
        assert!(wait(FREE_FAILURES) < wait(FREE_FAILURES + 1) && wait(u32::MAX) <= LONGEST_WAIT);
    }

    #[test]
    fn a_session_ends_with_its_token() {
        let person = |hash: &str| Person { name: "an".into(), token_hash: hash.into() };
        let session = Sessions::default().begin(person("one")).unwrap();
        assert!(session.is_of(&[person("one")]) && !session.is_of(&[person("two")]) && !session.is_of(&[]));
        assert!(session.is_csrf(&session.csrf) && !session.is_csrf("") && !session.is_csrf(&session.id));
    }
}
