//! Tests text generation against the full forward pass and against itself: however a completion is computed, its bits
//! are the same.
//!
//! Every equality is tested on every instruction path, in f32 and in bf16, with each golden model.

mod models;

use kernels::rng::Key;
use kernels::{Device, Isa, Queue, Real, Scratch, bf16};
use lm::forward::forward;
use lm::generate::{Completion, Finish, Flow, Limits, Request, Sampling, Scheduler, generate};
use lm::head::{self, HeadBuffers, Targets};
use lm::{Activations, Batch, Keep, Model, Role};

use models::{MODELS, golden, weights};

/// Prompts that end before, on and after the edge of a page, and a prompt of a single token.
const PROMPT_LENS: [usize; 5] = [1, 9, 63, 64, 70];

struct Case<T: Real> {
    name: &'static str,
    queue: Queue,
    model: Model<T>,
}

impl<T: Real> Case<T> {
    fn new(name: &'static str, isa: Isa, threads: usize) -> Self {
        let queue = Queue::cpu(threads, isa);
        let model = Model::new(&queue, &weights(&golden(name).0), Role::Inference);
        Case { name, queue, model }
    }

    fn label(&self) -> String {
        format!("{}, {}, {}", self.name, self.queue.isa().name(), T::DTYPE.name())
    }

    fn prompt(&self, len: usize) -> Vec<u32> {
        let vocabulary = self.model.config().vocab_size as u32;
        (0..len as u32).map(|i| (i * i * 7 + i * 3 + len as u32) % vocabulary).collect()
    }

    fn requests(&self, samples: usize) -> Vec<Request> {
        PROMPT_LENS.iter().enumerate().map(|(i, &len)| request(self.prompt(len), samples, i as u64)).collect()
    }

    fn run(&self, limits: Limits, requests: Vec<Request>) -> Vec<Vec<Completion>> {
        let mut scheduler = Scheduler::new(&self.queue, self.model.config(), limits);
        generate(&self.queue, &self.model, &mut scheduler, requests, &mut |_, _, _| Flow::Continue)
    }
}

fn request(prompt: Vec<u32>, samples: usize, seed: u64) -> Request {
    Request {
        prompt,
        samples,
        sampling: Sampling { temperature: 0.8, ..Sampling::default() },
        max_new_tokens: 12,
        stop_tokens: Vec::new(),
        key: Key::new(seed),
        top_logprobs: 0,
    }
}

fn ids(completion: &Completion) -> Vec<u32> {
    completion.tokens.iter().map(|token| token.id).collect()
}

fn wide() -> Limits {
    Limits { pages: 64, sequences: 32, rows: 512 }
}

/// Runs a check for every model, instruction path and dtype.
macro_rules! everywhere {
    ($case:ident => $check:block) => {
        for name in MODELS {
            for isa in Isa::available() {
                {
                    let $case = Case::<f32>::new(name, isa, 2);
                    $check
                }
                {
                    let $case = Case::<bf16>::new(name, isa, 2);
                    $check
                }
            }
        }
    };
}

/// Log-probabilities of completions as training computes them: one forward pass over packed sequences. If `shared`, the
/// completions share their prompt's segment.
fn logprobs_of_trainer<T: Real>(
    case: &Case<T>,
    requests: &[Request],
    completions: &[Vec<Completion>],
    shared: bool,
) -> Vec<f32> {
    let mut batch = Batch::new();
    let mut wanted = Vec::new();
    for (request, completions) in requests.iter().zip(completions) {
        let (last, before) = request.prompt.split_last().expect("a prompt");
        let parent = (shared && !before.is_empty()).then(|| batch.push(before, None));
        for completion in completions {
            let own = if parent.is_some() { vec![*last] } else { request.prompt.clone() };
            let segment = batch.push(&[own, ids(completion)].concat(), parent);
            let segment = &batch.segments()[segment];
            let end = segment.start + segment.len;
            wanted.extend(end - completion.tokens.len()..end);
        }
    }
    let config = case.model.config();
    let mut activations = Activations::new(Device::Cpu, config, batch.len(), Keep::Nothing);
    forward(&case.queue, &case.model, &batch, &mut activations, &mut Scratch::new(Device::Cpu));
    let targets = Targets::of(&batch, |t| wanted.contains(&t));
    let mut buffers = HeadBuffers::new(Device::Cpu, config);
    head::statistics(&case.queue, &case.model, activations.hidden(config), &targets, 0.8, &mut buffers).logprob
}

