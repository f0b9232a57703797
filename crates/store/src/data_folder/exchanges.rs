//! What was served: requests with their completions, and the clients' feedback.
//!
//! An *item* is the messages of a request. Equal messages are one item, whoever sends them. So a repeated question is
//! reviewed once and cannot be both trained on and in the gate. A fifth of the items is reserved for the gate. Which
//! ones depends only on their content and the folder's key.

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;
use crate::ledger::{signed, unsigned};

/// One item in this many is reserved for the gate.
const GATE_SHARE: u64 = 5;

/// A completion that was served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// The completion's id, as the client received it.
    pub id: String,
    /// The hash of the client's key, if it had one.
    pub api_key: Option<String>,
    /// Who asked, according to the client.
    pub user: Option<String>,
    /// The digest of the model that answered.
    pub model: String,
    /// The messages, as a JSON list.
    pub messages: String,
    /// The completion's text.
    pub completion: String,
    /// Why the completion ended: "stop" or "length".
    pub finish: String,
    /// From the request's arrival to the last token, in milliseconds.
    pub latency_ms: u64,
    /// The model's confidence, from 0 to 1, if it is known.
    pub confidence: Option<f64>,
    /// Whether the confidence was too low to trust the answer without a person.
    pub abstain: Option<bool>,
}

/// Up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thumb {
    /// The client likes the answer.
    Up,
    /// The client does not.
    Down,
}

impl Thumb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Thumb::Up => "up",
            Thumb::Down => "down",
        }
    }
}

/// A client's feedback on a completion. It orders the review queue. Nothing is trained on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// The completion.
    pub id: String,
    /// Whether it was good.
    #[serde(default)]
    pub thumb: Option<Thumb>,
    /// What should have been answered.
    #[serde(default)]
    pub correction: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

impl DataFolder {
    /// The item's id: a keyed hash of the messages. They are parsed as JSON first, so that different spellings of the
    /// same JSON give the same id.
    pub fn item_of(&self, messages: &str) -> String {
        let plain = serde_json::from_str::<serde_json::Value>(messages).map_or(messages.to_string(), |v| v.to_string());
        self.mark("item", &plain).to_hex()[..32].to_string()
    }

    /// Whether an item is reserved for the gate.
    pub fn is_of_gate(&self, item: &str) -> bool {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.mark("gate", item).as_bytes()[..8]);
        u64::from_le_bytes(bytes) % GATE_SHARE == 0
    }

    /// Keeps an exchange. The first exchange of an item waits for review. An exchange that was forgotten before is not
    /// kept again. Returns whether it was kept.
    ///
    /// # Errors
    /// [`StoreError::Ledger`], [`StoreError::DiskFull`].
    pub fn collect(&self, exchange: &Exchange) -> Result<bool, StoreError> {
        let item = self.item_of(&exchange.messages);
        let (gate, marks) = (self.is_of_gate(&item), self.tombstones_of(&item, exchange.user.as_deref()));
        self.write(|t| {
            let forgotten = "SELECT EXISTS (SELECT 1 FROM tombstones WHERE mark IN (?1, ?2))";
            if t.query_row(forgotten, [&marks[0], marks.last().unwrap_or(&marks[0])], |row| row.get(0))? {
                return Ok(false);
            }
            let now = now_ms();
            t.prepare_cached(
                "INSERT INTO requests (id, item, at_ms, api_key, user, model, messages, completion, finish, latency_ms, confidence, abstain)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                exchange.id, item, now, exchange.api_key, exchange.user, exchange.model, exchange.messages, exchange.completion,
                exchange.finish, signed(exchange.latency_ms), exchange.confidence, exchange.abstain
            ])?;
            t.prepare_cached("INSERT OR IGNORE INTO review_items (item, request, gate, added_ms) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![item, exchange.id, gate, now])?;
            Ok(true)
        })
    }

    /// Keeps a client's feedback on its own completion. Each completion takes feedback once.
    ///
    /// * `api_key`: the hash of the key that the client uses for the feedback.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for a completion that was not requested with this key, for empty feedback and for a
    /// second one; [`StoreError::Ledger`].
    pub fn feedback(&self, feedback: &Feedback, api_key: Option<&str>) -> Result<(), StoreError> {
        let Feedback { id, thumb, correction, reason } = feedback;
        self.change(|t| {
            if thumb.is_none() && correction.is_none() && reason.is_none() {
                return Err(Fault::NotPossible("the feedback says nothing".into(), "give a thumb, a correction or a reason"));
            }
            let asked_with = t
                .query_row("SELECT api_key FROM requests WHERE id = ?1", [id], |row| row.get::<_, Option<String>>(0))
                .optional()?;
            // The message does not tell whether the id belongs to another key.
            if asked_with.is_none_or(|key| key.as_deref() != api_key) {
                let hint = "feedback is for a completion that was collected, with the key that asked for it";
                return Err(Fault::NotPossible(format!("no completion {id}"), hint));
            }
            let added = t.execute(
                "INSERT OR IGNORE INTO feedback (request, at_ms, thumb, correction, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, now_ms(), thumb.map(Thumb::word), correction, reason],
            )?;
            if added == 0 {
                return Err(Fault::NotPossible(format!("{id} has feedback already"), "each completion takes it once"));
            }
            Ok(audit::add(t, "client", "feedback", id, json!({ "thumb": thumb }))?)
        })
    }

    /// A completion that was collected.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn exchange(&self, id: &str) -> Result<Option<Exchange>, StoreError> {
        self.read(|c| c.query_row("SELECT * FROM requests WHERE id = ?1", [id], exchange).optional())
    }

    /// How many completions were collected.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn collected(&self) -> Result<u64, StoreError> {
        self.read(|c| c.query_row("SELECT count(*) FROM requests", [], |row| unsigned(row, 0)))
    }
}

fn exchange(row: &Row) -> rusqlite::Result<Exchange> {
    Ok(Exchange {
        id: row.get("id")?,
        api_key: row.get("api_key")?,
        user: row.get("user")?,
        model: row.get("model")?,
        messages: row.get("messages")?,
        completion: row.get("completion")?,
        finish: row.get("finish")?,
        latency_ms: unsigned(row, "latency_ms")?,
        confidence: row.get("confidence")?,
        abstain: row.get("abstain")?,
    })
}
