//! Damaged, torn and left-over files; refusals.

#[allow(dead_code)]
mod scripted_run;

use std::fs;
use std::path::{Path, PathBuf};

use scripted_run::{FailingDisk, Fate, RECIPE, open, outcome, run_all, run_until};
use store::{Blob, Checkpoint, Notice, Runs, StepMetrics, StoreError};

/// Checkpoint folders by name, oldest first.
fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("road/checkpoints")).unwrap();
    let mut all: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_used() {
    let whole = {
        let folder = tempfile::tempdir().unwrap();
        run_all(&open(folder.path()).unwrap()).unwrap();
        outcome(folder.path())
    };
    type Harm = (&'static str, fn(&Path), &'static str);
    let harms: [Harm; 7] = [
        ("a flipped bit", |c| flip(&c.join("weights")), "weights: its BLAKE3"),
        ("a short blob", |c| truncate(&c.join("weights")), "weights: 2048 bytes where the manifest says 4096"),
        ("a lost blob", |c| fs::remove_file(c.join("weights")).unwrap(), "weights: "),
        ("a torn manifest", |c| truncate(&c.join("manifest.json")), "manifest.json: its BLAKE3"),
        ("a changed manifest", |c| flip(&c.join("manifest.json")), "manifest.json: its BLAKE3"),
        ("no manifest", |c| fs::remove_file(c.join("manifest.json")).unwrap(), "manifest.json: "),
        ("no digest of it", |c| fs::remove_file(c.join("manifest.b3")).unwrap(), "manifest.b3: "),
    ];
    for (name, harm, told) in harms {
        let folder = tempfile::tempdir().unwrap();
        run_until(&open(folder.path()).unwrap(), 6).unwrap();
        assert_eq!(checkpoints(folder.path()).len(), 2, "the last two are kept");
        harm(checkpoints(folder.path()).last().unwrap());
        let run = open(folder.path()).unwrap();
        let damaged: Vec<&Notice> = run.notices().iter().filter(|n| n.kind == "checkpoint_damaged").collect();
        assert!(damaged.len() == 1 && damaged[0].text.contains(told), "{name}: {damaged:?}");
        assert_eq!(run.resumed().unwrap().stage(), "warm", "{name}");
        run_all(&run).unwrap();
        drop(run);
        assert_eq!(outcome(folder.path()), whole, "{name}");
        let told_later = Runs::open(folder.path()).view("road").unwrap().ledger().openings().unwrap();
        assert_eq!(told_later[1].notices[0].kind, "checkpoint_damaged", "{name}");
    }
}

#[test]
fn without_a_good_checkpoint_nothing_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    run_all(&open(folder.path()).unwrap()).unwrap();
    for checkpoint in checkpoints(folder.path()) {
        flip(&checkpoint.join("weights"));
    }
    let before = outcome(folder.path());
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(&error, StoreError::NoGoodCheckpoint { reasons, .. } if reasons.len() == 3), "{error}");
    assert_eq!(outcome(folder.path()), before, "and nothing is dropped");
}

#[test]
fn metrics_or_ledger_shorter_than_the_checkpoint_says_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    run_all(&open(folder.path()).unwrap()).unwrap();
    fs::write(folder.path().join("road/metrics.jsonl"), "").unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("metrics.jsonl has"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    run_all(&open(folder.path()).unwrap()).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("road/ledger.sqlite{suffix}")));
    }
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("ends at row 0"), "{error}");
}

