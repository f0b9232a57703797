//! `ferule run --seeds N` through the binary: each seed's run, what is shown of them together, stopping and going on.

mod support;

use std::path::Path;

use serde_json::Value;
use support::recipe::{RECIPE, folder};
use support::{Run, command, run};

/// A folder whose recipe teaches an answer that is right for three cases in four.
fn toy() -> tempfile::TempDir {
    let folder = folder();
    let line = |i: usize| {
        let answer = if i.is_multiple_of(4) { 8 } else { 7 };
        format!(
            "{{\"prompt\": \"{i}?\", \"answer\": \"{answer}\", \"demonstration\": \"<answer>{answer}</answer>\"}}\n"
        )
    };
    std::fs::write(folder.path().join("cases.jsonl"), (0..80).map(line).collect::<String>()).expect("a file");
    let short = RECIPE[..RECIPE.find("[[stages]]\nkind = \"sample\"").expect("a sample stage")].to_string();
    let recipe = short.replace("max_new_tokens = 8", "max_new_tokens = 24");
    let recipe = recipe.replace("demonstrations = 4", "demonstrations = 4\nepochs = 60\nlearning_rate = 1e-2");
    std::fs::write(folder.path().join("r.toml"), recipe).expect("a file");
    folder
}

fn ferule(folder: &Path, arguments: &[&str]) -> Run {
    let mut command = command(arguments);
    command.current_dir(folder);
    run(command, b"")
}

