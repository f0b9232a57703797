//! Every way of learning from a teacher, as a recipe: each runs, teaches, and ends in the same bits when it is interrupted and resumed.

mod toy;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::{Isa, Queue};
use store::{Runs, StageRow};
use toy::{SecondLetter, Stopper, comparable};
use train::TrainError;
use train::pipeline::run;
use train::recipe::Recipe;

const HEAD: &str = r#"
seed = 3
dtype = "f32"
task = { name = "second_letter" }
eval = { cases = 100, max_new_tokens = 4 }

[models.teacher]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
initializer_range = 0.15
tie_word_embeddings = true

[[stages]]
kind = "tokenizer"
vocab_size = 263
documents = 50
prompts = 50

[[stages]]
kind = "sft"
model = "teacher"
demonstrations = 300
epochs = 20
demonstrations_per_step = 30
learning_rate = 5e-3

[[stages]]
kind = "sample"
model = "teacher"
cases = 300
max_new_tokens = 4
top_k = 12
"#;

/// The name of each student, and the keys of its `distill` stage beside the common ones.
const WAYS: &[(&str, &str)] = &[
    ("hard", "hard_weight = 1.0"),
    ("forward", "teacher = \"teacher\"\nsoft_weight = 1.0"),
    ("reverse", "teacher = \"teacher\"\nsoft_weight = 1.0\ndivergence = \"reverse_kl\"\ntemperature = 1.5"),
    ("jsd", "teacher = \"teacher\"\nsoft_weight = 1.0\ndivergence = \"jsd\"\njsd_beta = 0.3"),
    ("kept", "soft_weight = 1.0"),
    ("green", "hard_weight = 1.0"),
    ("hidden", "teacher = \"teacher\"\nsoft_weight = 1.0\nhidden_weight = 0.3\nstudent_layer = 1"),
];

fn recipe(text: &str, folder: &Path) -> Result<Recipe, TrainError> {
    let path = folder.join("toy.toml");
    std::fs::write(&path, text).expect("a writable folder");
    Ok(Recipe::read(&path, &[])?)
}

fn ways() -> String {
    let mut text = HEAD.to_string();
    for (name, keys) in WAYS {
        let epochs = if *name == "green" { 3 } else { 15 };
        text += &format!(
            "[models.{name}]\nhidden_size = 24\nnum_hidden_layers = 2\nnum_attention_heads = 2\n\
             max_position_embeddings = 64\ninitializer_range = 0.15\n\n\
             [[stages]]\nkind = \"distill\"\nmodel = \"{name}\"\ndata = \"sample-teacher\"\nlearning_rate = 5e-3\n\
             epochs = {epochs}\ncheckpoint_every_steps = 4\n{keys}\n"
        );
    }
    // The student samples and the teacher scores. Then the student learns at its own prefixes, without the teacher.
    text += "[[stages]]\nkind = \"sample\"\nname = \"scored\"\nmodel = \"hard\"\nteacher = \"teacher\"\ncases = 200\n\
             max_new_tokens = 4\ntop_k = 12\nsoft_temperature = 2.0\n\
             [[stages]]\nkind = \"distill\"\nname = \"from-scored\"\nmodel = \"hard\"\ndata = \"scored\"\nsoft_weight = 1.0\n\
             temperature = 2.0\nepochs = 1\n\
             [[stages]]\nkind = \"dialogue\"\nmodel = \"green\"\nteacher = \"teacher\"\nobjective = \"policy_gradient\"\n\
             steps = 60\nmax_new_tokens = 4\nlearning_rate = 1e-3\ncheckpoint_every_steps = 3\n";
    text
}

fn go(text: &str, folder: &Path, threads: usize, stop_at: Option<usize>) -> (Result<Vec<StageRow>, TrainError>, usize) {
    let stop = AtomicBool::new(false);
    let mut observer = Stopper { steps: 0, stop_at, stop: &stop };
    let queue = Queue::cpu(threads, Isa::available()[0]);
    let runs = Runs::open(folder.join("runs"));
    let finished =
        recipe(text, folder).and_then(|recipe| run::<f32>(&queue, &recipe, &SecondLetter, &runs, &mut observer, &stop));
    (finished.map(|finished| finished.rows), observer.steps)
}

