//! Any bytes at all: reading them as CSV ends in rows or a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use tasks::data::table::{self, Format};

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = table::from_bytes(Path::new("a.csv"), bytes.to_vec()) else { return };
    assert_eq!(table.rows.len(), table.places.len());
    // A compressed file may have more rows than bytes.
    let compressed = matches!(table.format, Format::Excel | Format::Parquet);
    assert!(compressed || table.rows.len() <= bytes.len(), "{} rows of {} bytes", table.rows.len(), bytes.len());
});