/// The digest that every stage of a run ended with.
fn digests(run: &Value) -> Vec<&str> {
    run["stages"].as_array().expect("stages").iter().filter_map(|row| row["digest"].as_str()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[test]
fn seeds_are_runs_of_their_own_and_stand_side_by_side() {
    let folder = toy();
    let ferule = |arguments: &[&str]| ferule(folder.path(), arguments);
    let two = ferule(&["run", "r.toml", "--seeds", "2"]);
    assert_eq!(two.code, 0, "{}", two.stderr);
    for shown in ["seed 1", "seed 2", "pooled", "95% interval", "spread", "constant answer", "sft-teacher", "r-seed2\n"]
    {
        assert!(two.stdout.contains(shown), "{shown} is missing in {}", two.stdout);
    }
    assert!(
        two.stderr.contains("seed 1: run r-seed1\n") && two.stderr.contains("seed 2: run r-seed2\n"),
        "{}",
        two.stderr
    );

    // A third seed is added; the two before it are left as they are.
    let three = ferule(&["run", "r.toml", "--seeds", "3", "--json"]);
    assert_eq!(three.stderr.matches("grpo-teacher done in").count(), 1, "{}", three.stderr);
    let report = three.json().remove(0);
    assert_eq!(report["seeds"], serde_json::json!([1, 2, 3]));
    let rows = report["stages"].as_array().expect("rows");
    assert_eq!(
        rows.iter().map(|row| row["stage"].as_str().expect("a name")).collect::<Vec<_>>(),
        ["sft-teacher", "grpo-teacher"]
    );
    for row in rows {
        let found = numbers(&row["accuracies"]);
        let of_runs: Vec<f64> = report["runs"]
            .as_array()
            .expect("runs")
            .iter()
            .map(|run| {
                let stages = run["stages"].as_array().expect("stages");
                stages.iter().find(|stage| stage["stage"] == row["stage"]).expect("a stage")["accuracy"]
                    .as_f64()
                    .expect("measured")
            })
            .collect();
        assert_eq!(found, of_runs);
        let [accuracy, low, high, spread] =
            ["accuracy", "low", "high", "spread"].map(|key| row[key].as_f64().expect("pooled"));
        assert!(
            (accuracy - found.iter().sum::<f64>() / 3.0).abs() < 1e-12 && low < accuracy && accuracy < high,
            "{row}"
        );
        let (most, least) = (found.iter().copied().fold(0.0, f64::max), found.iter().copied().fold(1.0, f64::min));
        assert!((spread - (most - least)).abs() < 1e-12 && most > 0.0, "{row}");
        assert_eq!(row["n"], 30);
    }
    let [first, second] = [0, 1].map(|at| digests(&report["runs"][at]));
    assert_ne!(first, second, "another seed learns otherwise");

    // A seed's run is what its own command makes of it.
    let alone = ferule(&["run", "r.toml", "--set", "seed=2", "--name", "alone", "--json", "--quiet"]).json().remove(0);
    assert_eq!(digests(&alone), second);

    // --from takes every seed back, each with its new keys.
    let changed =
        ["run", "r.toml", "--seeds", "3", "--from", "sft-teacher", "--set", "stages.sft-teacher.epochs=40", "--json"];
    let changed = ferule(&changed).json().remove(0);
    for at in 0..3 {
        let (before, after) = (digests(&report["runs"][at]), digests(&changed["runs"][at]));
        assert!(before[0] != after[0] && before[1] != after[1], "seed {}", at + 1);
    }
}

#[test]
fn what_cannot_be_done_with_seeds_is_refused() {
    let folder = toy();
    let ferule = |more: &[&str]| ferule(folder.path(), &[&["run", "r.toml"], more].concat());
    let refused = |more: &[&str], message: &str| {
        let run = ferule(more);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{more:?}: {}", run.stderr);
        assert!(run.stderr.contains(&format!("error: {message}")), "{}", run.stderr);
        assert!(!folder.path().join("runs").exists());
    };
    refused(&["--seeds", "0"], "invalid value '0' for '--seeds <N>'");
    let twice = "--seeds and --set seed=… name the seeds twice\nhint: the first seed is the recipe's";
    refused(&["--seeds", "2", "--set", "seed=5"], twice);
    refused(&["--seeds", "2", "--set", " seed = 5"], twice);
    let from = "--from: the run r-seed1 has not begun\nhint: leave out --from to run every seed from its beginning\n";
    refused(&["--seeds", "2", "--from", "grpo-teacher"], from);
    refused(
        &["--seeds", "2", "--only", "sft-techer"],
        "run r-seed1: there is no stage \"sft-techer\"\nhint: did you mean \"sft-teacher\"?",
    );

    let recipe = std::fs::read_to_string(folder.path().join("r.toml")).expect("the recipe");
    let largest = recipe.replace("seed = 1", "seed = 9223372036854775806");
    std::fs::write(folder.path().join("r.toml"), largest).expect("a file");
    refused(&["--seeds", "3"], "3 seeds from 9223372036854775806 exceed the largest, 9223372036854775807\nhint: ");
    std::fs::write(folder.path().join("r.toml"), recipe).expect("a file");

    let cost = ferule(&["--seeds", "3", "--dry-run"]);
    assert_eq!(cost.code, 0, "{}", cost.stderr);
    assert!(cost.stdout.contains("name = \"r-seed1\""), "{}", cost.stdout);
    assert!(cost.stderr.contains("All 3 seeds, one after the other: "), "{}", cost.stderr);
    assert!(cost.stderr.ends_with("Runs: r-seed1 to r-seed3.\n"), "{}", cost.stderr);
    assert!(!folder.path().join("runs").exists());
}

#[cfg(unix)]
#[test]
fn seeds_are_stopped_and_gone_on_with() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let folder = toy();
    let mut child = command(&["run", "r.toml", "--seeds", "2", "--set", "stages.sft-teacher.epochs=400"]);
    child.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    lines.find(|line| line == "seed 2: run r-seed2").expect("the first seed's end");
    lines.find(|line| line.starts_with("sft-teacher ")).expect("a line of progress");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("error: run r-seed2: stopped at stage \"sft-teacher\", step ")),
        "{rest:?}"
    );
    assert_eq!(rest.last().expect("a hint"), "hint: the same command resumes the run");

    let again = ferule(folder.path(), &["run", "r.toml", "--seeds", "2", "--set", "stages.sft-teacher.epochs=400"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(again.stderr.matches("sft-teacher done in").count(), 1, "the first seed was done: {}", again.stderr);
    assert!(again.stderr.contains("sft-teacher: resuming after step"), "{}", again.stderr);
}
