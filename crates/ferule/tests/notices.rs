//! What a run must not be silent about, through the binary: completions that did not end, groups that were solved, equal or too
//! small, rules that abstained or timed out, a stage that learned nothing. The report names each with the count that the stored
//! completions give.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use store::{Rollout, Runs, VerdictOutcome};
use support::{command, run};

/// Each stage after the first is there for one thing that must not be silent.
const RECIPE: &str = r#"seed = 1
dtype = "f32"

[task]
name = "jsonl"
path = "cases.jsonl"
rules = [{ rule = "exact" }]

[eval]
cases = 6
max_new_tokens = 30
baseline_demonstrations = 4
few_shot_examples = 2

[models.m]
path = "teacher"

[[stages]]
kind = "sft"
model = "m"
demonstrations = 4
epochs = 200
learning_rate = 1e-2

[[stages]]
kind = "grpo"
name = "solved"
model = "m"
steps = 2
prompts_per_step = 8
completions_per_prompt = 3
max_new_tokens = 30
temperature = 0.01
learning_rate = 0.0
validate_every_steps = 0
rules = [{ rule = "length" }]

[[stages]]
kind = "grpo"
name = "cut"
model = "m"
steps = 3
prompts_per_step = 4
completions_per_prompt = 3
max_new_tokens = 1
validate_every_steps = 0
rules = [{ rule = "length", min = 2 }]

[[stages]]
kind = "grpo"
name = "refused"
model = "m"
steps = 2
prompts_per_step = 16
completions_per_prompt = 3
max_new_tokens = 30
learning_rate = 0.0
validate_every_steps = 0
rules = [{ rule = "exact" }]

[[stages]]
kind = "grpo"
name = "late"
model = "m"
steps = 1
prompts_per_step = 8
completions_per_prompt = 2
max_new_tokens = 30
temperature = 0.01
validate_every_steps = 0
rules = [{ rule = "regex", read = "whole", pattern = '(?:(.+)\1?)+[^\s\S]' }]
"#;

fn ferule(folder: &Path, arguments: &[&str]) -> support::Run {
    let mut command: Command = command(arguments);
    command.current_dir(folder);
    run(command, b"")
}

