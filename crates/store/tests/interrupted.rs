//! A run that is interrupted, anywhere and by anything, ends in the same state as a run that was not.

#[allow(dead_code)]
mod scripted_run;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use scripted_run::{FailingDisk, Fate, Outcome, open, open_on, outcome, run_all, run_until};
use store::StoreError;
use store::disk::TEMPORARY;

fn undisturbed() -> (Outcome, u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FailingDisk::new(Fate::DeadFrom(u64::MAX));
    let run = open_on(folder.path(), disk.clone()).unwrap();
    run_all(&run).unwrap();
    drop(run);
    let (operations, bytes) = disk.counted();
    (outcome(folder.path()), operations, bytes)
}

/// Runs on a failing disk, then on a sound one, and returns the outcome and the first error.
fn failed_then_resumed(folder: &Path, fate: Fate) -> (Outcome, Option<StoreError>) {
    let disk = FailingDisk::new(fate);
    let error = open_on(folder, disk).and_then(|run| run_all(&run).err().map_or(Ok(()), Err)).err();
    let run = open_on(folder, FailingDisk::new(Fate::DeadFrom(u64::MAX))).unwrap();
    run_all(&run).unwrap();
    drop(run);
    let left: Vec<PathBuf> = files(&folder.join("road")).into_iter().filter(|path| is_temporary(path)).collect();
    assert!(left.is_empty(), "{fate:?} left {left:?}");
    (outcome(folder), error)
}

/// Every file and folder below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { [files(&path), vec![path]].concat() } else { vec![path] }).collect()
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with(TEMPORARY)
}

#[test]
fn dying_at_any_operation_changes_nothing() {
    let (whole, operations, _) = undisturbed();
    assert!(operations > 100, "{operations} operations are too few to try");
    assert_eq!(whole.stages[1].labels, 3);
    assert_eq!(whole.notices.len(), 2, "one a stage, however often it was resumed");
    assert_eq!(whole.stages[1].answers_read, 1);
    for at in 0..operations {
        let folder = tempfile::tempdir().unwrap();
        let (resumed, _) = failed_then_resumed(folder.path(), Fate::DeadFrom(at));
        assert_eq!(resumed, whole, "died at operation {at} of {operations}");
    }
}

#[test]
fn a_full_disk_at_any_write_stops_clearly_and_changes_nothing() {
    let (whole, _, bytes) = undisturbed();
    // Steps of a prime size reach the middle of every kind of file; the first and last bytes are the edges.
    for room in (0..bytes).step_by(397).chain([1, bytes - 1]) {
        let folder = tempfile::tempdir().unwrap();
        let (resumed, error) = failed_then_resumed(folder.path(), Fate::FullAfter(room));
        let error = error.unwrap_or_else(|| panic!("{room} of {bytes} bytes were enough"));
        assert!(matches!(error, StoreError::DiskFull { .. }), "after {room} bytes: {error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(resumed, whole, "full after {room} of {bytes} bytes");
    }
}

#[test]
fn stopping_between_steps_changes_nothing() {
    let (whole, ..) = undisturbed();
    for steps in 1..8 {
        let folder = tempfile::tempdir().unwrap();
        // Each opening runs `steps` more steps, and those that were not committed are lost. With one step per opening
        // it would never advance.
        for _ in 0..8 {
            let run = open_on(folder.path(), FailingDisk::new(Fate::DeadFrom(u64::MAX))).unwrap();
            run_until(&run, steps.max(2)).unwrap();
        }
        assert_eq!(outcome(folder.path()), whole, "stopped after every {steps} steps");
    }
}

const CHILD: &str = "FERULE_TEST_ROAD";

/// Not a test of its own: the process that [`sigkill_changes_nothing`] kills.
#[test]
fn child() {
    if let Ok(folder) = std::env::var(CHILD) {
        let run = open(Path::new(&folder)).unwrap();
        run_all(&run).unwrap();
    }
}

#[test]
fn sigkill_changes_nothing() {
    let (whole, ..) = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let spawn = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child"]).env(CHILD, folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for delay_ms in [5, 20, 9, 14, 35, 26, 50, 11] {
        let mut child = spawn();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(spawn().wait().unwrap().success());
    assert_eq!(outcome(folder.path()), whole);
}
