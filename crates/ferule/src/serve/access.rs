//! Who may send requests: keys, and the host names under which a server on this machine may be addressed.
//!
//! Keys are compared by their hashes and in constant time, so that neither memory nor timing reveals a key.

use std::net::IpAddr;
use std::path::Path;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tasks::data::file;

use super::problem::Problem;
use crate::outcome::{WrongUse, failure};
use crate::secrets::hex;

/// The shortest key, in characters; a shorter one could be guessed.
const SHORTEST_KEY: usize = 16;

/// The keys that clients may use. Without any, everybody on this machine may send requests.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads a file of keys, one per line. Blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key; a key that is too short.
    pub fn read(path: &Path) -> anyhow::Result<Keys> {
        let text = file::read_to_string(path)
            .map_err(|error| failure(format!("{}: {error}", path.display()), "give a file with one key a line"))?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.len() < SHORTEST_KEY {
                let problem =
                    format!("{}:{number}: a key of {} characters could be guessed", path.display(), line.len());
                return Err(WrongUse::error(
                    problem,
                    format!("use at least {SHORTEST_KEY}, such as `openssl rand -hex 32` makes"),
                ));
            }
            keys.push(Sha256::digest(line).into());
        }
        if keys.is_empty() {
            return Err(WrongUse::error(format!("{} holds no key", path.display()), "write one key a line"));
        }
        Ok(Keys(keys))
    }

    /// The hash of the request's key; none if no keys are needed.
    ///
    /// # Errors
    /// No key, or an unknown one.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Option<String>, Problem> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let (_, key) = given.ok_or_else(Problem::unauthorised)?;
        let hash: [u8; 32] = Sha256::digest(key.trim()).into();
        // Every key is compared, even after one has matched, so that the time does not depend on the key.
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&hash));
        if !bool::from(known) {
            return Err(Problem::unauthorised());
        }
        Ok(Some(hex(&hash)))
    }
}

/// Refuses requests that another site's page made a browser send: a request that addresses a server on this machine by
/// a foreign host name (DNS rebinding), and one whose `Origin` is not the host to which it is sent. Programs other than
/// browsers send no `Origin`.
///
/// # Errors
/// Such a request.
pub fn check_source(address: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let local = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if address.is_loopback() && !local {
        return Err(Problem::forbidden("call this server by localhost or 127.0.0.1"));
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host)) => {
            Err(Problem::forbidden("pages of other hosts may not use this server"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use std::fs;

    use super::*;

    #[test]
    fn keys_are_read_and_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "# ours\n\nkey-number-one-1234\nkey-number-two-5678\n").unwrap();
        let keys = Keys::read(&path).unwrap();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            keys.caller(&headers).ok().flatten()
        };
        let (one, two) = (with("Bearer key-number-one-1234"), with("bearer key-number-two-5678"));
        assert!(one.is_some() && two.is_some() && one != two);
        assert!(!one.unwrap().contains("key"));
        assert!(with("Bearer key-number-one-123").is_none() && with("Basic key-number-one-1234").is_none());
        assert!(keys.caller(&HeaderMap::new()).is_err());
        assert!(Keys::default().caller(&HeaderMap::new()).unwrap().is_none());
        fs::write(&path, "short\n").unwrap();
        assert!(Keys::read(&path).unwrap_err().to_string().contains(":1: a key of 5"));
        fs::write(&path, "# nothing\n").unwrap();
        assert!(Keys::read(&path).is_err());
    }

    #[test]
    fn a_local_server_answers_to_local_names() {
        let (local, outside): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [0, 0, 0, 0].into());
        let named = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(name));
            headers
        };
        for name in ["localhost:8080", "127.0.0.1:1", "[::1]:80", "LOCALHOST"] {
            assert!(check_source(local, &named(name)).is_ok(), "{name}");
        }
        for name in ["evil.example", "127.0.0.1.evil.example:80", ""] {
            assert!(check_source(local, &named(name)).is_err(), "{name}");
            assert!(check_source(outside, &named(name)).is_ok(), "{name}");
        }
        let from = |origin: &'static str| {
            let mut headers = named("127.0.0.1:8080");
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            check_source(local, &headers).is_ok() && check_source(outside, &headers).is_ok()
        };
        assert!(from("http://127.0.0.1:8080"));
        for origin in ["http://evil.example", "http://127.0.0.1:8081", "http://localhost:8080", "null", ""] {
            assert!(!from(origin), "{origin}");
        }
    }
}
