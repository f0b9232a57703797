//! Verdicts of judges that may answer differently when asked again: Python functions, HTTP services, models.
//!
//! They are durable before a step uses them, survive the cut back to the commit point, and are replayed when a killed step
//! runs again, so that the run goes the way it would have gone. A verdict that stands is never replaced.
//!
//! Read next: [`crate::run`], for what is cut back.

use std::collections::BTreeMap;

use rusqlite::params;

use super::rows::{Verdict, VerdictKey};
use super::{Ledger, from_word, signed, to_json, to_word, unsigned};
use crate::StoreError;

impl Ledger {
    /// Makes verdicts durable. Where one stands under the same key it stays, and the new one is not kept.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Ledger`].
    ///
    /// # Panics
    /// Where a verdict's rule is not its key's.
    pub fn record_verdicts(&self, verdicts: &[(VerdictKey, Verdict)]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO verdicts (stage, step, record_id, sample, rule, outcome, value, reason)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.insert_each(sql, verdicts, |statement, (key, verdict)| {
            assert_eq!(key.rule, verdict.rule, "a verdict stands under its own rule");
            statement.execute(params![
                key.stage,
                signed(key.step),
                key.record_id,
                key.sample,
                key.rule,
                to_word(&verdict.outcome),
                verdict.value,
                verdict.reason
            ])
        })
    }

    /// Forgets the verdicts of every stage but those `kept`: the others are about to be done again.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub(crate) fn forget_verdicts(&self, kept: &[&str]) -> Result<(), StoreError> {
        let kept = to_json(&kept);
        let sql = "DELETE FROM verdicts WHERE stage NOT IN (SELECT value FROM json_each(?1))";
        self.write(|t| t.execute(sql, params![kept])).map(drop)
    }

    /// The verdicts of one step, to be replayed before anybody is asked.
    ///
    /// # Errors
    /// [`StoreError::Ledger`].
    pub fn verdicts(&self, stage: &str, step: u64) -> Result<BTreeMap<VerdictKey, Verdict>, StoreError> {
        self.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT step, record_id, sample, rule, outcome, value, reason FROM verdicts WHERE stage = ?1 AND step = ?2",
            )?;
            let rows = statement.query_map(params![stage, signed(step)], |row| {
                let rule: String = row.get(3)?;
                let key = VerdictKey {
                    stage: stage.to_owned(),
                    step: unsigned(row, 0)?,
                    record_id: row.get(1)?,
                    sample: row.get(2)?,
                    rule: rule.clone(),
                };
                Ok((key, Verdict { rule, outcome: from_word(row, 4)?, value: row.get(5)?, reason: row.get(6)? }))
            })?;
            rows.collect()
        })
    }
}
