//! `ferule explain`: every stage, task and rule has its keys, and the reference in the book is the one that the structs give.

mod support;

use std::path::Path;

use support::ferule;

#[test]
fn every_word_of_the_list_is_explained() {
    let listed = ferule(&["explain"], "");
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let words: Vec<&str> =
        listed.stdout.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    for word in ["recipe", "shape", "optimisation", "sft", "grpo", "on_policy_distill"] {
        assert!(words.contains(&word), "{word} is missing in {}", listed.stdout);
    }
    for word in words {
        let told = ferule(&["explain", word], "");
        assert_eq!(told.code, 0, "{word}: {}", told.stderr);
        assert!(told.stdout.starts_with(&format!("{word}: ")), "{}", told.stdout);
    }
}

#[test]
fn a_key_comes_with_its_type_its_default_and_a_sentence() {
    let told = ferule(&["explain", "sft"], "").stdout;
    assert!(
        told.contains("\n  epochs\n      Passes over the demonstrations. (integer from 1 to 100000; 8 by default)\n"),
        "{told}"
    );
    assert!(told.contains("\n  model\n      The model that learns. (text; required)\n"), "{told}");
    // An older word for a stage is explained as the stage.
    assert!(ferule(&["explain", "dialogue"], "").stdout.starts_with("on_policy_distill: "));
}

#[test]
fn a_typo_is_mended() {
    let told = ferule(&["explain", "grop"], "");
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("did you mean \"grpo\""), "{}", told.stderr);
}

#[test]
fn the_reference_in_the_book_is_not_stale() {
    let told = ferule(&["explain", "--markdown"], "").stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/recipe.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "write it again: cargo run --release -- explain --markdown > docs/src/recipe.md";
    assert!(written == told, "docs/src/recipe.md is stale; {hint}");
}
