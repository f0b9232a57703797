//! Notices: events that the user must hear of. A notice is shown once and written to the ledger, where the report finds it.
//!
//! Examples are texts that were left out and a baseline that could not be measured. What happens in single steps is counted in the metrics
//! instead ([`crate::tally`]). If a stage is killed before its next checkpoint, its notices are dropped with the rest of its work and
//! written again when it runs again. A notice that is in the ledger is never written twice.
//!
//! Read next: [`store::Ledger::record_notice`].

use store::{Notice, Run};

use crate::error::TrainError;
use crate::trainer::{Observer, Trainer};

/// Shows a notice and writes it to the ledger.
///
/// * `kind`: the word by which the report groups notices.
/// * `count`: how many things the notice is about.
///
/// # Errors
/// The ledger cannot be written.
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
    /// Shows a notice of this stage and writes it to the ledger.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub(crate) fn notice(&mut self, kind: &str, count: u64, text: String) -> Result<(), TrainError> {
        notice(self.run, self.observer, kind, Some(self.stage), count, text)
    }
}
