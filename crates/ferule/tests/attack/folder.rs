//! The folder of a run: every file of it damaged, emptied or removed, one at a time.
//!
//! Oracle: the run that is resumed ends in the digests of an undisturbed one, or it is refused and the refusal names the file.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{Attempt, Random, class};
use super::support::recipe::sums;
use super::support::{Run, command, run};

/// A run of five stages, each of which reads what an earlier one wrote; and its data.
const RECIPE: &str = r#"
dtype = "f32"
task = { name = "jsonl", path = "cases.jsonl", rules = [{ rule = "format" }, { rule = "exact" }] }
eval = { cases = 10, max_new_tokens = 10, baseline_demonstrations = 10 }

[models.m]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[models.s]
from = "sft-m"

[[stages]]
kind = "tokenizer"
vocab_size = 263

[[stages]]
kind = "sft"
model = "m"
demonstrations = 20
epochs = 60
learning_rate = 1e-2
warmup_steps = 2
checkpoint_every_steps = 1

[[stages]]
kind = "grpo"
model = "m"
steps = 2
prompts_per_step = 4
completions_per_prompt = 4
max_new_tokens = 10
learning_rate = 1e-4
rules = [{ rule = "length", max = 3, margin = 5 }]
checkpoint_every_steps = 1

[[stages]]
kind = "sample"
model = "m"
cases = 20
max_new_tokens = 10

[[stages]]
kind = "distill"
model = "s"
data = "sample-m"
epochs = 1
hard_weight = 1.0
"#;

fn command_in(folder: &Path, more: &[&str]) -> std::process::Command {
    let mut command = command(&["run", "sums.toml", "--quiet", "--json"]);
    command.args(more).current_dir(folder);
    command
}

/// A folder with the recipe, its data, and the run after the stages before `end`.
fn prepared(end: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("cases.jsonl"), sums("?", None)).expect("a writable folder");
    fs::write(folder.path().join("sums.toml"), RECIPE).expect("a writable folder");
    let only: Vec<&str> = ["--only"].into_iter().chain(end.iter().copied()).collect();
    let begun = run(command_in(folder.path(), &only), b"");
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    folder
}

fn digests(run: &Run) -> Vec<String> {
    let report = run.json().remove(0);
    let rows = report["stages"].as_array().expect("stages").clone();
    rows.iter().filter_map(|row| Some(row["digest"].as_str()?.to_owned())).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a writable folder");
        fs::copy(file, target).expect("a copy");
    }
}

/// Resumes a copy of a run in which one file was changed.
fn resumed(attempt: &Attempt, whole: &Path, expected: &[String], file: &Path, change: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    copy(whole, folder.path());
    change(&folder.path().join(file));
    let run = attempt.run(&command_in(folder.path(), &[]), b"");
    let name = file.file_name().expect("a name").to_string_lossy();
    // SQLite's files belong together, and a checkpoint's are named with it.
    let names = [&*name, "ledger.sqlite", "checkpoints"];
    match run.code {
        0 => assert_eq!(digests(&run), expected, "{}: {}: another result in silence", attempt.name, file.display()),
        _ => assert!(
            names.iter().any(|name| run.stderr.contains(name)),
            "{}: {}: {}",
            attempt.name,
            file.display(),
            run.stderr
        ),
    }
}

