//! The review queue: which items wait for a person, in which order, and what people decided.
//!
//! The order matters, because some labels teach more than others. Of the items to train on, those that a client
//! disliked come first, then those with the lowest confidence, then the oldest. Items of the gate come in the order of
//! their ids, which says nothing about their content; one follows after every four items to train on. So the order does
//! not bias the gate.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;
use crate::ledger::unsigned;

/// One item of the gate is shown after this many items to train on.
const GATE_EVERY: usize = 4;

/// What a person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The completion is right as it is.
    Accept,
    /// It is wrong, and the person gives the right answer.
    Correct,
    /// It is wrong.
    Reject,
    /// The person cannot tell.
    Skip,
}

impl Decision {
    /// All decisions.
    pub const ALL: [Decision; 4] = [Decision::Accept, Decision::Correct, Decision::Reject, Decision::Skip];

    /// The word for it in the ledger and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Decision::Accept => "accept",
            Decision::Correct => "correct",
            Decision::Reject => "reject",
            Decision::Skip => "skip",
        }
    }

    fn of(word: &str) -> Decision {
        match word {
            "accept" => Decision::Accept,
            "correct" => Decision::Correct,
            "reject" => Decision::Reject,
            _ => Decision::Skip,
        }
    }
}

/// An item that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// The item.
    pub item: String,
    /// The completion that is judged.
    pub request: String,
    /// The messages, as a JSON list.
    pub messages: String,
    /// The completion's text.
    pub completion: String,
    /// Why it is in the queue: "gate", "thumb_down", "unsure", "traffic".
    pub reason: &'static str,
    /// Whether it is reserved for the gate.
    pub gate: bool,
    /// The model's confidence, from 0 to 1.
    pub confidence: Option<f64>,
}

/// What a reviewer sees of an item only after the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Behind {
    /// The digest of the model that answered.
    pub model: String,
    /// Its confidence, from 0 to 1.
    pub confidence: Option<f64>,
    /// The client's thumb.
    pub thumb: Option<String>,
    /// The answer that the client asked for instead.
    pub client_correction: Option<String>,
    /// The client's reason.
    pub client_reason: Option<String>,
    /// The answer that a rule found for the same question in the user's tables or documents.
    pub found_label: Option<String>,
}

/// A verdict to be signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The item.
    pub item: String,
    /// The completion that the person saw, if it is known. If the item has another completion by now, the verdict is
    /// refused.
    #[serde(default)]
    pub request: Option<String>,
    /// The decision.
    pub decision: Decision,
    /// The right answer, if the decision is [`Decision::Correct`].
    #[serde(default)]
    pub correction: Option<String>,
    /// How long the person took, in seconds.
    #[serde(default)]
    pub seconds: f64,
}

/// A signed verdict that was not revoked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signed {
    /// Its number.
    pub id: i64,
    /// The item.
    pub item: String,
    /// Whether the item is reserved for the gate.
    pub gate: bool,
    /// The completion that was judged.
    pub request: String,
    /// The messages, as a JSON list.
    pub messages: String,
    /// The completion's text.
    pub completion: String,
    /// Who signed.
    pub reviewer: String,
    /// The decision.
    pub decision: Decision,
    /// The right answer, if it was corrected.
    pub correction: Option<String>,
    /// How long the person took, in seconds.
    pub seconds: f64,
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

impl Signed {
    /// The answer that the person signed as right; none if it was only rejected.
    pub fn right_answer(&self) -> Option<&str> {
        match self.decision {
            Decision::Accept => Some(&self.completion),
            Decision::Correct => self.correction.as_deref(),
            Decision::Reject | Decision::Skip => None,
        }
    }
}

const WAITING: &str = "
    SELECT i.item, i.request, i.gate, r.messages, r.completion, r.confidence, f.thumb
    FROM review_items i JOIN requests r ON r.id = i.request LEFT JOIN feedback f ON f.request = i.request
    WHERE NOT EXISTS (SELECT 1 FROM verdicts v WHERE v.item = i.item AND v.revoked_ms IS NULL
                      AND (v.decision <> 'skip' OR v.reviewer = ?1))";

