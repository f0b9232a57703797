//! The people who sign verdicts and promote models, and their personal tokens.
//!
//! A token is 256 random bits and is shown once. The ledger keeps an Argon2id hash of it. Commands take a person's
//! token from `FERULE_TOKEN`, never from the command line, where other users of the machine could see it.

use anyhow::Context;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, PasswordHash};
use store::DataFolder;
use store::data_folder::people::Person;

use crate::outcome::{WrongUse, failure};
use crate::secrets::random_hex;

/// The environment variable that holds a person's token.
const VARIABLE: &str = "FERULE_TOKEN";
/// The prefix of every token, so that a token in a wrong place is recognised.
const PREFIX: &str = "ferule_";

/// A new token and its hash.
///
/// # Errors
/// The system gives no random numbers.
pub fn fresh_token() -> anyhow::Result<(String, String)> {
    let token = format!("{PREFIX}{}", random_hex::<32>().context("no random numbers")?);
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).context("no random numbers")?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow::anyhow!("cannot make a salt: {error}"))?;
    let hash = Argon2::default()
        .hash_password(token.as_bytes(), &salt)
        .map_err(|error| anyhow::anyhow!("cannot hash the token: {error}"))?
        .to_string();
    Ok((token, hash))
}

/// The person to whom a token belongs; none for an unknown token.
///
/// # Errors
/// A ledger that cannot be read.
pub fn owner(data: &DataFolder, token: &str) -> anyhow::Result<Option<Person>> {
    // Hashing is deliberately slow, so a text that cannot be a token is not hashed.
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let fits = |hash: &str| {
        PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(token.as_bytes(), &hash).is_ok())
    };
    Ok(data.people()?.into_iter().find(|person| fits(&person.token_hash)))
}

/// The person whose token is in `FERULE_TOKEN`.
///
/// # Errors
/// There is no token, or it is unknown.
pub fn signed_in(data: &DataFolder) -> anyhow::Result<String> {
    let Ok(token) = std::env::var(VARIABLE) else {
        let hint = format!("`ferule person add NAME` makes a token; put it into the variable {VARIABLE}");
        return Err(WrongUse::error("this needs a person who signs it", hint));
    };
    owner(data, token.trim())?.map(|person| person.name).ok_or_else(|| {
        failure(
            format!("{VARIABLE} is nobody's token"),
            "`ferule person add NAME` makes a new one; the old one is void then",
        )
    })
}

/// The person whose token is in `FERULE_TOKEN`. Without a token it is the operator of this machine, if no server serves
/// from the data folder.
///
/// # Errors
/// As [`signed_in`].
pub fn signed_in_or_operator(data: &DataFolder) -> anyhow::Result<String> {
    match std::env::var_os(VARIABLE).is_some() || data.is_served() {
        true => signed_in(data),
        false => Ok("operator".to_string()),
    }
}
