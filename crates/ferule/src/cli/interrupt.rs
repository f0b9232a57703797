//! Ctrl-C and termination signals of commands that train.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that Ctrl-C or a termination signal sets. A second signal ends the process at once; the run's files survive
/// that too.
pub fn stopped_by_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nfinishing the step and saving; press Ctrl-C again to stop at once");
    })?;
    Ok(stop)
}
