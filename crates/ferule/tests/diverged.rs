//! A stage that diverges stops with the stage, the step and the tensor, keeps nothing that is not finite, and can be repeated.

mod support;

use std::path::Path;

use support::{Run, command, ferule, run};

fn go(runs: &Path, more: &[&str]) -> Run {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/kill.toml");
    let mut command = command(&["run", recipe, "--quiet", "--only", "tokenizer", "pretrain-teacher", "sft-teacher"]);
    command.arg("--runs").arg(runs).args(more);
    run(command, b"")
}

fn digests(runs: &Path) -> Vec<String> {
    let report = ferule(&["report", "kill", "--json", "--runs", &runs.to_string_lossy()], "").json().remove(0);
    let stages = report["stages"].as_array().expect("stages").clone();
    stages.iter().filter_map(|row| Some(row["digest"].as_str()?.to_string())).collect()
}

#[test]
fn a_stage_that_diverges_stops_and_can_be_repeated() {
    let [peace, diverged] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
    assert_eq!(go(peace.path(), &[]).code, 0);
    let stopped = go(
        diverged.path(),
        &["--set", "stages.sft-teacher.learning_rate=10", "--set", "stages.sft-teacher.weight_decay=100"],
    );
    assert_eq!(stopped.code, 1, "{}", stopped.stderr);
    for part in ["stage \"sft-teacher\": step ", "is not finite: model.", "\nhint: ", "learning_rate"] {
        assert!(stopped.stderr.contains(part), "{part} in {}", stopped.stderr);
    }
    assert_eq!(digests(diverged.path()), digests(peace.path())[..1], "what was finished before is kept");
    let again = go(diverged.path(), &["--from", "sft-teacher"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(digests(diverged.path()), digests(peace.path()));
}
