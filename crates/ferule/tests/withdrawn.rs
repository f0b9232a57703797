//! `ferule withdraw` on a user's own file: what it finds, and the run that follows.

mod support;

use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use support::recipe::sums;
use support::{command, ferule};

const RECIPE: &str = r#"
task = { name = "jsonl", path = "cases.jsonl", template = "{prompt}?", rules = [{ rule = "format" }, { rule = "exact" }] }
eval = { cases = 10, max_new_tokens = 8, baseline_demonstrations = 10 }

[models.m]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[[stages]]
kind = "tokenizer"
vocab_size = 263

[[stages]]
kind = "sft"
model = "m"
demonstrations = 20
epochs = 1

[[stages]]
kind = "grpo"
model = "m"
steps = 2
prompts_per_step = 8
completions_per_prompt = 4
max_new_tokens = 8
rules = [{ rule = "length", max = 3, margin = 5 }]
"#;

/// A recipe and its file of cases, without line `left_out`.
fn prepare(folder: &Path, left_out: Option<usize>) -> String {
    std::fs::write(folder.join("cases.jsonl"), sums("", left_out)).expect("a writable folder");
    let recipe = folder.join("sums.toml");
    std::fs::write(&recipe, RECIPE).expect("a writable folder");
    recipe.to_string_lossy().into_owned()
}

fn digests(recipe: &str, runs: &str) -> Vec<Value> {
    let run = ferule(&["run", recipe, "--quiet", "--json", "--runs", runs], "");
    let report = run.json().remove(0);
    let digests: Vec<Value> =
        report["stages"].as_array().expect("stages").iter().map(|row| row["digest"].clone()).collect();
    digests.into_iter().filter(|digest| !digest.is_null()).collect()
}

#[test]
fn a_withdrawn_record_is_found_and_left_out() {
    let [with, without] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
    let runs = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let recipe = prepare(with.path(), None);
    let seen = digests(&recipe, &runs(&with, "runs"));
    assert_eq!(seen.len(), 2);

    let cases = ferule(&["task", &recipe, "--n", "1000"], "").json();
    let case = &cases[0];
    let id = case["id"].as_str().expect("an id");
    let runs_with = runs(&with, "runs");
    let asked = ferule(&["withdraw", id, "--dry-run", "--json", "--runs", &runs_with], "").json();
    let row = |stage: &str, digest: &Value| json!({ "id": id, "run": "sums", "stage": stage, "digest": digest });
    assert_eq!(asked, [row("sft-m", &seen[0]), row("grpo-m", &seen[1])]);
    let withdrawn = ferule(&["withdraw", id, "--reason", "asked", "--json", "--runs", &runs_with], "");
    assert_eq!(withdrawn.json(), asked);
    assert!(withdrawn.stderr.contains("withdrawn: "), "{}", withdrawn.stderr);

    let again = ferule(&["run", &recipe, "--quiet", "--json", "--runs", &runs_with, "--name", "again"], "");
    let line = case["prompt"].as_str().and_then(|prompt| prompt.split(' ').next()?.parse().ok()).expect("a number");
    let never = digests(&prepare(without.path(), Some(line)), &runs(&without, "runs"));
    let stages = again.json().remove(0)["stages"].as_array().expect("stages").clone();
    let found: Vec<Value> = stages.into_iter().map(|mut row| row["digest"].take()).filter(|d| !d.is_null()).collect();
    assert_eq!(found, never);
    assert_ne!(found, seen);
    let prompt = case["prompt"].as_str().expect("a prompt");
    let by_text = ["withdraw", "--task", &recipe, "--text", prompt, "--undo", "--runs", &runs_with];
    let undone = ferule(&by_text, "");
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    assert!(
        undone.stderr.contains(id) && undone.stderr.contains("the run again began without it"),
        "{}",
        undone.stderr
    );
    assert_eq!(ferule(&by_text, "").code, 2, "it is not withdrawn any more");
    let typo = ferule(&["withdraw", "ffff", "--task", &recipe, "--runs", &runs_with], "");
    assert_eq!(typo.code, 2, "{}", typo.stderr);
    assert!(typo.stderr.contains("has used the record ffff") && typo.stderr.contains("--unseen"), "{}", typo.stderr);
    let nobody = ferule(&["withdraw", "ffff", "--dry-run", "--runs", &runs_with], "");
    assert_eq!((nobody.code, nobody.stdout.as_str()), (0, ""));
    assert!(nobody.stderr.contains("no model in"), "{}", nobody.stderr);
}

#[test]
fn withdrawals_of_several_processes_at_once_are_all_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let runs = folder.path().join("runs").to_string_lossy().into_owned();
    let withdraw = |id: String| {
        let mut command = command(&["withdraw", &id, "--unseen", "--reason", "asked", "--runs", &runs]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
    };
    for round in 0..20 {
        let children: Vec<Child> = (0..3).map(|of| withdraw(format!("{round:08x}{of:08x}"))).collect();
        for mut child in children {
            assert!(child.wait().expect("a child").success(), "round {round}");
        }
    }
    let list = std::fs::read_to_string(Path::new(&runs).join("withdrawals.jsonl")).expect("the list");
    assert_eq!(list.lines().count(), 60);
}
