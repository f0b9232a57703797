//! Pretraining on the user's texts, from random weights and from a folder: held-out cases are left out, and a resumed run ends in the same
//! bits.

mod toy;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::{Isa, Queue};
use lm::tokenizer::Tokenizer;
use store::{Runs, StageRow};
use toy::{SecondLetter, comparable};
use train::TrainError;
use train::pipeline::run;
use train::recipe::Recipe;
use train::trainer::{Observer, StepView};

const FIRST: &str = r#"
dtype = "f32"
task = { name = "second_letter" }
eval = { cases = 100, max_new_tokens = 4 }

[models.base]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64

[[stages]]
kind = "tokenizer"
vocab_size = VOCABULARY
texts = "corpus"
documents = 50
prompts = 50

[[stages]]
kind = "pretrain"
model = "base"
texts = "corpus"
tokens = 900
tokens_per_step = 150
context = 32
learning_rate = 1e-2
checkpoint_every_steps = 2
"#;

const SECOND: &str = r#"
dtype = "f32"
task = { name = "second_letter" }
eval = { cases = 100, max_new_tokens = 4 }

[models.base]
path = "BASE"

[[stages]]
kind = "pretrain"
model = "base"
texts = ["corpus", "more.jsonl"]
tokens = 900
tokens_per_step = 150
context = 32
checkpoint_every_steps = 2
"#;

/// Keeps the notices and the losses, and may stop at a step.
struct Recorder<'a> {
    notices: Vec<String>,
    losses: Vec<f64>,
    stop_at: Option<usize>,
    stop: &'a AtomicBool,
}

impl Observer for Recorder<'_> {
    fn stage(&mut self, _: &str, _: u64) {}
    fn step(&mut self, view: &StepView) {
        self.losses.extend(view.metrics.iter().filter(|(name, _)| name == "loss").filter_map(|(_, loss)| *loss));
        if self.stop_at == Some(self.losses.len()) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn notice(&mut self, text: &str) {
        self.notices.push(text.to_string());
    }
    fn finished(&mut self, _: &StageRow) {}
}

/// The end of a run, its notices, and its losses.
struct Ended {
    end: Result<(PathBuf, Vec<StageRow>), TrainError>,
    notices: String,
    losses: Vec<f64>,
}

/// Writes texts in capital letters. Only the toy's cases are in small letters.
fn corpus(folder: &Path) {
    let corpus = folder.join("corpus/sub");
    std::fs::create_dir_all(&corpus).unwrap();
    let line = |i: usize| format!("ARTICLE {i}: WHO TAKES {} PAYS {}.\n", i % 7, (i * i) % 11);
    std::fs::write(folder.join("corpus/law.md"), (0..40).map(line).collect::<String>()).unwrap();
    std::fs::write(corpus.join("held.txt"), "HERE ab STANDS").unwrap();
    std::fs::write(corpus.join("picture.png"), [0u8, 1, 2]).unwrap();
    std::fs::write(folder.join("more.jsonl"), "{\"text\": \"WHO GIVES 3 GETS 4.\"}\n{\"text\": \" \"}\n").unwrap();
}

fn go(folder: &Path, name: &str, recipe: &str, stop_at: Option<usize>) -> Ended {
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, recipe).unwrap();
    let recipe = Recipe::read(&path, &[]).unwrap();
    let queue = Queue::cpu(2, Isa::choose().unwrap());
    let stop = AtomicBool::new(false);
    let runs = Runs::open(folder.join("runs"));
    let mut recorder = Recorder { notices: Vec::new(), losses: Vec::new(), stop_at, stop: &stop };
    let finished = run::<f32>(&queue, &recipe, &SecondLetter, &runs, &mut recorder, &stop);
    let end = finished.map(|finished| (finished.folder, finished.rows));
    Ended { end, notices: recorder.notices.join("\n"), losses: recorder.losses }
}

fn base(folder: &Path, name: &str, vocabulary: &str) -> (String, Ended) {
    let ended = go(folder, name, &FIRST.replace("VOCABULARY", vocabulary), None);
    let (run, _) = ended.end.as_ref().unwrap();
    (run.join("models/pretrain-base").display().to_string(), ended)
}

#[test]
fn pretraining_continues_on_further_texts() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let (base, first) = base(folder.path(), "first", "280");
    assert!(
        first.notices.contains("1 texts;") && first.notices.contains("left out: 1 that hold a held-out case"),
        "{}",
        first.notices
    );
    assert!(first.notices.contains("0 blank; 1 files of other kinds"), "{}", first.notices);
    assert!(first.notices.contains("tokenizer: 1 texts;"), "{}", first.notices);
    let tokenizer = Tokenizer::open_folder(Path::new(&base)).unwrap();
    assert!(tokenizer.encode_user("ARTICLE").len() < 7, "the texts were not counted");
    let (begun, ended) = (first.losses[0], *first.losses.last().unwrap());
    assert!(ended < begun - 0.5, "{:?}", first.losses);

    let recipe = SECOND.replace("BASE", &base);
    let whole = go(folder.path(), "whole", &recipe, None);
    assert!(whole.notices.contains("2 texts;") && whole.notices.contains("1 blank"), "{}", whole.notices);
    assert!((whole.losses[0] - ended).abs() < 0.5, "it starts where the first ended: {:?}", whole.losses);
    let (_, rows) = whole.end.unwrap();

    let cut = go(folder.path(), "cut", &recipe, Some(3));
    assert!(matches!(cut.end, Err(TrainError::Interrupted { step: 3, .. })));
    let (_, resumed) = go(folder.path(), "cut", &recipe, None).end.unwrap();
    assert_eq!(comparable(&resumed), comparable(&rows));
}

#[test]
fn models_of_different_tokenizers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let (one, _) = base(folder.path(), "one", "263");
    let (other, _) = base(folder.path(), "other", "264");
    let recipe = format!("{}\n[models.other]\npath = \"{other}\"\n", SECOND.replace("BASE", &one));
    let error = go(folder.path(), "both", &recipe, None).end.unwrap_err().to_string();
    assert!(error.contains("its tokenizer is not the one of") && error.contains("hint: "), "{error}");
}