impl DataFolder {
    /// The items that wait for `reviewer`, in order, at most `limit`. Items that the reviewer skipped are left out.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn queue(&self, reviewer: &str, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let select = |order: &str| {
            let sql = format!("{WAITING} {order} LIMIT ?2");
            self.read(|c| {
                c.prepare_cached(&sql)?
                    .query_map(params![reviewer, limit as i64], waiting)?
                    .collect::<Result<Vec<_>, _>>()
            })
        };
        let training = select(
            "AND NOT i.gate ORDER BY (f.thumb = 'down') IS NOT TRUE, r.confidence IS NULL, r.confidence, i.added_ms, i.item",
        )?;
        let mut gate = select("AND i.gate ORDER BY i.item")?.into_iter();
        let mut queue = Vec::with_capacity(limit.min(1024));
        for (place, item) in training.into_iter().enumerate() {
            queue.push(item);
            if (place + 1) % GATE_EVERY == 0 {
                queue.extend(gate.next());
            }
        }
        queue.extend(gate);
        queue.truncate(limit);
        Ok(queue)
    }

    /// How many items wait for `reviewer`.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn waiting_for(&self, reviewer: &str) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM ({WAITING})");
        self.read(|c| c.prepare_cached(&sql)?.query_row([reviewer], |row| unsigned(row, 0)))
    }

    /// What the reviewer did not see of an item before the verdict; none for an unknown item.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn behind(&self, item: &str) -> Result<Option<Behind>, StoreError> {
        let sql = "SELECT r.model, r.confidence, f.thumb, f.correction, f.reason, l.answer FROM review_items i
                   JOIN requests r ON r.id = i.request LEFT JOIN feedback f ON f.request = i.request
                   LEFT JOIN found_labels l ON l.item = i.item WHERE i.item = ?1";
        self.read(|c| {
            c.query_row(sql, [item], |row| {
                Ok(Behind {
                    model: row.get(0)?,
                    confidence: row.get(1)?,
                    thumb: row.get(2)?,
                    client_correction: row.get(3)?,
                    client_reason: row.get(4)?,
                    found_label: row.get(5)?,
                })
            })
            .optional()
        })
    }

    /// Signs a verdict and returns its number. An item has at most one verdict besides skips. Another one is refused
    /// until the first is revoked.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an unknown item, an item with a verdict, an item whose completion is not the one
    /// that the person saw, a correction that is missing or superfluous, and an invalid number of seconds;
    /// [`StoreError::Ledger`].
    pub fn submit(&self, reviewer: &str, submission: &Submission) -> Result<i64, StoreError> {
        self.change(|t| sign(t, reviewer, submission))
    }

    /// Signs all verdicts or none, and returns their numbers.
    ///
    /// # Errors
    /// As [`Self::submit`], with the index of the submission that failed.
    pub fn submit_all(&self, reviewer: &str, submissions: &[Submission]) -> Result<Vec<i64>, (usize, StoreError)> {
        let mut at = 0;
        let signed = self.change(|t| {
            let numbered = submissions.iter().enumerate();
            numbered
                .map(|(place, submission)| {
                    at = place;
                    sign(t, reviewer, submission)
                })
                .collect()
        });
        signed.map_err(|error| (at, error))
    }

    /// Revokes a verdict. It stays in the ledger as revoked, and its item waits again.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an unknown number and for a verdict that was revoked already;
    /// [`StoreError::Ledger`].
    pub fn revoke(&self, person: &str, verdict: i64) -> Result<(), StoreError> {
        self.change(|t| {
            let sql = "UPDATE verdicts SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL";
            if t.execute(sql, params![verdict, now_ms()])? == 0 {
                let hint = "`ferule review export --signed` lists the verdicts that count, with their numbers";
                return Err(Fault::NotPossible(format!("no verdict {verdict} counts"), hint));
            }
            Ok(audit::add(t, person, "verdict_revoked", &verdict.to_string(), json!({}))?)
        })
    }

    /// The verdicts that were not revoked, in the order in which they were signed. Skips are left out.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn verdicts(&self) -> Result<Vec<Signed>, StoreError> {
        self.verdicts_at(i64::MAX)
    }

    /// As [`Self::verdicts`], at a moment in milliseconds since 1970 UTC. Verdicts that were forgotten since are
    /// missing.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn verdicts_at(&self, at_ms: i64) -> Result<Vec<Signed>, StoreError> {
        let sql = format!(
            "{SIGNED} WHERE v.at_ms <= ?1 AND (v.revoked_ms IS NULL OR v.revoked_ms > ?1) AND v.decision <> 'skip' ORDER BY v.id"
        );
        self.read(|c| c.prepare_cached(&sql)?.query_map([at_ms], signed)?.collect())
    }
}

