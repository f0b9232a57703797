//! Runs that an older Ferule wrote are opened, for reading and to go on with.

use std::path::Path;

use rusqlite::Connection;
use store::{BaselineRow, Ledger, Runs, StageRow, StoreError};

/// The tables of format 1, as the release that wrote it made them.
const FORMAT_1: &str = include_str!("format_1.sql");

/// A run of format 1: two stages, one baseline, one notice.
fn old_run(folder: &Path) {
    let run = folder.join("old");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("recipe.toml"), "seed = 1\n").unwrap();
    let ledger = Connection::open(run.join("ledger.sqlite")).unwrap();
    ledger.execute_batch(FORMAT_1).unwrap();
    ledger
        .execute_batch(
            "INSERT INTO stages VALUES (3, 'warm', 0, 'sft', 'teacher', 0.5, 0.4, 0.6, 10, 4, 0, 0, 0, 99, 1e9, 2.5, 0.0, 'd', '{}');
             INSERT INTO stages VALUES (4, 'rl', 1, 'grpo', 'teacher', NULL, NULL, NULL, 0, 4, 7, 64, 0, 50, 2e9, 1.5, 0.25, NULL, '{}');
             INSERT INTO baselines VALUES (1, 'constant', 0.1, 0.0, 0.2, 10, 4, 0, 0.0, '{}');
             INSERT INTO notices VALUES (2, 'left_out', 'warm', NULL, 'two texts', 2);
             INSERT INTO verdicts VALUES ('rl', 1, 'case', 0, 'rule', 'score', 1.0, '');",
        )
        .unwrap();
}

fn check(ledger: &Ledger) {
    let stages = ledger.stages().unwrap();
    let told: Vec<_> = stages.iter().map(|row| (row.stage.as_str(), row.kind.as_str(), row.cost)).collect();
    assert_eq!(told, [("warm", "sft", None), ("rl", "grpo", Some(0.25))], "a cost of 0 was no cost");
    assert_eq!((stages[0].accuracy, stages[0].train_tokens, stages[1].accuracy), (Some(0.5), 99, None));
    assert_eq!(ledger.baselines().unwrap()[0].name, "constant");
    assert_eq!((ledger.notices().unwrap()[0].count, ledger.marks().unwrap()["stages"]), (2, 4));
}

#[test]
fn a_ledger_of_format_1_is_read_as_it_is_and_brought_forward_when_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    old_run(folder.path());
    let runs = Runs::open(folder.path());
    let path = folder.path().join("old/ledger.sqlite");
    let before = std::fs::read(&path).unwrap();
    check(runs.view("old").unwrap().ledger());
    assert_eq!(std::fs::read(&path).unwrap(), before, "reading changes nothing");

    let ledger = Ledger::open(&path).unwrap();
    check(&ledger);
    let row = StageRow { index: 2, stage: "more".into(), kind: "sft".into(), ..StageRow::default() };
    ledger.record_stage(&row).unwrap();
    assert!(ledger.record_stage(&row).is_err(), "a stage is still finished once");
    ledger.record_baseline(&BaselineRow { name: "other".into(), ..BaselineRow::default() }).unwrap();
    assert_eq!(ledger.marks().unwrap()["stages"], 5, "ids go on from those that checkpoints speak of");
    drop(ledger);
    assert_eq!(runs.view("old").unwrap().ledger().stages().unwrap()[2], row);
}

#[test]
fn a_ledger_of_a_later_format_is_refused_with_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    old_run(folder.path());
    Connection::open(folder.path().join("old/ledger.sqlite"))
        .unwrap()
        .execute_batch("PRAGMA user_version = 4")
        .unwrap();
    let error = Runs::open(folder.path()).view("old").err().unwrap();
    assert!(matches!(error, StoreError::LaterFormat { found: 4, known: 3, .. }), "{error}");
    assert!(error.hint().is_some(), "{error}");
}
