//! Any text at all: reading it as a `config.json` ends in an error or in a configuration that reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm::Config;
use std::path::Path;

fuzz_target!(|text: &str| {
    let Ok(config) = Config::from_json(text, Path::new("config.json")) else { return };
    assert!(config.rotary_frequencies().iter().all(|frequency| frequency.is_finite()));
    assert_eq!(Config::from_json(&config.to_json(), Path::new("config.json")).expect("its own text"), config);
});
