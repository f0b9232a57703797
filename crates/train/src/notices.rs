//! Saying something once: in the ledger, where the report finds it, and to whoever watches.
//!
//! A notice is an event that must not be silent: texts left out, a baseline that could not be measured. What happens step by step is
//! counted in the metrics instead ([`crate::tally`]). A notice written by a stage that was killed before its next checkpoint is dropped
//! with the rest of its work and written again; one that stands is never written twice.
//!
//! Read next: [`store::Ledger::record_notice`].

use store::{Notice, Run};

use crate::error::TrainError;
use crate::trainer::{Observer, Trainer};

/// Writes a notice and says it.
///
/// # Errors
/// The ledger's.
pub(crate) fn notice(
    run: &Run,
    observer: &mut dyn Observer,
    kind: &str,
    stage: Option<&str>,
    count: u64,
    text: String,
) -> Result<(), TrainError> {
    observer.notice(&text);
    let stage = stage.map(str::to_owned);
    Ok(run.ledger().record_notice(&Notice { kind: kind.to_owned(), stage, text, count })?)
}

impl Trainer<'_> {
    /// Writes a notice of this stage and says it.
    ///
    /// # Errors
    /// The ledger's.
    pub(crate) fn notice(&mut self, kind: &str, count: u64, text: String) -> Result<(), TrainError> {
        notice(self.run, self.observer, kind, Some(self.stage), count, text)
    }
}
