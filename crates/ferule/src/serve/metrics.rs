//! Metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::engine::Engine;

/// Upper bounds of the histogram's buckets, in seconds.
const CLASSES: [f64; 10] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, f64::INFINITY];

/// The counts since the server started.
#[derive(Debug, Default)]
pub struct Metrics {
    answers: Mutex<BTreeMap<u16, u64>>,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    first_piece: Durations,
    latency: Durations,
}

#[derive(Debug, Default)]
struct Durations {
    classes: [AtomicU64; CLASSES.len()],
    milliseconds: AtomicU64,
}

impl Durations {
    fn note(&self, since: Instant) {
        let took = since.elapsed();
        let class = CLASSES.iter().position(|end| took.as_secs_f64() <= *end).unwrap_or(CLASSES.len() - 1);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.milliseconds.fetch_add(took.as_millis() as u64, Ordering::Relaxed);
    }

    fn text(&self, name: &str, help: &str) -> String {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        let mut count = 0;
        for (class, end) in self.classes.iter().zip(CLASSES) {
            count += class.load(Ordering::Relaxed);
            let end = if end.is_finite() { end.to_string() } else { "+Inf".to_string() };
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let sum = self.milliseconds.load(Ordering::Relaxed) as f64 / 1000.0;
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
        text
    }
}

impl Metrics {
    /// Counts an answer by its status.
    pub fn answered(&self, status: u16) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }

    /// Counts an accepted prompt.
    pub fn accepted(&self, prompt_tokens: usize) {
        self.prompt_tokens.fetch_add(prompt_tokens as u64, Ordering::Relaxed);
    }

    /// Records how long the first piece of an answer took.
    pub fn begun(&self, began: Instant) {
        self.first_piece.note(began);
    }

    /// Counts a finished answer.
    pub fn finished(&self, began: Instant, tokens: usize) {
        self.latency.note(began);
        self.completion_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// All metrics, including those of the engine if there is one.
    pub fn text(&self, engine: Option<&Engine>) -> String {
        let mut text =
            String::from("# HELP ferule_answers_total Answers by HTTP status.\n# TYPE ferule_answers_total counter\n");
        for (status, count) in self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "ferule_answers_total{{status=\"{status}\"}} {count}");
        }
        let mut single = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        single("ferule_prompt_tokens_total", "counter", "Tokens of accepted prompts.", load(&self.prompt_tokens));
        single(
            "ferule_completion_tokens_total",
            "counter",
            "Tokens that were generated.",
            load(&self.completion_tokens),
        );
        if let Some(engine) = engine {
            let (waiting, running) = engine.load();
            single("ferule_requests_waiting", "gauge", "Completions that wait for a place.", waiting as u64);
            single("ferule_requests_running", "gauge", "Completions that are computed now.", running as u64);
            let _ = writeln!(
                text,
                "# HELP ferule_model_info The model in service.\n# TYPE ferule_model_info gauge\nferule_model_info{{digest=\"{}\"}} 1",
                engine.model().digest
            );
        }
        text +=
            &self.first_piece.text("ferule_first_piece_seconds", "From a request to the first piece of its answer.");
        text += &self.latency.text("ferule_answer_seconds", "From a request to the end of its answer.");
        text
    }
}
