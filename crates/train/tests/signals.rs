//! Tests the signals of a step against each other, against formulas in f64, and against central differences of their own loss.

use std::path::Path;

use kernels::ops::head::Divergence;
use kernels::rng::Key;
use kernels::{Device, Isa, Queue};
use lm::head::Targets;
use lm::optimizer::Hyperparameters;
use lm::{Arena, Batch, Config, Keep};
use train::packing::packed_completions;
use train::policy::{PolicyLoss, PolicySignal, PolicyTokens};
use train::preference::{CompletionRows, PairLoss, PairLossType, PairSignal};
use train::step::{HiddenSignal, Learner, Signals, SoftLabels, SoftSignal, StepReport};
use train::teacher::local::LocalTeacher;
use train::teacher::{TopK, TopKRequest};

const VOCABULARY: usize = 23;

fn queue() -> Queue {
    Queue::cpu(2, Isa::available()[0])
}

fn weights(hidden: usize, seed: u64) -> Arena {
    let shape = serde_json::json!({
        "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
        "vocab_size": VOCABULARY, "max_position_embeddings": 32, "initializer_range": 0.3,
    });
    let shape = serde_json::from_value(shape).expect("a shape");
    let config = Config::from_shape(&shape, None, Path::new("test")).expect("a valid shape");
    Arena::random(Device::Cpu, &config, seed)
}

/// Two segments, and the weight of each token: prompts have none.
fn batch() -> (Batch, Vec<f32>) {
    let mut batch = Batch::new();
    batch.push(&[3, 1, 4, 1, 5, 9, 2], None);
    batch.push(&[6, 5, 3, 5, 8], None);
    (batch, vec![0.0, 0.0, 0.0, 0.3, 0.2, 0.1, 0.4, 0.0, 0.0, 0.25, 0.5, 0.125])
}

fn learner(queue: &Queue, master: &Arena) -> Learner<f32> {
    Learner::new(queue, master.clone(), Hyperparameters::default(), Keep::Everything)
}

/// The loss and the gradient of one batch.
fn loss_and_gradient(queue: &Queue, master: &Arena, batch: &Batch, signals: &Signals<f32>) -> (f64, Vec<f32>) {
    let mut learner = learner(queue, master);
    learner.accumulate(queue, batch, signals);
    let gradient = learner.gradient().values().to_host();
    (learner.update(queue, 0.0).loss, gradient)
}

#[track_caller]
fn close(what: &str, a: &[f32], b: &[f32], tolerance: f64) {
    let distance: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let size: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>().sqrt();
    assert!(distance <= tolerance * size, "{what}: {distance:e} apart, of {size:e}");
}

/// Compares the gradient along some directions with central differences of the loss.
#[track_caller]
fn agrees_with_central_differences(what: &str, master: &Arena, loss: impl Fn(&Arena) -> f64, gradient: &[f32]) {
    for direction in 0..4 {
        let mut draws = Key::new(direction).word(what).stream();
        let along: Vec<f64> = gradient.iter().map(|_| draws.normal()).collect();
        let moved = |by: f64| {
            let mut moved = master.clone();
            let values: Vec<f32> =
                moved.values().to_host().iter().zip(&along).map(|(w, d)| w + (by * d) as f32).collect();
            moved.values_mut().view_mut().copy_from_host(&values);
            loss(&moved)
        };
        let step = 5e-4;
        let found = (moved(step) - moved(-step)) / (2.0 * step);
        let expected: f64 = gradient.iter().zip(&along).map(|(g, d)| f64::from(*g) * d).sum();
        let size: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!((found - expected).abs() < 1e-2 * size, "{what}: {found} along the direction, {expected} by gradient");
    }
}

fn top_k(
    queue: &Queue,
    teacher: &Arena,
    batch: &Batch,
    weight: &[f32],
    temperature: f32,
    k: usize,
) -> Signals<'static, f32> {
    let targets = Targets::of(batch, |t| weight[t] != 0.0);
    let request = TopKRequest { k, temperature, target_temperature: None };
    let mut teacher = LocalTeacher::<f32>::new(queue, teacher);
    let TopK { ids: top, logprobs: top_logprobs, .. } = teacher.top_k(queue, batch, &targets, request);
    let mut ids: Vec<u32> = (0..batch.len()).flat_map(|_| 0..k as u32).collect();
    let mut logprobs = vec![f32::NEG_INFINITY; ids.len()];
    for (r, &t) in targets.tokens.iter().enumerate() {
        let at = t as usize * k..(t as usize + 1) * k;
        ids[at.clone()].copy_from_slice(&top[r * k..][..k]);
        logprobs[at].copy_from_slice(&top_logprobs[r * k..][..k]);
    }
    let soft = Some(SoftSignal { labels: SoftLabels::TopK { k, ids, logprobs }, weight: weight.to_vec() });
    Signals { soft, ..Signals::none(batch.len(), temperature) }
}