#[test]
fn what_lies_beyond_the_commit_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let run = open(folder.path()).unwrap();
    run_until(&run, 4).unwrap();
    let notice = Notice { kind: "texts_left_out".into(), text: "two".into(), count: 2, ..Notice::default() };
    run.ledger().record_notice(&notice).unwrap();
    run.ledger().record_notice(&notice).unwrap();
    assert_eq!(run.ledger().notices().unwrap().iter().filter(|n| **n == notice).count(), 1, "told twice, written once");
    // Step 1 of `rl` was taken and not committed.
    let view = Runs::open(folder.path()).view("road").unwrap();
    assert_eq!(view.metrics().unwrap().len(), 4);
    assert_eq!(view.rollout_steps("rl").unwrap(), [1]);
    drop((run, view));
    for name in ["checkpoints/.tmp-000009-rl-000002", "models/.tmp-rl", "rollouts/rl/.tmp-step-000002.parquet"] {
        fs::create_dir_all(folder.path().join("road").join(name)).unwrap();
    }

    let run = open(folder.path()).unwrap();
    assert_eq!((run.resumed().unwrap().stage(), run.resumed().unwrap().step()), ("warm", 3));
    assert_eq!(run.ledger().stages().unwrap().len(), 1);
    assert_eq!(run.ledger().metered(&["rl"]).unwrap().answers_read, 0);
    assert_eq!(run.ledger().notices().unwrap().len(), 1, "that of the finished stage stays");
    let view = Runs::open(folder.path()).view("road").unwrap();
    assert_eq!(view.metrics().unwrap().last().unwrap().step, 3);
    for gone in ["checkpoints/.tmp-000009-rl-000002", "models/.tmp-rl", "rollouts/rl/step-000001.parquet"] {
        assert!(!run.folder().join(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read_dir(run.folder().join("rollouts/rl")).unwrap().count(), 0);
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::open(folder.path());
    let run = open(folder.path()).unwrap();
    let error = open(folder.path()).err().unwrap();
    let pid = std::process::id();
    assert!(matches!(error, StoreError::Locked { pid: Some(found), .. } if found == pid), "{error}");
    assert!(runs.list().unwrap()[0].locked);
    drop(run);
    assert!(!runs.list().unwrap()[0].locked);
    open(folder.path()).unwrap();
}

#[test]
fn a_changed_recipe_is_refused_naming_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let runs = Runs::open(folder.path());
    let changed = RECIPE.replace("seed = 7", "seed = 8\nthreads = 2").replace("\"rl\"", "\"grpo\"");
    let error = runs.create_or_resume("road", &changed).err().unwrap().to_string();
    assert!(error.starts_with("run `road` was made by another recipe; 3 keys differ:\n  seed: 7 → 8\n"), "{error}");
    assert!(error.contains("  stages[1].name: \"rl\" → \"grpo\"\n  threads: (absent) → 2"), "{error}");

    let error = runs.create_or_resume("road", "seed = \n").err().unwrap();
    assert!(matches!(error, StoreError::RecipeSyntax { .. }), "{error}");
    let error = runs.create_or_resume("../road", RECIPE).err().unwrap();
    assert!(matches!(error, StoreError::BadName { what: "run", .. }), "{error}");
}

#[test]
fn bad_checkpoints_and_metrics_are_refused_before_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = open(folder.path()).unwrap();
    let with = |names: &[&str]| Checkpoint {
        stage_index: 0,
        stage: "warm".into(),
        step: 1,
        blobs: names.iter().map(|n| Blob::bytes(*n, vec![1])).collect(),
        state: serde_json::Value::Null,
        ends_stage: false,
    };
    for names in [&["a", "a"][..], &["manifest.json"], &["../a"], &[""]] {
        assert!(matches!(run.commit(with(names)), Err(StoreError::BadName { what: "blob", .. })), "{names:?}");
    }
    run.commit(with(&["a"])).unwrap();
    run.flush().unwrap();
    let named_step = StepMetrics::new("warm", 1).with("step", 1.0);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.log_step(&named_step))).is_err());
}

