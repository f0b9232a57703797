//! A road through the binary that is killed with SIGKILL again and again, and once finds its newest checkpoint damaged: it ends as the one
//! that was left in peace. The long version is `bench/kill.sh`.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{command, ferule};

fn go(runs: &Path) -> Command {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/kill.toml");
    let mut command = command(&["run", recipe, "--quiet", "--runs"]);
    command.arg(runs).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Everything that must be equal: the ladder without its clock and what must not be silent, every step's metrics, every rollout file.
fn facts(runs: &Path) -> (Value, Vec<store::StepMetrics>, BTreeMap<String, Vec<u8>>) {
    let mut report = ferule(&["report", "kill", "--json", "--runs", &runs.to_string_lossy()], "").json().remove(0);
    for row in report["stages"].as_array_mut().expect("stages").iter_mut() {
        row["seconds"].take();
    }
    // Only one of the two runs met a damaged checkpoint.
    let notices = report["notices"].as_array_mut().expect("notices");
    notices.retain(|notice| notice["kind"] != "checkpoint_damaged");
    assert!(notices.iter().any(|notice| notice["kind"] == "completions_unfinished"), "{notices:?}");
    let stages = serde_json::json!([report["stages"].take(), report["notices"].take()]);
    let view = store::Runs::open(runs).view("kill").expect("a run");
    let mut metrics = view.metrics().expect("metrics");
    metrics.iter_mut().for_each(|step| step.values.retain(|(name, _)| name != "step_seconds"));
    let mut rollouts = BTreeMap::new();
    for stage in std::fs::read_dir(runs.join("kill/rollouts")).expect("rollouts") {
        for file in std::fs::read_dir(stage.expect("a folder").path()).expect("a stage's rollouts") {
            let path = file.expect("a file").path();
            let bytes = std::fs::read(&path).expect("a readable file");
            rollouts.insert(path.strip_prefix(runs).expect("inside").display().to_string(), bytes);
        }
    }
    (stages, metrics, rollouts)
}

/// Flips a bit of the newest checkpoint, where there is an older one to go back to. Says whether it did.
fn damage(run: &Path) -> bool {
    let Ok(listing) = std::fs::read_dir(run.join("checkpoints")) else { return false };
    let whole = |path: &PathBuf| path.join("manifest.json").exists() && path.join("weights").exists();
    let mut checkpoints: Vec<PathBuf> = listing.map(|entry| entry.expect("an entry").path()).filter(whole).collect();
    checkpoints.sort();
    let [.., _, newest] = checkpoints.as_slice() else { return false };
    let file = newest.join("weights");
    let mut bytes = std::fs::read(&file).expect("a blob");
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).is_ok()
}

#[test]
fn a_killed_road_ends_as_one_left_in_peace() {
    let [peace, killed] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
    let began = Instant::now();
    assert!(go(peace.path()).status().expect("the binary starts").success());
    let whole = began.elapsed();
    let (mut kills, mut damaged) = (0, false);
    // Shares of the whole; few of them are enough for the processes to get far into different stages.
    for share in [0.02, 0.2, 0.1, 0.3, 0.05, 0.25, 0.15] {
        let mut child = go(killed.path()).stderr(Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * share));
        kills += usize::from(child.try_wait().expect("a child").is_none());
        child.kill().expect("a child");
        child.wait().expect("a child");
        damaged = damaged || damage(&killed.path().join("kill"));
    }
    assert!(damaged, "no two checkpoints of weights were met");
    assert!(kills >= 5, "only {kills} kills met a living process");
    assert!(go(killed.path()).status().expect("the binary starts").success());
    let told = ferule(&["report", "kill", "--json", "--runs", &killed.path().to_string_lossy()], "").stdout;
    assert!(told.contains("left out a damaged checkpoint"), "{told}");
    let (expected, found) = (facts(peace.path()), facts(killed.path()));
    assert_eq!(found.0, expected.0);
    assert_eq!(found.1, expected.1);
    assert!(!expected.2.is_empty() && found.2 == expected.2, "rollout files differ");
}

#[test]
fn a_run_has_one_process_and_one_recipe() {
    let runs = tempfile::tempdir().expect("a folder");
    let mut first = go(runs.path()).stderr(Stdio::null()).spawn().expect("the binary starts");
    while !runs.path().join("kill/metrics.jsonl").exists() {
        assert!(first.try_wait().expect("a child").is_none(), "it ended before its first step");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = support::run(go(runs.path()), b"");
    first.kill().expect("a child");
    first.wait().expect("a child");
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("run `kill` is in use") && second.stderr.contains("\nhint: "), "{}", second.stderr);

    let mut changed = go(runs.path());
    changed.args(["--set", "stages.sft-teacher.epochs=7"]);
    let changed = support::run(changed, b"");
    assert_eq!(changed.code, 2, "{}", changed.stderr);
    assert!(changed.stderr.contains("stages[2].epochs: 6 → 7"), "{}", changed.stderr);
}
