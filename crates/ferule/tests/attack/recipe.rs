//! Recipes: every numeric key with numbers that programs stumble over, and a recipe's bytes damaged.
//!
//! Oracle: a dry run ends with the plan, or the recipe is refused at a line and a key.

use std::fs;
use std::path::Path;

use super::harness::{NUMBERS, Random, class, tries};
use super::support::{command, ferule};

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/kill.toml");

/// Every numeric key of the recipe's tables: `stages.sft-teacher.epochs`, `eval.cases`, `task.numbers`.
fn numeric_keys() -> Vec<String> {
    let explained = |word: &str| ferule(&["explain", word], "").stdout;
    // A key is a line of its own, indented by two; its kind comes in the brackets at the end of its sentence.
    let keys_of = |word: &str| {
        let text = explained(word);
        let mut keys = Vec::new();
        for (line, next) in text.lines().zip(text.lines().skip(1)) {
            let kind = next.rsplit_once('(').map_or("", |(_, kind)| kind);
            if line.starts_with("  ")
                && !line.starts_with("   ")
                && (kind.contains("integer") || kind.contains("number"))
            {
                keys.push(line.trim().to_owned());
            }
        }
        keys
    };
    let text = fs::read_to_string(RECIPE).expect("the recipe");
    let recipe: toml::Table = text.parse().expect("TOML");
    let of = |table: &toml::Value, key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let mut keys = vec!["seed".to_owned(), "cost_per_hour".to_owned()];
    keys.extend(keys_of("eval").into_iter().map(|key| format!("eval.{key}")));
    keys.extend(keys_of("countdown").into_iter().map(|key| format!("task.{key}")));
    keys.extend(keys_of("shape").into_iter().map(|key| format!("models.teacher.{key}")));
    for stage in recipe["stages"].as_array().expect("stages") {
        let kind = of(stage, "kind").expect("a kind");
        let name =
            of(stage, "name").or_else(|| Some(format!("{kind}-{}", of(stage, "model")?))).unwrap_or(kind.clone());
        keys.extend(keys_of(&kind).into_iter().map(|key| format!("stages.{name}.{key}")));
        if explained(&kind).contains("keys of `optimisation`") {
            keys.extend(keys_of("optimisation").into_iter().map(|key| format!("stages.{name}.{key}")));
        }
    }
    assert!(keys.len() > 100, "{keys:?}");
    keys
}

fn dry_run(recipe: &Path, more: &[&str]) -> std::process::Command {
    let mut command = command(&["run", "--dry-run", "--quiet", "--runs", "/nonexistent-runs"]);
    command.arg(recipe).args(more);
    command
}

#[test]
fn a_number_is_planned_with_or_refused() {
    let keys = numeric_keys();
    let values: Vec<&str> = NUMBERS.iter().copied().chain(["inf", "nan"]).collect();
    let mut n = 0;
    class("recipe key", |attempt, random: &mut Random| {
        // With enough tries every key gets every value; with few, random ones.
        let n = match tries() as usize >= keys.len() * values.len() {
            true => {
                n += 1;
                n - 1
            }
            false => random.below(keys.len() * values.len()),
        };
        let (key, value) = (&keys[n % keys.len()], values[n / keys.len() % values.len()]);
        let run = attempt.run(&dry_run(Path::new(RECIPE), &["--set", &format!("{key}={value}")]), b"");
        assert!(run.code == 0 || run.stderr.contains("hint: "), "{}: {key} = {value}: {}", attempt.name, run.stderr);
        // Another key may be named: a weight for hidden states needs a teacher.
        let last = key.rsplit('.').next().expect("a key");
        let names = ["kill.toml:", last, "TOML"].iter().any(|name| run.stderr.contains(name));
        assert!(run.code == 0 || names, "{}: {key} = {value} is not named: {}", attempt.name, run.stderr);
    });
}

#[test]
fn a_damaged_recipe_is_planned_or_refused() {
    let whole = fs::read(RECIPE).expect("the recipe");
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = folder.path().join("damaged.toml");
    class("recipe", |attempt, random: &mut Random| {
        let mut bytes = whole.clone();
        random.damage(&mut bytes);
        fs::write(&recipe, bytes).expect("a writable folder");
        let run = attempt.run(&dry_run(&recipe, &[]), b"");
        assert!(run.code == 0 || run.stderr.contains("damaged.toml"), "{}: {}", attempt.name, run.stderr);
    });
}
