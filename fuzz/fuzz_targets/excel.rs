//! Any bytes at all that begin like a workbook: reading them ends in rows or a refusal.
//!
//! This is what the confined worker does, so the limit of memory is the worker's: `-rss_limit_mb=2048`. A panic of the library
//! is a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tasks::data::table;

fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
    if !bytes.starts_with(b"PK") {
        return;
    }
    let Ok(table) = table::from_bytes(Path::new("a.xlsx"), bytes.to_vec()) else { return };
    assert_eq!(table.rows.len(), table.places.len());
});
