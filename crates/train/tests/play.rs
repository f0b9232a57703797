//! Games of several turns: what the model is asked in each turn, and how games are counted.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kernels::{Device, Isa, Queue};
use lm::generate::Sampling;
use lm::tokenizer::{Tokenizer, TrainOptions};
use lm::{Arena, Config, Model, Role};
use train::codec::Codec;
use train::error::TrainError;
use train::play::play;
use train::rewards::RuleSet;
use train::rng::Key;
use train::rollout::{Asked, Plan, ask};
use train::tasks::environment::{Environment, Reply};
use train::tasks::{Case, Completion, Grade, Prompt, Split, Task, TaskError};

const NEW_TOKENS: usize = 6;

/// Replies with a digit of its own until the turns are used up, and keeps what it was told.
struct Recorder {
    first: String,
    turns: usize,
    told: Arc<Mutex<Vec<String>>>,
    turn: usize,
}

impl Environment for Recorder {
    fn prompt(&self) -> String {
        self.first.clone()
    }
    fn reply(&mut self, completion: &Completion) -> Reply {
        self.told.lock().unwrap().push(completion.text.to_string());
        self.turn += 1;
        match self.turn == self.turns {
            true if self.first == "a" => Reply::Done { reward: 1.0, ending: "held".into() },
            true => Reply::Done { reward: 0.5, ending: "fell".into() },
            false => Reply::Say(format!("{}?", self.turn)),
        }
    }
}

struct Recording(Arc<Mutex<Vec<String>>>);

impl Task for Recording {
    fn name(&self) -> &str {
        "recording"
    }
    fn cases(&self, _: Split, n: usize, _: u64) -> Result<Vec<Case>, TaskError> {
        let case = |text: &str| Case {
            id: text.into(),
            prompt: Prompt::Text(text.into()),
            answer: None,
            record: serde_json::Value::Null,
        };
        Ok(["a", "b", "c"].into_iter().take(n).map(case).collect())
    }
    fn demonstration(&self, _: &Case) -> Option<String> {
        None
    }
    fn bare_answer(&self, _: &Case) -> Option<String> {
        None
    }
    fn corpus(&self, _: u64, _: u64) -> Option<String> {
        None
    }
    fn grade(&self, _: &Case, _: &Completion) -> Grade {
        unreachable!("games are scored by their environment")
    }
    fn game(&self, case: &Case, turns: usize, _: Key) -> Option<Box<dyn Environment>> {
        (case.id != "c").then(|| {
            Box::new(Recorder { first: case.prompt_text(), turns, told: self.0.clone(), turn: 0 })
                as Box<dyn Environment>
        })
    }
    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        Ok(RuleSet::new())
    }
}

fn codec() -> Codec {
    let options = TrainOptions { vocab_size: 259, ..TrainOptions::default() };
    let texts = ["a1?b2?", "abc"];
    Codec::new(Tokenizer::train(texts, &options, Path::new("test")).unwrap(), None, &[]).unwrap()
}

fn model(queue: &Queue, codec: &Codec) -> Model<f32> {
    let shape = serde_json::json!({
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
        "max_position_embeddings": 64, "initializer_range": 0.6,
    });
    let shape = serde_json::from_value(shape).unwrap();
    let config = Config::from_shape(&shape, Some(codec.tokenizer.vocab_size()), Path::new("test")).unwrap();
    Model::new(queue, &Arena::random(Device::Cpu, &config, 5), Role::Inference)
}

#[test]
fn every_turn_sees_what_both_said_before_it() {
    let (queue, codec) = (Queue::cpu(1, Isa::available()[0]), codec());
    let mut model = model(&queue, &codec);
    let told = Arc::new(Mutex::new(Vec::new()));
    let task = Recording(told.clone());
    let cases = task.cases(Split::Heldout, 1, 0).unwrap();
    let games = play(&queue, &mut model, &codec, &task, &cases, 3, NEW_TOKENS, Key::new(1)).unwrap();
    assert_eq!((games.n, games.won, games.mean_reward), (1, 1.0, 1.0));
    assert_eq!(games.endings, [("turn 3: held".to_string(), 1)]);

    let plan = Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens: NEW_TOKENS, key: Key::new(2) };
    let mut tokens = codec.prompt(&cases[0].prompt).unwrap();
    let mut expected = Vec::new();
    for turn in 1..=3 {
        let asked = vec![Asked { id: "x".into(), prompt: tokens.clone() }];
        let said = ask(&queue, &mut model, &codec, asked, &plan).unwrap().remove(0).rollouts.remove(0);
        tokens.extend(&said.tokens);
        tokens.extend(codec.tokenizer.encode_user(&format!("{turn}?")));
        expected.push(said.text);
    }
    let told = told.lock().unwrap();
    assert_eq!(*told, expected);
    assert!(told[0] != told[1] || told[1] != told[2], "the model says the same whatever it reads: {told:?}");
}

#[test]
fn games_are_counted_and_tasks_without_them_named() {
    let (queue, codec) = (Queue::cpu(1, Isa::available()[0]), codec());
    let mut model = model(&queue, &codec);
    let task = Recording(Arc::default());
    let cases = task.cases(Split::Heldout, 3, 0).unwrap();
    let mut games = |cases: &[Case]| play(&queue, &mut model, &codec, &task, cases, 2, NEW_TOKENS, Key::new(1));
    let two = games(&cases[..2]).unwrap();
    assert_eq!((two.won, two.mean_reward, two.endings.len()), (0.5, 0.75, 2));
    let error: TrainError = games(&cases).unwrap_err();
    assert!(error.to_string().contains("recording has no games"), "{error}");
}
