//! Preference stages: they learn from a user's file of pairs or thumbs, leave held-out cases out, and end in the same
//! bits after an interruption.

mod toy;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::{Runs, StageRow};
use tasks::registry;
use toy::{Stopper, comparable};
use train::TrainError;
use train::pipeline::run;
use train::recipe::Recipe;

const RECIPE: &str = r#"
seed = 3
dtype = "f32"
eval = { cases = 20, max_new_tokens = 8, baseline_demonstrations = 0 }

[task]
name = "jsonl"
path = "cases.jsonl"
template = "{prompt}>"
rules = [{ rule = "format" }, { rule = "exact" }]

[models.pairs]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
initializer_range = 0.15

[models.thumbs]
from = "sft-pairs"

[[stages]]
kind = "tokenizer"
vocab_size = 263
prompts = 50

[[stages]]
kind = "sft"
model = "pairs"
demonstrations = 20
epochs = 20
demonstrations_per_step = 10
learning_rate = 5e-3

[[stages]]
kind = "dpo"
model = "pairs"
path = "pairs.csv"
columns = { prompt = "asked" }
epochs = 20
learning_rate = 1e-3
checkpoint_every_steps = 7

[[stages]]
kind = "kto"
model = "thumbs"
path = "thumbs.jsonl"
thumbs_per_step = 9
epochs = 20
learning_rate = 1e-3
checkpoint_every_steps = 7
"#;

/// Writes the data and the recipe. A prompt is two letters, and the right answer is the second one. Every prompt has a
/// pair that prefers the right answer to a wrong one, and a thumb for each of the two.
fn prepare(folder: &Path) -> Recipe {
    let letters = || "abcdefgh".chars();
    let answer = |letter: char| format!("<think></think><answer>{letter}</answer>");
    let (mut cases, mut pairs, mut thumbs) = (String::new(), "asked,chosen,rejected\n".to_string(), String::new());
    for (a, b) in letters().flat_map(|a| letters().map(move |b| (a, b))) {
        let (right, wrong) = (answer(b), answer(if a == b { 'a' } else { a }));
        cases += &format!("{{\"prompt\": \"{a}{b}\", \"answer\": \"{b}\", \"demonstration\": \"{right}\"}}\n");
        pairs += &format!("{a}{b},{right},{wrong}\n");
        for (text, label) in [(right, true), (wrong, false)] {
            thumbs += &format!("{{\"prompt\": \"{a}{b}\", \"completion\": \"{text}\", \"label\": {label}}}\n");
        }
    }
    std::fs::write(folder.join("cases.jsonl"), cases).expect("a writable folder");
    std::fs::write(folder.join("pairs.csv"), pairs).expect("a writable folder");
    std::fs::write(folder.join("thumbs.jsonl"), thumbs).expect("a writable folder");
    let path = folder.join("toy.toml");
    std::fs::write(&path, RECIPE).expect("a writable folder");
    Recipe::read(&path, &[]).expect("a valid recipe")
}

fn go(folder: &Path, threads: usize, stop_at: Option<usize>) -> Result<Vec<StageRow>, TrainError> {
    let recipe = prepare(folder);
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at, stop: &stop };
    let task = registry::build(&recipe.settings.task, &recipe.settings.folder).expect("the task");
    let queue = Queue::cpu(threads, Isa::available()[0]);
    run::<f32>(&queue, &recipe, &*task, &Runs::open(folder.join("runs")), &mut observer, &stop).map(|done| done.rows)
}

#[test]
fn what_people_prefer_becomes_likelier_and_an_interrupted_run_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().expect("a folder");
    let rows = go(whole.path(), 2, None).expect("the pipeline runs");
    let row = |stage: &str| rows.iter().find(|row| row.stage == stage).expect("a row");
    let view = Runs::open(whole.path().join("runs")).view("toy").expect("a run");
    let figures = |stage: &str, name: &str| -> Vec<f64> {
        let of_stage = view.metrics().unwrap().into_iter().filter(|metrics| metrics.stage == stage);
        of_stage.filter_map(|metrics| metrics.get(name)).collect()
    };
    let margins = figures("dpo-pairs", "reward_margin");
    assert_eq!(margins[0], 0.0, "the first step finds the reference");
    assert!((figures("dpo-pairs", "loss")[0] - 2f64.ln()).abs() < 1e-9);
    assert!(*margins.last().unwrap() > 0.5, "margins went {margins:?}");
    assert!(*figures("dpo-pairs", "reward_accuracy").last().unwrap() > 0.9);
    let (good, bad) = (figures("kto-thumbs", "reward_desirable"), figures("kto-thumbs", "reward_undesirable"));
    assert_eq!((good[0], bad[0], figures("kto-thumbs", "kl")[0]), (0.0, 0.0, 0.0));
    assert!(good.last().unwrap() - bad.last().unwrap() > 0.5, "rewards went {good:?} and {bad:?}");
    let before = row("sft-pairs").accuracy.expect("measured");
    for stage in ["dpo-pairs", "kto-thumbs"] {
        let after = row(stage).accuracy.expect("measured");
        assert!(after >= before, "{stage} fell from {before} to {after}");
    }
    // Preferences on held-out and validation cases are left out: about 45 of the 64 pairs remain, and twice as many
    // thumbs. The other 20 labels are demonstrations.
    let judged = |stage: &str| row(stage).labels - 20;
    assert!((35..60).contains(&judged("dpo-pairs")), "{} pairs", judged("dpo-pairs"));
    assert_eq!(judged("kto-thumbs"), 2 * judged("dpo-pairs"));
    assert_eq!((row("dpo-pairs").answers_read, row("dpo-pairs").rollouts), (0, 0));

    let broken = tempfile::tempdir().expect("a folder");
    let mut stops = 0;
    let rows_broken = loop {
        match go(broken.path(), 1 + stops % 3, Some(1 + (stops * 17) % 23)) {
            Ok(rows) => break rows,
            Err(TrainError::Interrupted { .. }) => stops += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(stops > 5, "{stops} stops");
    assert_eq!(comparable(&rows), comparable(&rows_broken));
}
