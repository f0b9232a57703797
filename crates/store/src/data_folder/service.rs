//! Which model is in service, and which models were before.
//!
//! Lines are only added to the list, and the last line names the model in service. So promoting and rolling back add
//! one row each, and a killed process leaves either the old model or the new one.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::json;

use super::{DataFolder, Fault, audit, now_ms};
use crate::error::StoreError;

/// A model that was or may be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServedModel {
    /// The digest of its weights.
    pub id: String,
    /// Its path.
    pub path: String,
    /// The turn that made it; none for a model from outside.
    pub turn: Option<i64>,
    /// Why an operator should look at it: "learned from a forgotten record".
    pub flag: Option<String>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceLine {
    /// The model.
    pub model: String,
    /// Who put it into service.
    pub person: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

impl DataFolder {
    /// Records a model. If it is known, its path is updated.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn note_model(&self, id: &str, path: &str, turn: Option<i64>) -> Result<(), StoreError> {
        self.write(|t| {
            t.execute(
                "INSERT INTO models (id, path, turn, added_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET path = ?2, turn = coalesce(turn, ?3)",
                params![id, path, turn, now_ms()],
            )
        })
        .map(drop)
    }

    /// The model with this id, or the only one whose id begins with it.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] if there is none or more than one; [`StoreError::Ledger`].
    pub fn model(&self, id: &str) -> Result<ServedModel, StoreError> {
        let found = self.all("SELECT id, path, turn, flag FROM models ORDER BY added_ms", model)?;
        let mut fitting = found.into_iter().filter(|model| !id.is_empty() && model.id.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some(model), None) => Ok(model),
            (None, _) => {
                Err(StoreError::not_possible(format!("no model {id}"), "`ferule flywheel status` lists the models"))
            }
            _ => Err(StoreError::not_possible(format!("several models begin with {id}"), "give more of the digest")),
        }
    }

    /// All models, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn models(&self) -> Result<Vec<ServedModel>, StoreError> {
        self.all("SELECT id, path, turn, flag FROM models ORDER BY added_ms, id", model)
    }

    /// The model in service.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn in_service(&self) -> Result<Option<ServedModel>, StoreError> {
        self.read(in_service)
    }

    /// The list of models that were put into service, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn service(&self) -> Result<Vec<ServiceLine>, StoreError> {
        self.all("SELECT model, person, reason, at_ms FROM service ORDER BY id", |row| {
            Ok(ServiceLine { model: row.get(0)?, person: row.get(1)?, reason: row.get(2)?, at_ms: row.get(3)? })
        })
    }

    /// Puts a known model into service. Its flag, if it has one, is removed, because a person has decided.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] for an unknown model, and for the one that is in service and has no flag; [`StoreError::Ledger`].
    pub fn promote(&self, person: &str, id: &str, reason: &str) -> Result<(), StoreError> {
        self.change(|t| {
            if t.query_row("SELECT 1 FROM models WHERE id = ?1", [id], |_| Ok(())).optional()?.is_none() {
                return Err(Fault::NotPossible(format!("no model {id}"), "`ferule flywheel status` lists the models"));
            }
            if in_service(t)?.is_some_and(|model| model.id == id && model.flag.is_none()) {
                return Err(Fault::NotPossible(format!("{id} is in service already"), "there is nothing to do"));
            }
            t.execute("UPDATE models SET flag = NULL WHERE id = ?1", [id])?;
            let sql = "INSERT INTO service (model, person, reason, at_ms) VALUES (?1, ?2, ?3, ?4)";
            t.execute(sql, params![id, person, reason, now_ms()])?;
            Ok(audit::add(t, person, "promote", id, json!({ "reason": reason }))?)
        })
    }

    /// Puts the model back into service that was in service before the present one, and returns its id.
    ///
    /// # Errors
    /// [`StoreError::NotPossible`] if there was none; [`StoreError::Ledger`].
    pub fn roll_back(&self, person: &str) -> Result<String, StoreError> {
        let lines = self.service()?;
        // Rolling back twice goes two models back: models that were rolled back are skipped.
        let mut stack: Vec<&str> = Vec::new();
        for line in &lines {
            if line.reason == ROLLED_BACK {
                stack.pop();
            } else if stack.last() != Some(&line.model.as_str()) {
                stack.push(&line.model);
            }
        }
        stack.pop();
        let Some(before) = stack.last().map(|id| id.to_string()) else {
            return Err(StoreError::not_possible(
                "no model was in service before this one",
                "promote another one instead",
            ));
        };
        self.promote(person, &before, ROLLED_BACK)?;
        Ok(before)
    }
}

/// The reason that a rollback gives.
const ROLLED_BACK: &str = "rolled back";

fn in_service(c: &Connection) -> rusqlite::Result<Option<ServedModel>> {
    let sql =
        "SELECT m.id, m.path, m.turn, m.flag FROM service s JOIN models m ON m.id = s.model ORDER BY s.id DESC LIMIT 1";
    c.query_row(sql, [], model).optional()
}

fn model(row: &Row) -> rusqlite::Result<ServedModel> {
    Ok(ServedModel { id: row.get(0)?, path: row.get(1)?, turn: row.get(2)?, flag: row.get(3)? })
}