#[test]
fn a_damaged_file_of_a_run_changes_nothing_in_silence() {
    let stages = ["tokenizer", "sft-m", "grpo-m", "sample-m", "distill-s"];
    let expected = digests(&run(command_in(prepared(&stages[..1]).path(), &[]), b""));
    assert_eq!(expected.len(), 3);
    let wholes = [prepared(&stages[..2]), prepared(&stages[..4])];
    let mut n = 0;
    class("run folder", |attempt, random: &mut Random| {
        // Both runs, file by file; the kind of damage and its place are random.
        let whole = wholes[n % 2].path();
        let all = files(&whole.join("runs"));
        let file = &all[n / 2 % all.len()];
        n += 1;
        let relative = file.strip_prefix(whole).expect("below");
        if relative.ends_with("lock") {
            return;
        }
        let kind = random.below(8);
        let place = random.next();
        resumed(attempt, whole, &expected, relative, |path| match kind {
            0 => fs::remove_file(path).expect("a file"),
            1 => fs::write(path, "").expect("a file"),
            _ => {
                let mut bytes = fs::read(path).expect("a file");
                if let Some(end) = bytes.len().checked_sub(1) {
                    let at = match kind {
                        2 => place as usize % 100.min(end + 1),
                        3 => end / 2,
                        4 => end,
                        _ => place as usize % (end + 1),
                    };
                    bytes[at] ^= 1 << ((place >> 32) % 8);
                }
                fs::write(path, bytes).expect("a file");
            }
        });
    });
}

#[test]
fn a_file_of_cases_that_changed_is_refused() {
    let folder = prepared(&["tokenizer", "sft-m"]);
    let cases = folder.path().join("cases.jsonl");
    let text = fs::read_to_string(&cases).expect("the cases");
    fs::write(&cases, text.replacen("7 + 7?", "7 + 8?", 1)).expect("a writable folder");
    let refused = run(command_in(folder.path(), &[]), b"");
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("cases.jsonl: it was changed since the run began"), "{}", refused.stderr);
    fs::write(&cases, text).expect("a writable folder");
    assert_eq!(digests(&run(command_in(folder.path(), &[]), b"")).len(), 3);
}

#[test]
fn a_repetition_that_is_refused_leaves_the_run_as_it_was() {
    let folder = prepared(&["tokenizer", "sft-m", "grpo-m", "sample-m", "distill-s"]);
    let ladder = || digests(&run(command_in(folder.path(), &[]), b""));
    let whole = ladder();
    let again = |told: &str| {
        let refused = run(command_in(folder.path(), &["--from", "grpo-m"]), b"");
        assert_ne!(refused.code, 0, "{told}");
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
        let report =
            run(command(&["report", "sums", "--json", "--runs", &folder.path().join("runs").to_string_lossy()]), b"");
        assert_eq!(digests(&report), whole, "{told}");
    };
    let tokenizer = folder.path().join("runs/sums/models/tokenizer/tokenizer.json");
    let text = fs::read(&tokenizer).expect("a tokenizer");
    fs::write(&tokenizer, [&text[..], b" "].concat()).expect("a writable folder");
    again("tokenizer.json");
    fs::write(&tokenizer, text).expect("a writable folder");
    // A case on which every model is measured.
    let mut cases = command(&["task", "sums.toml", "--split", "heldout"]);
    cases.current_dir(folder.path());
    let id = run(cases, b"").json()[0]["id"].as_str().expect("an id").to_owned();
    let withdraw = |more: &[&str]| {
        let mut command = command(&["withdraw", &id]);
        command.args(more).current_dir(folder.path());
        run(command, b"")
    };
    assert_eq!(withdraw(&["--task", "sums.toml"]).code, 0);
    again("was withdrawn after this run began");
    assert_eq!(withdraw(&["--undo"]).code, 0);
    assert_eq!(ladder(), whole);
}

#[test]
fn a_model_of_a_run_that_changed_is_not_used() {
    let folder = prepared(&["tokenizer", "sft-m"]);
    let generate = || {
        let mut command = command(&["generate", "--model", "sums/sft-m", "--max-new-tokens", "2"]);
        command.current_dir(folder.path());
        run(command, br#"{"prompt": "1 + 1?"}"#)
    };
    assert_eq!(generate().code, 0, "{}", generate().stderr);
    let weights = folder.path().join("runs/sums/models/sft-m/model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&weights, bytes).expect("a writable folder");
    let refused = generate();
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("model.safetensors is damaged"), "{}", refused.stderr);
}
