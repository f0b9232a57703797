//! `choice`: the answer names the right one of several choices (or the right ones).
//!
//! Notation does not count: A, (A), Ａ. and 选项A are the same choice. With `several`, the answer is a set. It scores 1 if
//! the set is equal to the right one; with `partial`, it scores the F1 of the two sets. The rule abstains if the case's
//! answer is not among the choices.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::quantity;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `choice`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChoiceConfig {
    /// What may be chosen; with an empty list, anything that the case's answer could be.
    pub choices: Vec<String>,
    /// Whether an answer may name several, separated by 、 , ; or blanks.
    pub several: bool,
    /// Whether several choices score by F1 instead of all or nothing.
    pub partial: bool,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    config: ChoiceConfig,
    known: BTreeSet<String>,
}

impl Choice {
    /// The rule with these keys.
    pub fn new(config: ChoiceConfig) -> Choice {
        let known = config.choices.iter().map(|choice| plain(choice)).collect();
        Choice { config, known }
    }

    /// The set of choices that a text names; `None` if it names none, an unknown one, or one twice.
    fn set(&self, text: &str) -> Option<BTreeSet<String>> {
        let whole = plain(text);
        let parts: Vec<String> = if !self.config.several {
            vec![whole]
        } else if is_letters(&whole) && self.known.iter().all(|choice| is_letter(choice)) {
            whole.chars().map(String::from).collect()
        } else {
            let separators = ['、', ',', '，', ';', '；', ' ', '\n'];
            text.split(separators).map(plain).filter(|part| !part.is_empty()).collect()
        };
        let set: BTreeSet<String> = parts.iter().cloned().collect();
        let allowed = |part: &String| !part.is_empty() && (self.known.is_empty() || self.known.contains(part));
        (!set.is_empty() && set.len() == parts.len() && set.iter().all(allowed)).then_some(set)
    }
}

fn is_letter(text: &str) -> bool {
    text.len() == 1 && text.as_bytes()[0].is_ascii_alphabetic()
}

/// Whether the text is a multiple-choice answer without separators, such as ABD.
fn is_letters(text: &str) -> bool {
    !text.is_empty() && text.len() <= 8 && text.chars().all(|c| c.is_ascii_uppercase())
}

fn plain(text: &str) -> String {
    let folded = quantity::fold(text);
    let trimmed = folded.trim().strip_prefix("选项").unwrap_or(folded.trim());
    let trimmed = trimmed.trim_matches(|c: char| c.is_whitespace() || "()[].:。、,\"'“”".contains(c));
    if is_letter(trimmed) { trimmed.to_ascii_uppercase() } else { trimmed.to_string() }
}

impl Configured for Choice {
    const NAME: &'static str = "choice";
    const SUMMARY: &'static str = "The answer names the right choice, or the right set of choices, in any notation.";
    const READS: Reads = Reads::Answer;
    type Keys = ChoiceConfig;

    fn build(keys: ChoiceConfig, _: &Path) -> Result<Choice, Refusal> {
        Ok(Choice::new(keys))
    }
}

impl Rule for Choice {
    fn name(&self) -> &str {
        "choice"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some(right) = evidence.answer.and_then(|answer| self.set(answer)) else {
            return Verdict::Abstain { reason: "the case's answer is none of the choices".to_string() };
        };
        let answer = match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => answer,
            Err(reason) => return Verdict::zero(reason),
        };
        let Some(chosen) = self.set(answer) else {
            return Verdict::zero("the answer is none of the choices");
        };
        let hits = chosen.intersection(&right).count();
        let reason = format!("{hits} of {} chosen are right, {} were to be found", chosen.len(), right.len());
        if self.config.several && self.config.partial {
            Verdict::score(2.0 * hits as f64 / (chosen.len() + right.len()) as f64, reason)
        } else {
            Verdict::pass(chosen == right, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[track_caller]
    fn check(config: &ChoiceConfig, known: &str, answer: &str, expected: Option<f64>) {
        let text = format!("<answer>{answer}</answer>");
        let completion = Completion::finished(&text);
        let verdict =
            Choice::new(config.clone()).judge(&Evidence { prompt: "p", answer: Some(known), completion: &completion });
        assert_eq!(verdict.value(), expected, "{known} / {answer}: {verdict:?}");
    }

    fn letters() -> Vec<String> {
        ["A", "B", "C", "D"].map(String::from).to_vec()
    }

    #[test]
    fn one_choice_in_any_notation() {
        let config = ChoiceConfig { choices: letters(), ..Default::default() };
        for answer in ["B", "b", "(B)", "Ｂ．", "选项B", " B。"] {
            check(&config, "B", answer, Some(1.0));
        }
        check(&config, "B", "A", Some(0.0));
        check(&config, "B", "AB", Some(0.0));
        check(&config, "B", "B or C", Some(0.0));
        check(&config, "E", "B", None);
    }

    #[test]
    fn several_choices_are_a_set() {
        let config = ChoiceConfig { choices: letters(), several: true, partial: true, ..Default::default() };
        check(&config, "AB", "B、A", Some(1.0));
        check(&config, "AB", "BA", Some(1.0));
        check(&config, "AB", "A", Some(2.0 / 3.0));
        check(&config, "A", "ABCD", Some(0.4));
        check(&config, "A", "A、A", Some(0.0));
        let words = ChoiceConfig { several: true, ..Default::default() };
        check(&words, "盗窃、诈骗", "诈骗，盗窃", Some(1.0));
        check(&words, "盗窃、诈骗", "诈骗", Some(0.0));
    }
}
