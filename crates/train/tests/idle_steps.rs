//! A reinforcement-learning step in which all groups have equal rewards is counted, and it changes neither weights nor
//! moments.

mod toy;

use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::Runs;
use toy::{SecondLetter, Stopper};
use train::pipeline::run;
use train::recipe::Recipe;

const RECIPE: &str = r#"
task = { name = "second_letter" }
eval = { cases = 10, max_new_tokens = 4 }

[models.m]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[[stages]]
kind = "tokenizer"
vocab_size = 263
documents = 50
prompts = 50

[[stages]]
kind = "sft"
model = "m"
demonstrations = 10
epochs = 1

# Every completion has the same reward, also those of further prompts.
[[stages]]
kind = "grpo"
model = "m"
steps = 3
prompts_per_step = 4
completions_per_prompt = 4
max_new_tokens = 4
dynamic_sampling = true
validate_every_steps = 0
rules = [{ rule = "length", min = 5, max = 9 }]
"#;

#[test]
fn groups_of_equal_rewards_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("toy.toml");
    std::fs::write(&path, RECIPE).expect("a writable folder");
    let recipe = Recipe::read(&path, &[]).expect("a valid recipe");
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at: None, stop: &stop };
    let queue = Queue::cpu(2, Isa::available()[0]);
    let runs = Runs::open(folder.path().join("runs"));
    let rows = run::<f32>(&queue, &recipe, &SecondLetter, &runs, &mut observer, &stop).expect("the pipeline runs").rows;
    assert!(rows[1].digest.is_some() && rows[1].digest == rows[2].digest, "the weights are those before");
    let metrics = runs.view("toy").expect("a run").metrics().expect("metrics");
    let steps: Vec<_> = metrics.iter().filter(|step| step.stage == "grpo-m").collect();
    assert_eq!(steps.len(), 3);
    for step in steps {
        assert_eq!(
            (step.get("updates"), step.get("groups_all_equal")),
            (Some(0.0), Some(12.0)),
            "three attempts of four"
        );
        for figure in ["loss", "gradient_norm", "entropy"] {
            assert!(step.values.iter().any(|(name, value)| name == figure && value.is_none()), "{figure}: {step:?}");
        }
        assert_eq!((step.get("tokens"), step.get("targets")), (Some(0.0), Some(0.0)), "nothing was trained on");
        assert_eq!(step.get("reward"), Some(0.0), "it was rewarded all the same");
    }
}
