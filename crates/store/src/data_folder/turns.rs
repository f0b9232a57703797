//! The turns of the flywheel: which verdicts each candidate was made from, how it compared, and what was decided.
//!
//! A turn is begun and then decided. If a turn was begun and not decided, it was interrupted; it resumes under the same
//! number.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;
use crate::ledger::unsigned;

/// What a turn used a record for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordRole {
    /// A verdict that was trained on.
    Label,
    /// A verdict that an earlier turn trained on, or a found label; it is trained on again.
    Replay,
    /// A verdict on which candidate and incumbent were compared.
    Gate,
}

impl RecordRole {
    fn word(self) -> &'static str {
        match self {
            RecordRole::Label => "label",
            RecordRole::Replay => "replay",
            RecordRole::Gate => "gate",
        }
    }
}

/// A record of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TurnRecord {
    /// The item, or the id of a found label.
    pub item: String,
    /// What it was used for.
    pub role: RecordRole,
    /// The verdict; none for a found label.
    pub verdict: Option<i64>,
}

/// A turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// 1, 2, 3 and so on.
    pub id: i64,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// The turn file that was given, as TOML.
    #[serde(skip)]
    pub recipe: String,
    /// The model that was in service.
    pub incumbent: String,
    /// The model that the turn made.
    pub candidate: Option<String>,
    /// How many times the gate was used, this turn included.
    pub look: u64,
    /// The comparison's figures.
    pub outcome: Option<Value>,
    /// "promoted", "refused" or "abandoned"; none while it is not decided.
    pub decision: Option<String>,
}

impl DataFolder {
    /// The turn that was begun and not decided; there is at most one.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn open_turn(&self) -> Result<Option<Turn>, StoreError> {
        self.read(|c| c.query_row("SELECT * FROM turns WHERE decision IS NULL", [], turn).optional())
    }

    /// Begins a turn and returns its number.
    ///
    /// * `at_ms`: the turn uses the verdicts of this moment, in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] while another one is open; [`StoreError::Ledger`].
    pub fn begin_turn(
        &self,
        person: &str,
        at_ms: i64,
        recipe: &str,
        incumbent: &str,
        records: &[TurnRecord],
    ) -> Result<i64, StoreError> {
        self.change(|t| {
            if t.query_row("SELECT 1 FROM turns WHERE decision IS NULL", [], |_| Ok(())).optional()?.is_some() {
                return Err(Fault::NotPossible(
                    "a turn is open".into(),
                    "let it finish: the same command goes on with it",
                ));
            }
            t.execute(
                "INSERT INTO turns (at_ms, recipe, incumbent, look) SELECT ?1, ?2, ?3, count(*) + 1 FROM turns",
                params![at_ms, recipe, incumbent],
            )?;
            let id = t.last_insert_rowid();
            let mut insert =
                t.prepare("INSERT INTO turn_records (turn, item, role, verdict) VALUES (?1, ?2, ?3, ?4)")?;
            for record in records {
                insert.execute(params![id, record.item, record.role.word(), record.verdict])?;
            }
            audit::add(
                t,
                person,
                "turn_begun",
                &id.to_string(),
                json!({ "incumbent": incumbent, "records": records.len() }),
            )?;
            Ok(id)
        })
    }

    /// Decides a turn. The candidate is recorded as a model. If it is promoted, it is put into service in the same
    /// transaction.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] if it is not open; [`StoreError::Ledger`].
    pub fn decide_turn(
        &self,
        person: &str,
        id: i64,
        candidate: &str,
        path: &str,
        outcome: &Value,
        promoted: bool,
    ) -> Result<(), StoreError> {
        let decision = if promoted { "promoted" } else { "refused" };
        self.change(|t| {
            let sql = "UPDATE turns SET candidate = ?2, outcome = ?3, decision = ?4 WHERE id = ?1 AND decision IS NULL";
            if t.execute(sql, params![id, candidate, outcome.to_string(), decision])? == 0 {
                return Err(Fault::NotPossible(
                    format!("turn {id} is not open"),
                    "`ferule flywheel status` lists the turns",
                ));
            }
            let now = now_ms();
            t.execute(
                "INSERT INTO models (id, path, turn, added_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
                params![candidate, path, id, now],
            )?;
            audit::add(
                t,
                person,
                "turn_decided",
                &id.to_string(),
                json!({ "candidate": candidate, "decision": decision }),
            )?;
            if promoted {
                let reason = format!("turn {id}");
                let sql = "INSERT INTO service (model, person, reason, at_ms) VALUES (?1, ?2, ?3, ?4)";
                t.execute(sql, params![candidate, person, reason, now])?;
                audit::add(t, person, "promote", candidate, json!({ "reason": reason }))?;
            }
            Ok(())
        })
    }

    /// Abandons an open turn. Its verdicts count as new again.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] if it is not open; [`StoreError::Ledger`].
    pub fn abandon_turn(&self, person: &str, id: i64) -> Result<(), StoreError> {
        self.change(|t| {
            let sql = "UPDATE turns SET decision = 'abandoned' WHERE id = ?1 AND decision IS NULL";
            if t.execute(sql, [id])? == 0 {
                return Err(Fault::NotPossible(
                    format!("turn {id} is not open"),
                    "`ferule flywheel status` lists the turns",
                ));
            }
            // Nothing was trained on them, so the next turn uses them as new.
            t.execute("DELETE FROM turn_records WHERE turn = ?1", [id])?;
            Ok(audit::add(t, person, "turn_abandoned", &id.to_string(), json!({}))?)
        })
    }

    /// All turns, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn turns(&self) -> Result<Vec<Turn>, StoreError> {
        self.all("SELECT * FROM turns ORDER BY id", turn)
    }

    /// What a turn trained on and used in the gate, by id.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn turn_records(&self, turn: i64) -> Result<Vec<TurnRecord>, StoreError> {
        self.read(|c| {
            c.prepare_cached("SELECT item, role, verdict FROM turn_records WHERE turn = ?1 ORDER BY role, item")?
                .query_map([turn], |row| {
                    let role = match row.get::<_, String>(1)?.as_str() {
                        "label" => RecordRole::Label,
                        "replay" => RecordRole::Replay,
                        _ => RecordRole::Gate,
                    };
                    Ok(TurnRecord { item: row.get(0)?, role, verdict: row.get(2)? })
                })?
                .collect()
        })
    }
}

fn turn(row: &Row) -> rusqlite::Result<Turn> {
    let outcome: Option<String> = row.get("outcome")?;
    Ok(Turn {
        id: row.get("id")?,
        at_ms: row.get("at_ms")?,
        recipe: row.get("recipe")?,
        incumbent: row.get("incumbent")?,
        candidate: row.get("candidate")?,
        look: unsigned(row, "look")?,
        outcome: outcome.and_then(|text| serde_json::from_str(&text).ok()),
        decision: row.get("decision")?,
    })
}