/// A folder with a model, and cases of which a third have no answer and are not held out.
fn folder() -> tempfile::TempDir {
    let folder = support::recipe::folder();
    let line = |i: usize| match i % 3 {
        0 => format!(r#"{{"prompt": "{i}?", "demonstration": "<answer>none, for nobody knows it</answer>"}}"#),
        _ => format!(r#"{{"prompt": "{i}?", "answer": "{i}", "demonstration": "<answer>{i}</answer>"}}"#),
    };
    let lines = |range: std::ops::Range<usize>| range.map(|i| line(i) + "\n").collect::<String>();
    std::fs::write(folder.path().join("cases.jsonl"), lines(0..40)).expect("a file");
    std::fs::write(folder.path().join("r.toml"), RECIPE).expect("a file");
    folder
}

/// What the stored completions of a stage amount to, counted without looking at the metrics.
fn recounted(rows: &[Vec<Rollout>]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    let mut add = |kind, count: usize| *counts.entry(kind).or_default() += count as u64;
    for step in rows {
        add("completions_unfinished", step.iter().filter(|row| !row.finished).count());
        let ended = |row: &&Rollout, outcome| row.verdicts.iter().any(|verdict| verdict.outcome == outcome);
        add("completions_abstained", step.iter().filter(|row| ended(row, VerdictOutcome::Abstain)).count());
        add("completions_timed_out", step.iter().filter(|row| ended(row, VerdictOutcome::TimedOut)).count());
        // A step may ask the same case twice, in two groups.
        for group in step.chunk_by(|_, next| next.sample > 0) {
            let rewards: Vec<f64> = group.iter().filter_map(|row| row.reward).collect();
            match rewards.as_slice() {
                [] | [_] => add("groups_too_small", 1),
                all if all.iter().all(|reward| *reward == 1.0) => add("groups_all_best", 1),
                all if all.iter().all(|reward| *reward == all[0]) => add("groups_all_equal", 1),
                _ => {}
            }
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

#[test]
fn a_report_names_what_must_not_be_silent_with_its_count() {
    let folder = folder();
    let ran = ferule(folder.path(), &["run", "r.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("cut 3/3 loss –"), "a figure that does not exist is not 0: {}", ran.stderr);

    let json = ferule(folder.path(), &["report", "r", "--json"]).json().remove(0);
    let notices: Vec<Value> = json["notices"].as_array().expect("notices").clone();
    let told = |stage: &str| -> BTreeMap<String, u64> {
        let of_stage = notices.iter().filter(|notice| notice["stage"] == stage);
        of_stage.map(|n| (n["kind"].as_str().unwrap().into(), n["count"].as_u64().unwrap())).collect()
    };
    let view = Runs::open(folder.path().join("runs")).view("r").expect("a run");
    for stage in ["solved", "cut", "refused", "late"] {
        let steps = view.rollout_steps(stage).expect("steps");
        let rows: Vec<Vec<Rollout>> = steps.iter().map(|&step| view.rollouts(stage, step).expect("rows")).collect();
        let mut found = told(stage);
        found.retain(|kind, _| kind.starts_with("completions_") || kind.starts_with("groups_"));
        let expected: BTreeMap<String, u64> = recounted(&rows).into_iter().map(|(k, n)| (k.to_owned(), n)).collect();
        assert_eq!(found, expected, "{stage}: {notices:?}");
    }
    assert!(told("solved").contains_key("groups_all_best"), "{notices:?}");
    let cut = told("cut");
    assert_eq!((cut["groups_all_equal"], cut["completions_unfinished"], cut["stage_without_update"]), (12, 36, 3));
    assert!(told("refused").contains_key("groups_too_small") && told("refused").contains_key("completions_abstained"));
    assert!(told("late").contains_key("completions_timed_out"), "{notices:?}");
    assert_eq!(json["stages"][1]["kind"], "grpo");
    assert_eq!((&json["stages"][1]["cost"], &json["stages"][1]["recipe"]), (&Value::Null, &Value::Null));

    assert_eq!(ferule(folder.path(), &["report", "r"]).code, 0);
    let page = std::fs::read_to_string(folder.path().join("runs/r/report.html")).expect("a page");
    for notice in &notices {
        let text = notice["text"].as_str().expect("a sentence").replace('\'', "&#39;");
        assert!(page.contains(&text), "{text} is missing");
    }
    for sentence in [
        "12 of 12 groups were left out, because all their rewards were equal.",
        "36 of 36 sampled completions did not end before the length limit.",
        "The stage made no update in its 3 steps",
    ] {
        assert!(page.contains(sentence), "{sentence} is missing");
    }
    assert!(!page.contains("No completion was cut short"));

    let metrics = std::fs::read_to_string(folder.path().join("runs/r/metrics.jsonl")).expect("metrics");
    let step =
        |stage: &str| metrics.lines().find(|line| line.contains(&format!("\"stage\":\"{stage}\""))).expect("a step");
    assert!(step("cut").contains("\"loss\":null,\"gradient_norm\":null,\"entropy\":null"), "{}", step("cut"));
}

#[test]
fn cases_that_cannot_be_graded_are_in_no_accuracy() {
    let folder = folder();
    let recipe = RECIPE.split("[[stages]]\nkind = \"grpo\"").next().expect("the first stage");
    let go = |name: &str, keep: fn(usize) -> bool, epochs: &str| {
        let line = |i: usize| match keep(i) {
            true => format!(r#"{{"prompt": "{i}?", "answer": "{i}", "demonstration": "<answer>{i}</answer>"}}"#),
            false => format!(r#"{{"prompt": "{i}?", "demonstration": "<answer>{i}</answer>"}}"#),
        };
        let lines: String = (0..40).map(|i| line(i) + "\n").collect();
        std::fs::write(folder.path().join("cases.jsonl"), lines).expect("a file");
        let recipe =
            recipe.replace("seed = 1", &format!("seed = 1\nname = \"{name}\"")).replace("epochs = 200", epochs);
        std::fs::write(folder.path().join("r.toml"), recipe).expect("a file");
        let ran = ferule(folder.path(), &["run", "r.toml", "--json", "--quiet"]);
        (ran.json().remove(0), ran.stderr)
    };
    let notice = |report: &Value| {
        let notices = report["notices"].as_array().expect("notices");
        notices.iter().find(|notice| notice["kind"] == "heldout_ungraded").expect("a notice")["count"].clone()
    };
    let (none, _) = go("none", |_| false, "epochs = 1");
    let asked = notice(&none).as_u64().expect("a count");
    for figure in ["accuracy", "low", "high"] {
        assert_eq!(none["stages"][0][figure], Value::Null, "nothing was graded: {}", none["stages"][0]);
    }
    assert_eq!((&none["stages"][0]["n"], &none["baselines"]), (&0.into(), &Value::Array(Vec::new())));

    let (some, told) = go("some", |i| i % 2 == 0, "epochs = 1");
    let (n, left_out) = (some["stages"][0]["n"].as_u64().expect("a count"), notice(&some).as_u64().expect("a count"));
    assert!(n > 0 && left_out > 0 && n + left_out == asked, "{n} and {left_out} of {asked}");
    assert!(some["stages"][0]["accuracy"].is_number());
    assert!(told.contains(&format!("{left_out} held-out cases are left out of every accuracy")), "{told}");
}