#[test]
fn soft_labels_of_the_whole_vocabulary_are_the_whole_divergence() {
    let (queue, student, teacher) = (queue(), weights(16, 1), weights(24, 2));
    let (batch, weight) = batch();
    for temperature in [1.0, 2.5] {
        let kept = top_k(&queue, &teacher, &batch, &weight, temperature, VOCABULARY);
        let mut local = LocalTeacher::new(&queue, &teacher);
        let (model, activations) = local.forward(&queue, &batch);
        let labels = SoftLabels::Teacher { model, activations, divergence: Divergence::ForwardKl };
        let whole = Signals {
            soft: Some(SoftSignal { labels, weight: weight.clone() }),
            ..Signals::none(batch.len(), temperature)
        };
        let (loss, gradient) = loss_and_gradient(&queue, &student, &batch, &kept);
        let (expected, expected_gradient) = loss_and_gradient(&queue, &student, &batch, &whole);
        assert!(expected > 0.1 && (loss - expected).abs() < 1e-5 * expected, "{loss} against {expected}");
        close("gradient", &gradient, &expected_gradient, 1e-4);
    }
}

#[test]
fn few_soft_labels_are_a_divergence_over_the_tokens_and_one_bucket() {
    let (queue, student, teacher) = (queue(), weights(16, 1), weights(24, 2));
    let (batch, weight) = batch();
    let (temperature, k) = (1.5, 5);
    let targets = Targets::of(&batch, |t| weight[t] != 0.0);
    // The log-probability of every token of the vocabulary, in the order of token ids.
    let all = |weights: &Arena| {
        let mut model = LocalTeacher::<f32>::new(&queue, weights);
        let request = TopKRequest { k: VOCABULARY, temperature, target_temperature: None };
        let TopK { ids, logprobs, .. } = model.top_k(&queue, &batch, &targets, request);
        let mut by_id = vec![0.0f64; ids.len()];
        for (i, (&id, &logprob)) in ids.iter().zip(&logprobs).enumerate() {
            by_id[i / VOCABULARY * VOCABULARY + id as usize] = f64::from(logprob);
        }
        by_id
    };
    let teacher_logprobs = all(&teacher);
    let expected = |student: &Arena| -> f64 {
        let student_logprobs = all(student);
        let row = |r: usize| {
            let (p, q) = (&teacher_logprobs[r * VOCABULARY..][..VOCABULARY], &student_logprobs[r * VOCABULARY..]);
            let mut order: Vec<usize> = (0..VOCABULARY).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
            let known: f64 = order[..k].iter().map(|&i| p[i].exp() * (p[i] - q[i])).sum();
            let rest = |of: &[f64]| order[k..].iter().map(|&i| of[i].exp()).sum::<f64>();
            known + rest(p) * (rest(p) / rest(q)).ln()
        };
        targets.tokens.iter().enumerate().map(|(r, &t)| f64::from(weight[t as usize]) * row(r)).sum()
    };
    let signals = top_k(&queue, &teacher, &batch, &weight, temperature, k);
    let (loss, gradient) = loss_and_gradient(&queue, &student, &batch, &signals);
    assert!((loss - expected(&student)).abs() < 1e-5, "{loss} against {}", expected(&student));
    agrees_with_central_differences("top-k", &student, expected, &gradient);
}

#[test]
fn hidden_states_are_matched_through_one_projection() {
    let queue = queue();
    let (student, teacher) = (weights(16, 3).with_projection(24, Key::new(5)), weights(24, 4));
    let (batch, weight) = batch();
    let mut local = LocalTeacher::<f32>::with_layers(&queue, &teacher);
    let (model, activations) = local.forward(&queue, &batch);
    for (layer, layer_teacher) in [(2, 2), (1, 2), (0, 1)] {
        let rows = activations.residual(model.config(), layer_teacher);
        let signals = || Signals {
            hidden: Some(HiddenSignal { layer, teacher: rows, weight: weight.clone() }),
            ..Signals::none(batch.len(), 1.0)
        };
        let (loss, gradient) = loss_and_gradient(&queue, &student, &batch, &signals());
        // A random projection explains almost nothing of the teacher's hidden states.
        let total: f32 = weight.iter().sum();
        assert!(loss > 0.5 * f64::from(total), "{loss} of {total}");
        let projection = &gradient[gradient.len() - 24 * 16..];
        assert!(projection.iter().any(|&g| g != 0.0), "the projection learns nothing");
        let above = gradient.len() - 24 * 16 - VOCABULARY * 16;
        assert!(layer > 0 || gradient[VOCABULARY * 16..above].iter().all(|&g| g == 0.0), "layers above the tap");
        let loss_of = |master: &Arena| loss_and_gradient(&queue, master, &batch, &signals()).0;
        agrees_with_central_differences(&format!("hidden {layer}"), &student, loss_of, &gradient);
    }
    let own = student.clone().without_projection();
    assert_eq!(own.values().to_host(), weights(16, 3).values().to_host(), "the model's own weights");
    assert_eq!(own.specs().len() + 1, student.specs().len());
}