#[test]
fn every_way_teaches_and_an_interrupted_run_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().expect("a folder");
    let rows = go(&ways(), whole.path(), 2, None).0.expect("the pipeline runs");
    let row = |stage: &str| rows.iter().find(|row| row.stage == stage).expect("a row");
    let accuracy = |stage: &str| row(stage).accuracy.expect("an accuracy");
    assert!(accuracy("sft-teacher") > 0.8, "the teacher reached {}", accuracy("sft-teacher"));
    for (name, keys) in WAYS {
        let reached = accuracy(&format!("distill-{name}"));
        // The green one is trained for three epochs only, so that on-policy distillation has something left to teach it.
        assert!(reached > if *name == "green" { 0.1 } else { 0.6 }, "{name} reached {reached}");
        let teacher_tokens = row(&format!("distill-{name}")).teacher_tokens;
        assert_eq!(teacher_tokens > 0, keys.contains("teacher"), "{name}: the teacher scored {teacher_tokens} tokens");
    }
    let view = Runs::open(whole.path().join("runs")).view("toy").expect("a run");
    let metrics = |stage: &str, name: &str| -> Vec<f64> {
        view.metrics().unwrap().iter().filter(|m| m.stage == stage).map(|m| m.get(name).unwrap()).collect()
    };
    let error = metrics("distill-hidden", "hidden_error");
    assert!(error.last().unwrap() * 2.0 < error[0], "hidden states came from {} to {:?}", error[0], error.last());
    let closeness = metrics("dialogue-green", "closeness");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean(&closeness[45..]) > mean(&closeness[..15]), "closeness went {closeness:?}");
    // The exported model has no projection, and the stored data set holds the teacher's labels.
    let exported = lm::checkpoint::open(&view.model("distill-hidden").unwrap()).unwrap();
    lm::checkpoint::check(exported.config(), exported.tensors()).expect("only the model's own tensors");
    let kept = view.rollouts("scored", 1).unwrap();
    assert!(kept.iter().all(|row| row.logprobs_teacher.is_some() && row.soft.as_ref().is_some_and(|s| s.k == 12)));

    let broken = tempfile::tempdir().expect("a folder");
    let mut stops = 0;
    let rows_broken = loop {
        match go(&ways(), broken.path(), 1 + stops % 3, Some(1 + (stops * 17) % 41)) {
            (Ok(rows), _) => break rows,
            (Err(TrainError::Interrupted { .. }), _) => stops += 1,
            (Err(error), _) => panic!("{error}"),
        }
    };
    assert!(stops > 5, "{stops} stops");
    assert_eq!(comparable(&rows), comparable(&rows_broken));
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let student = "[models.student]\nhidden_size = 24\nnum_hidden_layers = 2\nnum_attention_heads = 2\n\
                   [[stages]]\nkind = \"distill\"\nmodel = \"student\"\ndata = \"sample-teacher\"\n";
    let head = HEAD.replace("epochs = 20", "epochs = 1").replace("cases = 300", "cases = 5");
    for (i, (keys, sample, part)) in [
        ("", "", "neither hard nor soft nor hidden"),
        ("soft_weight = 1", "top_k = 0", "holds none"),
        ("soft_weight = 1\ndivergence = \"jsd\"", "top_k = 4", "likely tokens only"),
        ("soft_weight = 1\ntemperature = 2", "top_k = 4", "temperature 2 over soft labels taken at 1"),
        ("hidden_weight = 1", "", "hidden states need a teacher"),
        ("hidden_weight = 1\nteacher = \"teacher\"\nteacher_layer = 3", "", "teacher_layer: \"teacher\" has 2 layers"),
    ]
    .into_iter()
    .enumerate()
    {
        let head = if sample.is_empty() { head.clone() } else { head.replace("top_k = 12", sample) };
        let inside = folder.path().join(i.to_string());
        std::fs::create_dir(&inside).unwrap();
        let error = go(&format!("{head}{student}{keys}\n"), &inside, 2, None).0.expect_err(part).to_string();
        assert!(error.contains(part) && error.contains("hint: "), "{error}");
    }
}