#[test]
fn a_row_of_the_ledger_that_changed_is_noticed() {
    let change = |folder: &Path, sql: &str| {
        let ledger = rusqlite::Connection::open(folder.join("road/ledger.sqlite")).unwrap();
        assert_eq!(ledger.execute(sql, []).unwrap(), 1);
    };
    let whole = {
        let folder = tempfile::tempdir().unwrap();
        run_all(&open(folder.path()).unwrap()).unwrap();
        outcome(folder.path())
    };
    // Every checkpoint was taken with this row.
    let folder = tempfile::tempdir().unwrap();
    run_until(&open(folder.path()).unwrap(), 6).unwrap();
    change(folder.path(), "UPDATE labels SET record_id = 'r9' WHERE id = 1");
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::NoGoodCheckpoint { .. }), "{error}");
    assert!(error.to_string().contains("ledger.sqlite: its rows are not those"), "{error}");
    // This row is younger than the checkpoint before the last.
    let folder = tempfile::tempdir().unwrap();
    run_until(&open(folder.path()).unwrap(), 6).unwrap();
    change(folder.path(), "UPDATE rollout_files SET rows = 7 WHERE step = 2");
    let run = open(folder.path()).unwrap();
    assert!(run.notices().iter().any(|n| n.kind == "checkpoint_damaged"), "{:?}", run.notices());
    run_all(&run).unwrap();
    drop(run);
    assert_eq!(outcome(folder.path()), whole);
}

#[test]
fn files_that_changed_are_told_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    run_all(&open(folder.path()).unwrap()).unwrap();
    let place = |name: &str| folder.path().join("road").join(name);
    for name in ["metrics.jsonl", "rollouts/rl/step-000002.parquet", "models/rl/weights.bin"] {
        flip(&place(name));
    }
    let run = open(folder.path()).unwrap();
    let told = |kind: &str, name: &str| run.notices().iter().any(|n| n.kind == kind && n.text.contains(name));
    assert!(told("metrics_changed", "metrics.jsonl") && told("rollouts_damaged", "step-000002"), "{:?}", run.notices());
    let view = Runs::open(folder.path()).view("road").unwrap();
    assert!(run.rollouts("rl", 1).is_ok() && run.exported_model("warm").is_ok());
    let refused = |error: StoreError, name: &str| {
        let told = error.to_string();
        assert!(matches!(error, StoreError::Damaged { .. }) && told.contains(name), "{told}");
    };
    refused(run.rollouts("rl", 2).unwrap_err(), "step-000002.parquet");
    refused(view.rollouts("rl", 2).unwrap_err(), "step-000002.parquet");
    refused(run.exported_model("rl").unwrap_err(), "weights.bin");
    fs::remove_file(place("models/warm/weights.bin")).unwrap();
    let gone = run.exported_model("warm").unwrap_err().to_string();
    assert!(gone.contains("weights.bin"), "{gone}");
}

#[test]
fn withdrawals_outlive_a_disk_that_fails_anywhere() {
    let sure = FailingDisk::new(Fate::DeadFrom(u64::MAX));
    let (operations, bytes) = {
        let folder = tempfile::tempdir().unwrap();
        Runs::open_on(folder.path(), sure.clone()).withdraw("r1", "asked").unwrap();
        sure.counted()
    };
    let fates = (0..operations).map(Fate::DeadFrom).chain((0..bytes).map(Fate::FullAfter));
    for fate in fates {
        for undo in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (runs, failing) = (Runs::open(folder.path()), Runs::open_on(folder.path(), FailingDisk::new(fate)));
            runs.withdraw("r0", "asked").unwrap();
            let done = match undo {
                true => failing.restore("r0").map(drop),
                false => failing.withdraw("r1", "asked"),
            };
            let left: Vec<String> = runs.withdrawn().unwrap().into_iter().collect();
            let before: &[&str] = &["r0"];
            let after: &[&str] = if undo { &[] } else { &["r0", "r1"] };
            // The last operations make a change durable that is already there.
            assert!(left == after || done.is_err() && left == before, "{fate:?}, undo {undo}: {left:?}, {done:?}");
        }
    }
}