/// The reward of a token is `log p_teacher − log p_student`. The policy gradient over all tokens, weighted by the student's probabilities,
/// is the gradient of the reverse KL divergence. So the two objectives of on-policy distillation agree in expectation.
#[test]
fn the_reward_of_the_teacher_is_reverse_kl_in_expectation() {
    let (queue, student, teacher) = (queue(), weights(16, 6), weights(24, 7));
    let prompt = [3, 1, 4];
    let mut batch = Batch::new();
    let parent = batch.push(&prompt[..2], None);
    let mut sampled = vec![false; batch.len()];
    for token in 0..VOCABULARY as u32 {
        batch.push(&[prompt[2], token], Some(parent));
        sampled.extend([false, true]);
    }
    let targets = Targets::of(&batch, |t| sampled[t]);
    let log_q = LocalTeacher::<f32>::new(&queue, &student).logprobs(&queue, &batch, &targets, 1.0);
    let log_p = LocalTeacher::<f32>::new(&queue, &teacher).logprobs(&queue, &batch, &targets, 1.0);
    let tokens = PolicyTokens {
        completions: (0..VOCABULARY).map(|i| i..i + 1).collect(),
        logprobs_sampler: log_q.clone(),
        logprobs_reference: None,
        advantage: log_p.iter().zip(&log_q).map(|(p, q)| p - q).collect(),
        weight: log_q.iter().map(|q| q.exp()).collect(),
    };
    let policy = PolicySignal { loss: PolicyLoss::default(), tokens, sampled, on_policy: true };
    let (_, by_reward) = loss_and_gradient(
        &queue,
        &student,
        &batch,
        &Signals { rows: Some(&policy), ..Signals::none(batch.len(), 1.0) },
    );

    let mut one = Batch::new();
    one.push(&[3, 1, 4, 0], None);
    let mut local = LocalTeacher::new(&queue, &teacher);
    let (model, activations) = local.forward(&queue, &one);
    let labels = SoftLabels::Teacher { model, activations, divergence: Divergence::ReverseKl };
    let soft = Some(SoftSignal { labels, weight: vec![0.0, 0.0, 0.0, 1.0] });
    let (_, by_divergence) = loss_and_gradient(&queue, &student, &one, &Signals { soft, ..Signals::none(4, 1.0) });
    close("gradient", &by_reward, &by_divergence, 1e-4);
}

/// Two prompts with two answers each.
const PAIRS: [(&[u32], [&[u32]; 2]); 2] =
    [(&[3, 1, 4], [&[1, 5, 9, 2], &[6, 5]]), (&[7, 2], [&[8, 3], &[5, 3, 5, 8, 9]])];

/// The report and the gradient of IPO on the pairs, in micro-batches of at most `tokens` tokens.
fn preferred(queue: &Queue, master: &Arena, reference: &Arena, tokens: usize) -> (StepReport, Vec<f32>) {
    let (mut learner, mut reference) = (learner(queue, master), LocalTeacher::<f32>::new(queue, reference));
    let loss = PairLoss { loss_type: PairLossType::Ipo, beta: 0.5, label_smoothing: 0.0 };
    for packed in packed_completions(PAIRS.map(|(prompt, answers)| (prompt, answers.to_vec())), tokens) {
        let trained = packed.trained();
        let targets = Targets::of(&packed.batch, |t| trained[t]);
        let logprobs = reference.logprobs(queue, &packed.batch, &targets, 1.0);
        let sum = |rows: std::ops::Range<usize>| logprobs[rows].iter().map(|&x| f64::from(x)).sum();
        let completions: Vec<CompletionRows> =
            packed.rows().into_iter().map(|rows| CompletionRows { reference: sum(rows.clone()), rows }).collect();
        let pairs = completions.chunks_exact(2).map(|pair| [pair[0].clone(), pair[1].clone()]).collect();
        let signal = PairSignal { loss, trained, pairs, weight: 0.5 };
        let signals = Signals { rows: Some(&signal), ..Signals::none(packed.batch.len(), 1.0) };
        learner.accumulate(queue, &packed.batch, &signals);
    }
    let gradient = learner.gradient().values().to_host();
    (learner.update(queue, 0.0), gradient)
}

#[test]
fn whole_completions_are_compared_wherever_their_pairs_stand() {
    let (queue, policy, reference) = (queue(), weights(16, 1), weights(16, 2));
    let (report, gradient) = preferred(&queue, &policy, &reference, 64);
    let loss = |policy: &Arena| preferred(&queue, policy, &reference, 64).0.loss;
    agrees_with_central_differences("pairs", &policy, loss, &gradient);
    let (report_apart, gradient_apart) = preferred(&queue, &policy, &reference, 1);
    close("gradient of one pair a micro-batch", &gradient_apart, &gradient, 1e-5);
    for (name, value) in &report.rows.figures {
        let apart = report_apart.rows.figure(name).expect("the same figures");
        assert!((value - apart).abs() < 1e-9, "{name}: {value} and {apart}");
    }
}

#[test]
fn a_model_that_is_its_own_reference_prefers_nothing() {
    for isa in Isa::available() {
        let (queue, policy) = (Queue::cpu(2, isa), weights(16, 1));
        let (report, _) = preferred(&queue, &policy, &policy, 64);
        assert_eq!(report.rows.figures.len(), 4);
        assert!(report.rows.figures.iter().all(|(_, value)| *value == 0.0), "{}: {report:?}", isa.name());
    }
}