#[test]
fn logprobs_are_those_of_the_full_forward() {
    everywhere!(case => {
        let requests = case.requests(3);
        let completions = case.run(wide(), requests.clone());
        let sampled: Vec<f32> =
            completions.iter().flatten().flat_map(|c| c.tokens.iter().map(|token| token.logprob)).collect();
        assert_eq!(sampled.len(), 5 * 3 * 12);
        for shared in [false, true] {
            let trained = logprobs_of_trainer(&case, &requests, &completions, shared);
            assert_eq!(sampled, trained, "{}, shared prompts: {shared}", case.label());
        }
    });
}

#[test]
fn batched_is_single() {
    everywhere!(case => {
        let together = case.run(wide(), case.requests(1));
        for (request, expected) in case.requests(1).into_iter().zip(&together) {
            let alone = &case.run(wide(), vec![request])[0];
            assert_eq!(alone[0].tokens, expected[0].tokens, "{}", case.label());
        }
    });
}

#[test]
fn samples_of_one_prefill_are_samples_run_one_by_one() {
    everywhere!(case => {
        let forked = case.run(wide(), case.requests(4));
        // With one place a group cannot fork, so the prompt is computed again for every sample.
        let one_by_one = case.run(Limits { sequences: 1, ..wide() }, case.requests(4));
        assert_eq!(forked, one_by_one, "{}", case.label());
        assert!(forked.iter().any(|group| group[0].tokens != group[1].tokens), "samples must differ");
    });
}

#[test]
fn a_groups_prompt_is_computed_and_kept_once() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    let (samples, new, prompts) = (8, 12, case.requests(8));
    // Completions of the two longest prompts share the prompt's full page, and each has one more page. Completions of
    // the third prompt have two pages each, because its first page is not full when they fork. Without sharing it would
    // be 64 pages.
    let limits = Limits { pages: 8 + 8 + 16 + 9 + 9, sequences: 40, rows: 512 };
    let mut scheduler = Scheduler::new(&case.queue, case.model.config(), limits);
    generate(&case.queue, &case.model, &mut scheduler, prompts, &mut |_, _, _| Flow::Continue);
    let prompt_tokens: usize = PROMPT_LENS.iter().sum();
    // The last token of a completion is never fed.
    let expected = prompt_tokens + PROMPT_LENS.len() * samples * (new - 1);
    assert_eq!((scheduler.computed_tokens(), scheduler.preemptions()), (expected as u64, 0));
}

#[test]
fn preempted_is_uninterrupted() {
    everywhere!(case => {
        let uninterrupted = case.run(wide(), case.requests(2));
        let mut scheduler =
            Scheduler::new(&case.queue, case.model.config(), Limits { pages: 4, sequences: 8, rows: 512 });
        let preempted =
            generate(&case.queue, &case.model, &mut scheduler, case.requests(2), &mut |_, _, _| Flow::Continue);
        assert!(scheduler.preemptions() > 0, "four pages must be too few");
        assert_eq!(preempted, uninterrupted, "{}", case.label());
    });
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_at_once() {
    everywhere!(case => {
        let at_once = case.run(wide(), case.requests(1));
        for rows in [8, 33] {
            let chunked = case.run(Limits { sequences: 4, rows, ..wide() }, case.requests(1));
            assert_eq!(chunked, at_once, "{}, {rows} rows a step", case.label());
        }
    });
}

#[test]
fn any_number_of_threads_gives_the_same() {
    for name in MODELS {
        for isa in Isa::available() {
            let one = Case::<f32>::new(name, isa, 1);
            let one_bf16 = Case::<bf16>::new(name, isa, 1);
            let (expected, expected_bf16) =
                (one.run(wide(), one.requests(2)), one_bf16.run(wide(), one_bf16.requests(2)));
            for threads in [2, 3] {
                let case = Case::<f32>::new(name, isa, threads);
                assert_eq!(case.run(wide(), case.requests(2)), expected, "{}, {threads} threads", case.label());
                let case = Case::<bf16>::new(name, isa, threads);
                assert_eq!(case.run(wide(), case.requests(2)), expected_bf16, "{}, {threads} threads", case.label());
            }
        }
    }
}

#[test]
fn greedy_continuation_is_that_of_transformers() {
    for name in MODELS {
        let (golden, _) = golden(name);
        let expected: Vec<u32> = golden["result"]["greedy_after_4_tokens_of_segment_0"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|id| id.as_u64().expect("an id") as u32)
            .collect();
        for isa in Isa::available() {
            let case = Case::<f32>::new(name, isa, 2);
            let request = Request {
                sampling: Sampling::greedy(),
                max_new_tokens: expected.len(),
                ..request(models::tokens(&golden)[..4].to_vec(), 1, 0)
            };
            assert_eq!(ids(&case.run(wide(), vec![request])[0][0]), expected, "{}", case.label());
        }
    }
}

#[test]
fn completions_end_at_stop_tokens_limits_and_the_callers_word() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    let free = case.run(wide(), vec![request(case.prompt(9), 1, 3)]).remove(0).remove(0);
    assert_eq!((free.finish, free.tokens.len()), (Finish::Length, 12));

    let stop = free.tokens[4].id;
    let place = free.tokens.iter().position(|token| token.id == stop).expect("it was drawn");
    let stopping = Request { stop_tokens: vec![60, stop], ..request(case.prompt(9), 1, 3) };
    let stopped = case.run(wide(), vec![stopping]).remove(0).remove(0);
    assert_eq!(stopped.finish, Finish::StopToken);
    assert_eq!(stopped.tokens, free.tokens[..=place], "the stop token is part of the completion");

    let mut scheduler = Scheduler::new(&case.queue, case.model.config(), wide());
    let mut seen = 0;
    let ended =
        generate(&case.queue, &case.model, &mut scheduler, vec![request(case.prompt(9), 1, 3)], &mut |_, _, _| {
            seen += 1;
            if seen == 3 { Flow::Stop } else { Flow::Continue }
        });
    assert_eq!((ended[0][0].finish, &ended[0][0].tokens), (Finish::Stopped, &free.tokens[..3].to_vec()));
    assert!(scheduler.is_idle());

    let context = case.model.config().max_position_embeddings;
    let long = Request { max_new_tokens: context, ..request(case.prompt(100), 1, 0) };
    let full = case.run(Limits { pages: 8, sequences: 1, rows: 512 }, vec![long]).remove(0).remove(0);
    assert_eq!((full.finish, full.tokens.len()), (Finish::Length, context - 100));
}