fn sign(t: &Transaction, reviewer: &str, submission: &Submission) -> Result<i64, Fault> {
    let Submission { item, request: seen, decision, correction, seconds } = submission;
    let correction = correction.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if (*decision == Decision::Correct) != correction.is_some() {
        let fault = if correction.is_some() { "takes no correction" } else { "needs a correction" };
        let problem = format!("the verdict \"{}\" {fault}", decision.word());
        return Err(Fault::NotPossible(problem, "give a correction with the decision \"correct\" and with no other"));
    }
    if !(seconds.is_finite() && *seconds >= 0.0) {
        return Err(Fault::NotPossible(format!("{seconds} seconds"), "give the seconds that it took, 0 or more"));
    }
    let sql = "SELECT request FROM review_items WHERE item = ?1";
    let Some(request) = t.query_row(sql, [item], |row| row.get::<_, String>(0)).optional()? else {
        let problem = format!("no item {item} waits for review");
        return Err(Fault::NotPossible(problem, "`ferule review queue` lists those that do"));
    };
    if seen.as_ref().is_some_and(|seen| *seen != request) {
        let problem = format!("the answer to {item} is another one now");
        return Err(Fault::NotPossible(problem, "look at the item again: what was judged is gone"));
    }
    let sql = "SELECT reviewer FROM verdicts WHERE item = ?1 AND revoked_ms IS NULL AND decision <> 'skip'";
    if let Some(who) = t.query_row(sql, [item], |row| row.get::<_, String>(0)).optional()? {
        let problem = format!("{item} was judged by {who} already");
        return Err(Fault::NotPossible(problem, "revoke that verdict first, with `ferule review revoke`"));
    }
    t.execute(
        "INSERT INTO verdicts (item, request, reviewer, decision, correction, seconds, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![item, request, reviewer, decision.word(), correction, seconds, now_ms()],
    )?;
    let id = t.last_insert_rowid();
    audit::add(t, reviewer, "verdict", &id.to_string(), json!({ "item": item, "decision": decision }))?;
    Ok(id)
}

const SIGNED: &str =
    "SELECT v.*, i.gate, r.messages, r.completion FROM verdicts v JOIN review_items i ON i.item = v.item
                      JOIN requests r ON r.id = v.request";

fn signed(row: &Row) -> rusqlite::Result<Signed> {
    Ok(Signed {
        id: row.get("id")?,
        item: row.get("item")?,
        gate: row.get("gate")?,
        request: row.get("request")?,
        messages: row.get("messages")?,
        completion: row.get("completion")?,
        reviewer: row.get("reviewer")?,
        decision: Decision::of(&row.get::<_, String>("decision")?),
        correction: row.get("correction")?,
        seconds: row.get("seconds")?,
        at_ms: row.get("at_ms")?,
    })
}

fn waiting(row: &Row) -> rusqlite::Result<Waiting> {
    let (gate, confidence): (bool, Option<f64>) = (row.get("gate")?, row.get("confidence")?);
    let thumb: Option<String> = row.get("thumb")?;
    let reason = match (gate, thumb.as_deref(), confidence) {
        (true, _, _) => "gate",
        (false, Some("down"), _) => "thumb_down",
        (false, _, Some(_)) => "unsure",
        (false, _, None) => "traffic",
    };
    Ok(Waiting {
        item: row.get("item")?,
        request: row.get("request")?,
        messages: row.get("messages")?,
        completion: row.get("completion")?,
        reason,
        gate,
        confidence,
    })
}
