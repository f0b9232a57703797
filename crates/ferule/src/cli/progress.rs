//! Shows the progress of a run: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use store::StageRow;
use train::trainer::{Observer, StepView};

use super::ladder;
use crate::visible::{self, note};

/// Time between two sample rollouts, and between two plain lines.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(20);
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// A progress bar on stderr.
pub struct Terminal {
    bar: ProgressBar,
    sampled: Instant,
}

impl Terminal {
    /// Whether stderr is a terminal.
    pub fn fits() -> bool {
        std::io::stderr().is_terminal()
    }

    /// A bar that waits for its first stage.
    pub fn new() -> Self {
        Self { bar: ProgressBar::hidden(), sampled: Instant::now() }
    }
}

impl Observer for Terminal {
    fn stage(&mut self, name: &str, from_step: u64) {
        let style = ProgressStyle::with_template("{prefix:24} {bar:24} {pos}/{len} {eta:>4} left  {msg}");
        self.bar = ProgressBar::new(0).with_style(style.expect("the template is valid")).with_prefix(name.to_string());
        self.bar.set_position(from_step);
        // The steps before a restart say nothing about the present speed.
        self.bar.reset_eta();
    }

    fn step(&mut self, view: &StepView) {
        self.bar.set_length(view.steps);
        self.bar.set_position(view.step);
        self.bar.set_message(numbers(view));
        if let Some(sample) = view.sample.filter(|_| self.sampled.elapsed() > BETWEEN_SAMPLES) {
            self.sampled = Instant::now();
            self.bar.println(visible::text(&format!("  {}", one_line(sample))));
        }
    }

    fn notice(&mut self, text: &str) {
        // Notices can come before the first stage, when there is no bar yet to print them above.
        self.bar.suspend(|| note!("{text}"));
    }

    fn finished(&mut self, row: &StageRow) {
        self.bar.finish_and_clear();
        note!("{}", ladder::line(row));
    }
}

/// Plain lines on stderr, or nothing.
pub struct Lines {
    quiet: bool,
    said: Option<Instant>,
    sampled: Instant,
}

impl Lines {
    /// With `quiet`, only notices are written.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, said: None, sampled: Instant::now() }
    }
}

impl Observer for Lines {
    fn stage(&mut self, name: &str, from_step: u64) {
        self.said = None;
        if !self.quiet && from_step > 0 {
            note!("{name}: resuming after step {from_step}");
        }
    }

    fn step(&mut self, view: &StepView) {
        let due = self.said.is_none_or(|said| said.elapsed() > BETWEEN_LINES) || view.step == view.steps;
        if self.quiet || !due {
            return;
        }
        self.said = Some(Instant::now());
        note!("{} {}/{} {}", view.stage, view.step, view.steps, numbers(view));
        if let Some(sample) = view.sample.filter(|_| self.sampled.elapsed() > BETWEEN_SAMPLES) {
            self.sampled = Instant::now();
            note!("  {}", one_line(sample));
        }
    }

    fn notice(&mut self, text: &str) {
        note!("{text}");
    }

    fn finished(&mut self, row: &StageRow) {
        if !self.quiet {
            note!("{}", ladder::line(row));
        }
    }
}

/// The step's most important figures; an en dash stands for a figure that the step does not have.
fn numbers(view: &StepView) -> String {
    let of = |name: &str| view.metrics.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let shown = ["loss", "reward", "divergence", "closeness", "kept", "validation_accuracy", "unfinished"];
    let figure = |name: &&str| {
        let value = of(name)?.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        Some(format!("{} {value}", name.replace('_', " ")))
    };
    let mut parts: Vec<String> = shown.iter().filter_map(figure).collect();
    if let Some(tokens) = of("tokens").flatten().filter(|&tokens| tokens > 0.0) {
        parts.push(format!("{:.0} tokens/s", tokens / view.seconds.max(1e-9)));
    }
    parts.join("  ")
}

fn one_line(text: &str) -> String {
    text.replace('\n', "⏎").chars().take(160).collect()
}