/// Runs all submitted requests to their end. Returns the completions in order.
fn to_the_end(case: &Case<f32>, scheduler: &mut Scheduler<f32>) -> Vec<Completion> {
    let mut completions = Vec::new();
    let mut steps = 0;
    while !scheduler.is_idle() {
        completions.extend(scheduler.step(&case.queue, &case.model, &mut |_, _, _| Flow::Continue));
        steps += 1;
        assert!(steps < 1000, "nothing moves any more");
    }
    completions.sort_by_key(|completion| (completion.request, completion.sample));
    completions
}

#[test]
fn a_cancelled_request_leaves_the_others_as_they_are() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    // Few places, pages and rows, so that some requests wait, some prompts are cut into chunks, and some sequences are
    // preempted.
    for limits in [Limits { pages: 6, sequences: 4, rows: 16 }, wide()] {
        let alone = case.run(limits, case.requests(2));
        for (cancelled, steps) in [(0, 3), (2, 1), (2, 2), (3, 5), (4, 0), (4, 9), (1, 40)] {
            let mut scheduler = Scheduler::new(&case.queue, case.model.config(), limits);
            for request in case.requests(2) {
                scheduler.submit(request);
            }
            let mut completions = Vec::new();
            for _ in 0..steps {
                completions.extend(scheduler.step(&case.queue, &case.model, &mut |_, _, _| Flow::Continue));
            }
            scheduler.cancel(cancelled);
            completions.extend(to_the_end(&case, &mut scheduler));
            completions.retain(|completion| completion.request != cancelled);
            completions.sort_by_key(|completion| (completion.request, completion.sample));
            let expected: Vec<Completion> =
                alone.iter().flatten().filter(|completion| completion.request != cancelled).cloned().collect();
            assert_eq!(completions, expected, "request {cancelled} after {steps} steps");
        }
    }
}

#[test]
fn a_cancelled_request_gives_its_place_and_its_pages_back() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    let limits = Limits { pages: 2, sequences: 1, rows: 512 };
    let expected = case.run(limits, vec![request(case.prompt(70), 1, 7)]).remove(0).remove(0);
    let mut scheduler = Scheduler::new(&case.queue, case.model.config(), limits);
    for _ in 0..3 {
        let number = scheduler.submit(request(case.prompt(70), 1, 3));
        scheduler.step(&case.queue, &case.model, &mut |_, _, _| Flow::Continue);
        scheduler.cancel(number);
        assert!(scheduler.is_idle());
    }
    let number = scheduler.submit(request(case.prompt(70), 1, 7));
    assert_eq!(number, 3, "numbers rise, whatever was taken back");
    assert_eq!(to_the_end(&case, &mut scheduler), [Completion { request: number, ..expected }]);
}

