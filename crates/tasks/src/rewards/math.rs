//! `math`: compares final answers of mathematics, by value if both can be evaluated and otherwise by normalised text.
//!
//! It understands `\boxed{}`, `$…$`, `\frac{a}{b}`, `\text{…}`, degrees, quantities and arithmetic. It does no algebra:
//! x + 1 and 1 + x differ. No crate does what Python's math-verify does; when in doubt, this rule says "wrong".

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use super::{expression, quantity};
use crate::refusal::Refusal;

/// The keys of `math`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MathConfig {
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Math {
    config: MathConfig,
}

impl Math {
    /// The rule with these keys.
    pub fn new(config: MathConfig) -> Math {
        Math { config }
    }
}

/// Whether two final answers are the same.
pub fn equal(answer: &str, known: &str) -> bool {
    let (answer, known) = (plain(answer), plain(known));
    if answer.is_empty() || known.is_empty() {
        return false;
    }
    if answer == known {
        return true;
    }
    if let (Some(answer), Some(known)) = (quantity::parse(&answer), quantity::parse(&known)) {
        return answer.matches(&known, 0.0, 0.0);
    }
    match (value(&answer), value(&known)) {
        (Some(answer), Some(known)) => (answer - known).abs() <= 1e-9 * known.abs(),
        _ => false,
    }
}

fn value(text: &str) -> Option<f64> {
    let exact = expression::evaluate(text).ok().map(|found| found.value.to_f64());
    exact.or_else(|| quantity::parse(text).map(|found| found.value))
}

/// The answer without LaTeX markup and without blanks.
fn plain(text: &str) -> String {
    let folded = quantity::fold(text);
    let mut text = folded.trim().trim_matches('$').trim();
    for (open, close) in [("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}")] {
        if let Some(inner) = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
            text = inner.trim();
        }
    }
    let mut plain = text.to_string();
    for (from, to) in [
        ("\\left", ""),
        ("\\right", ""),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\times", "*"),
        ("\\cdot", "*"),
        ("\\div", "/"),
        ("\\!", ""),
        ("\\,", ""),
        ("\\ ", ""),
        ("{,}", ","),
        ("\\%", "%"),
        ("\\$", "$"),
        ("^\\circ", "°"),
        ("^{\\circ}", "°"),
    ] {
        plain = plain.replace(from, to);
    }
    plain = unwrap_text(&plain);
    plain = fractions(&plain);
    plain.trim_end_matches(['.', '。']).chars().filter(|c| !c.is_whitespace() && *c != '°').collect()
}

/// Turns `\text{cm}` into `cm`.
fn unwrap_text(text: &str) -> String {
    match text.split_once("\\text{").and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (inner, tail))) => unwrap_text(&format!("{head}{inner}{tail}")),
        None => text.to_string(),
    }
}

/// Turns `\frac{a}{b}` into `((a)/(b))`, inner fractions first, at most as often as there are backslashes.
fn fractions(text: &str) -> String {
    let mut text = braced_digits(text);
    while let Some(at) = text.rfind("\\frac{") {
        let Some((above, rest)) = braced(&text[at + 5..]) else { break };
        let Some((below, rest)) = braced(rest) else { break };
        let written =
            if above.chars().chain(below.chars()).all(|c| c.is_ascii_digit()) && text[..at].trim_end().is_empty() {
                format!("{above}/{below}{rest}")
            } else {
                format!("(({above})/({below})){rest}")
            };
        text = format!("{}{written}", &text[..at]);
    }
    text
}

/// Turns `\frac12` into `\frac{1}{2}`, and `1\frac` of a mixed number into `1+\frac`.
fn braced_digits(text: &str) -> String {
    let mut parts = text.split("\\frac");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let digits: Vec<char> = part.chars().take(2).collect();
        if out.ends_with(|c: char| c.is_ascii_digit()) {
            out.push('+');
        }
        match digits[..] {
            [a, b] if a.is_ascii_digit() && b.is_ascii_digit() => {
                out.push_str(&format!("\\frac{{{a}}}{{{b}}}{}", &part[2..]));
            }
            _ => out.push_str(&format!("\\frac{part}")),
        }
    }
    out
}

/// The content of the braces with which `text` begins, and the rest.
fn braced(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let mut depth = 1;
    for (at, c) in inner.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}

impl Configured for Math {
    const NAME: &'static str = "math";
    const SUMMARY: &'static str =
        "The final answer of a mathematical question equals the known one, by value where both can be worked out.";
    const READS: Reads = Reads::Answer;
    type Keys = MathConfig;

    fn build(keys: MathConfig, _: &Path) -> Result<Math, Refusal> {
        Ok(Math::new(keys))
    }
}

impl Rule for Math {
    fn name(&self) -> &str {
        "math"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some(known) = evidence.answer.filter(|known| !plain(known).is_empty()) else {
            return Verdict::Abstain { reason: "the case has no answer".to_string() };
        };
        match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => {
                Verdict::pass(equal(answer, known), format!("answered \"{answer}\", known \"{}\"", known.trim()))
            }
            Err(reason) => Verdict::zero(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_answers_are_compared_by_value() {
        for (answer, known) in [
            ("18", "18.0"),
            ("\\boxed{18}", "18"),
            ("$\\frac{1}{2}$", "0.5"),
            ("\\dfrac{3}{4}", "3/4"),
            ("-\\frac{1}{2}", "-0.5"),
            ("1,000", "1000"),
            ("3 \\times 4", "12"),
            ("50\\%", "0.5"),
            ("x+1", "x + 1"),
            ("90^\\circ", "90"),
            ("18\\text{ cm}", "18"),
            ("\\frac{\\frac{1}{2}}{3}", "1/6"),
            ("\\frac12", "0.5"),
            ("1\\frac{1}{2}", "1.5"),
        ] {
            assert!(equal(answer, known), "{answer} is not {known}: {} / {}", plain(answer), plain(known));
        }
        for (answer, known) in
            [("18", "19"), ("x+1", "1+x"), ("", ""), ("1/2", "2/1"), ("\\frac{1", "1"), ("18 or 19", "18")]
        {
            assert!(!equal(answer, known), "{answer} is {known}");
        }
    }
}
