//! Episodes of several turns: the prompt of each turn, the log-probabilities that are trained, and how results are counted.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kernels::rng::Key;
use kernels::{Device, Isa, Queue};
use lm::generate::Sampling;
use lm::head::Targets;
use lm::tokenizer::{Tokenizer, TrainOptions};
use lm::{Arena, Config, Model, Role};
use tasks::environment::{Environment, Reply};
use tasks::rewards::RuleSet;
use tasks::{Case, Completion, Grade, Prompt, Split, Task, TaskError};
use train::episodes::{evaluate_episodes, sample_episodes};
use train::error::TrainError;
use train::packing::{Continuation, packed_groups};
use train::prompting::{Prompting, plain_sampling};
use train::rollout::{EncodedPrompt, Plan, sample_encoded};
use train::teacher::local::LocalTeacher;

const NEW_TOKENS: usize = 6;

/// Replies with the number of the turn until the turns are used up, and keeps the completions that it receives.
struct Recorder {
    prompt: String,
    turns: usize,
    completions: Arc<Mutex<Vec<String>>>,
    turn: usize,
}

impl Environment for Recorder {
    fn prompt(&self) -> String {
        self.prompt.clone()
    }
    fn reply(&mut self, completion: &Completion) -> Reply {
        self.completions.lock().unwrap().push(completion.text.to_string());
        self.turn += 1;
        match self.turn == self.turns {
            true if self.prompt == "a" => Reply::Done { reward: 1.0, ending: "won".into() },
            true => Reply::Done { reward: 0.5, ending: "lost".into() },
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
        unreachable!("the environment scores episodes")
    }
    fn game(&self, case: &Case, turns: usize, _: Key) -> Option<Box<dyn Environment>> {
        (case.id != "c").then(|| {
            Box::new(Recorder { prompt: case.prompt_text(), turns, completions: self.0.clone(), turn: 0 })
                as Box<dyn Environment>
        })
    }
    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        Ok(RuleSet::new())
    }
}

fn prompting() -> Prompting {
    let options = TrainOptions { vocab_size: 259, ..TrainOptions::default() };
    let texts = ["a1?b2?", "abc"];
    Prompting::new(Tokenizer::train(texts, &options, Path::new("test")).unwrap(), None, &[]).unwrap()
}

fn model(queue: &Queue, prompting: &Prompting) -> Model<f32> {
    Model::new(queue, &weights(prompting), Role::Inference)
}

fn weights(prompting: &Prompting) -> Arena {
    let shape = serde_json::json!({
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
        "max_position_embeddings": 64, "initializer_range": 0.6,
    });
    let shape = serde_json::from_value(shape).unwrap();
    let config = Config::from_shape(&shape, Some(prompting.tokenizer.vocab_size()), Path::new("test")).unwrap();
    Arena::random(Device::Cpu, &config, 5)
}

#[test]
fn the_prompt_of_a_turn_is_everything_before_it() {
    let (queue, prompting) = (Queue::cpu(1, Isa::available()[0]), prompting());
    let mut model = model(&queue, &prompting);
    let completions = Arc::new(Mutex::new(Vec::new()));
    let task = Recording(completions.clone());
    let cases = task.cases(Split::Heldout, 1, 0).unwrap();
    let result = evaluate_episodes(&queue, &mut model, &prompting, &task, &cases, 3, NEW_TOKENS, Key::new(1)).unwrap();
    assert_eq!((result.n, result.won, result.mean_reward), (1, 1.0, 1.0));
    assert_eq!(result.endings, [("turn 3: won".to_string(), 1)]);

    let plan = Plan { samples: 1, sampling: Sampling::greedy(), max_new_tokens: NEW_TOKENS, key: Key::new(2) };
    let mut tokens = prompting.prompt(&cases[0].prompt).unwrap();
    let mut expected = Vec::new();
    for turn in 1..=3 {
        let prompts = vec![EncodedPrompt { id: "x".into(), tokens: tokens.clone() }];
        let mut groups = sample_encoded(&queue, &mut model, &prompting, prompts, &plan).unwrap();
        let rollout = groups.remove(0).rollouts.remove(0);
        tokens.extend(&rollout.tokens);
        tokens.extend(prompting.tokenizer.encode_user(&format!("{turn}?")));
        expected.push(rollout.text);
    }
    let found = completions.lock().unwrap();
    assert_eq!(*found, expected);
    assert!(found[0] != found[1] || found[1] != found[2], "the completion does not depend on the prompt: {found:?}");
}

#[test]
fn the_trainer_computes_the_log_probabilities_of_every_turn_as_they_were_sampled() {
    let (queue, prompting) = (Queue::cpu(2, Isa::available()[0]), prompting());
    let task = Recording(Arc::default());
    let cases = task.cases(Split::Heldout, 2, 0).unwrap();
    let plan = Plan { samples: 3, sampling: plain_sampling(1.0), max_new_tokens: NEW_TOKENS, key: Key::new(3) };
    let mut model = model(&queue, &prompting);
    let episodes = sample_episodes(&queue, &mut model, &prompting, &task, &cases, 3, &plan).unwrap();
    let replies = [prompting.tokenizer.encode_user("1?"), prompting.tokenizer.encode_user("2?")];
    for ((group, judged), reward) in episodes.iter().zip([1.0, 0.5]) {
        assert_eq!((group.rollouts.len(), judged.len()), (3, 3));
        assert!(judged.iter().all(|judged| judged.reward == Some(reward)));
        for rollout in &group.rollouts {
            let given: Vec<&[u32]> = rollout.given.iter().map(|given| &rollout.tokens[given.clone()]).collect();
            assert_eq!(given, replies);
            assert_eq!(rollout.sampled_tokens(), rollout.sampled().map(|sampled| sampled.len()).sum::<usize>());
        }
    }
    let (first, second) = (&episodes[0].0.rollouts[0], &episodes[0].0.rollouts[1]);
    assert_ne!(first.tokens, second.tokens, "two episodes of one case draw other numbers");

    let continuations = episodes.iter().map(|(group, _)| {
        let of = |rollout| Continuation { rollout, advantage: 1.0, weight: 1.0 };
        (group.prompt.as_slice(), group.rollouts.iter().map(of).collect())
    });
    let [packed] = packed_groups(continuations, 4096).try_into().ok().expect("one micro-batch");
    let targets = Targets::of(&packed.batch, |t| packed.sampled[t]);
    let mut trainer = LocalTeacher::<f32>::new(&queue, &weights(&prompting));
    let computed = trainer.logprobs(&queue, &packed.batch, &targets, 1.0);
    assert_eq!(computed, packed.tokens.logprobs_sampler, "sampler and trainer, over every turn");
}

#[test]
fn episodes_are_counted_and_a_task_without_them_is_refused() {
    let (queue, prompting) = (Queue::cpu(1, Isa::available()[0]), prompting());
    let mut model = model(&queue, &prompting);
    let task = Recording(Arc::default());
    let cases = task.cases(Split::Heldout, 3, 0).unwrap();
    let mut evaluated =
        |cases: &[Case]| evaluate_episodes(&queue, &mut model, &prompting, &task, cases, 2, NEW_TOKENS, Key::new(1));
    let two = evaluated(&cases[..2]).unwrap();
    assert_eq!((two.won, two.mean_reward, two.endings.len()), (0.5, 0.75, 2));
    let error: TrainError = evaluated(&cases).unwrap_err();
    assert!(error.to_string().contains("the task \"recording\" has no episodes"), "{error}");
}