#[test]
fn filters_that_leave_one_token_leave_the_greedy_one() {
    let case = Case::<f32>::new("qwen3", Isa::available()[0], 2);
    let greedy = Request { sampling: Sampling::greedy(), ..request(case.prompt(9), 1, 0) };
    let expected = ids(&case.run(wide(), vec![greedy])[0][0]);
    let hot = Sampling { temperature: 2.0, ..Sampling::default() };
    for sampling in [
        Sampling { top_k: 1, ..hot.clone() },
        Sampling { top_p: 1e-6, ..hot.clone() },
        Sampling { min_p: 1.0, ..hot.clone() },
    ] {
        let filtered = Request { sampling, ..request(case.prompt(9), 1, 0) };
        assert_eq!(ids(&case.run(wide(), vec![filtered])[0][0]), expected);
    }
}

/// The first token of each of many samples of one prompt.
fn first_tokens(case: &Case<f32>, sampling: Sampling, samples: usize) -> Vec<lm::generate::Token> {
    let request = Request { sampling, max_new_tokens: 1, top_logprobs: 61, ..request(case.prompt(9), samples, 11) };
    let mut completions = case.run(Limits { pages: 700, sequences: 512, rows: 512 }, vec![request]).remove(0);
    completions.iter_mut().map(|completion| completion.tokens.remove(0)).collect()
}

#[test]
fn filters_keep_what_they_say_and_logprobs_come_before_them() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    let hot = Sampling { temperature: 1.5, ..Sampling::default() };
    let all = first_tokens(&case, hot.clone(), 1).remove(0).top;
    assert_eq!(all.len(), case.model.config().vocab_size);
    assert!(all.windows(2).all(|pair| pair[0].1 >= pair[1].1), "best first");
    let mass = |count: usize| all[..count].iter().map(|&(_, logprob)| f64::from(logprob).exp()).sum::<f64>();
    assert!((mass(all.len()) - 1.0).abs() < 1e-5, "log-probabilities at the temperature sum to one");

    let kept = |allowed: usize, sampling: Sampling| {
        let drawn = first_tokens(&case, sampling.clone(), 400);
        for token in &drawn {
            let place = all.iter().position(|&(id, _)| id == token.id).expect("every token is listed");
            assert!(place < allowed, "{sampling:?} drew the token of rank {place}");
            assert!((token.logprob - all[place].1).abs() < 1e-6, "the log-probability is that before filters");
        }
        let distinct: std::collections::BTreeSet<u32> = drawn.iter().map(|token| token.id).collect();
        assert!(distinct.len() > 1, "{sampling:?} must leave a choice");
    };
    kept(5, Sampling { top_k: 5, ..hot.clone() });
    let crossing = (1..=all.len()).find(|&count| mass(count) >= 0.5).expect("all the mass");
    kept(crossing, Sampling { top_p: 0.5, ..hot.clone() });
    let likely = all.iter().filter(|(_, logprob)| logprob - all[0].1 >= 0.3f32.ln()).count();
    kept(likely, Sampling { min_p: 0.3, ..hot.clone() });
    kept(crossing.min(likely).min(3), Sampling { top_k: 3, top_p: 0.5, min_p: 0.3, ..hot });
}

#[test]
fn draws_follow_the_distribution() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    for sampling in [Sampling::default(), Sampling { top_k: 61, min_p: 1e-9, ..Sampling::default() }] {
        let draws = first_tokens(&case, sampling, 4000);
        let count = draws.len() as f64;
        for &(id, logprob) in &draws[0].top[..10] {
            let expected = f64::from(logprob).exp();
            let share = draws.iter().filter(|token| token.id == id).count() as f64 / count;
            let deviation = (expected * (1.0 - expected) / count).sqrt();
            assert!((share - expected).abs() < 4.5 * deviation, "token {id}: {share} against {expected}");
        }
    }
}

#[test]
fn a_harsh_penalty_forbids_repetition() {
    let case = Case::<f32>::new("llama", Isa::available()[0], 2);
    let sampling = Sampling { repetition_penalty: 1e6, ..Sampling::greedy() };
    let request = Request { sampling, max_new_tokens: 20, ..request(case.prompt(9), 1, 0) };
    let completion = case.run(wide(), vec![request]).remove(0).remove(0);
    let positive_or_new = |at: usize, id: u32| !ids(&completion)[..at].contains(&id) && !case.prompt(9).contains(&id);
    let repeated = ids(&completion).into_iter().enumerate().filter(|&(at, id)| !positive_or_new(at, id)).count();
    assert_eq!(repeated, 0, "{:?}", ids(&completion));
}
