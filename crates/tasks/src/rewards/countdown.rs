//! `countdown`: the answer is an expression that uses each of the prompt's numbers exactly once and gives its target.
//!
//! It uses the prompt alone and knows no solution. The last whole number of the prompt is the target, and the others
//! are the given numbers. If the prompt has a list in square brackets, the list holds the given numbers, and the first
//! number after it is the target. An answer may end in `= target`; any other result after `=` is wrong.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::expression::{self, Ratio};
use super::quantity;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `countdown`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CountdownConfig {
    /// The score of an expression that uses every number once and misses the target.
    #[schemars(
        range(min = 0.0, max = 0.5),
        extend("hint" = "a policy that is paid more than half for a wrong answer learns to give it")
    )]
    pub partial: f64,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

impl Default for CountdownConfig {
    fn default() -> CountdownConfig {
        CountdownConfig { partial: 0.1, read: ReadFrom::default() }
    }
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Countdown {
    config: CountdownConfig,
}

impl Countdown {
    /// The rule with these keys.
    pub fn new(config: CountdownConfig) -> Countdown {
        Countdown { config }
    }
}

impl Configured for Countdown {
    const NAME: &'static str = "countdown";
    const SUMMARY: &'static str =
        "The answer is an expression that uses each of the prompt's numbers exactly once and gives its target.";
    const READS: Reads = Reads::Prompt;
    type Keys = CountdownConfig;

    fn build(keys: CountdownConfig, _: &Path) -> Result<Countdown, Refusal> {
        Ok(Countdown::new(keys))
    }
}

/// The given numbers and the target of a prompt.
pub fn parse_prompt(prompt: &str) -> Option<(Vec<i64>, i64)> {
    let folded = quantity::fold(prompt);
    let bracketed = folded.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match bracketed {
        Some((list, rest)) => Some((whole_numbers(list)?, *whole_numbers(rest)?.first()?)),
        None => {
            let mut numbers = whole_numbers(&folded)?;
            let target = numbers.pop()?;
            (!numbers.is_empty()).then_some((numbers, target))
        }
    }
}

fn whole_numbers(text: &str) -> Option<Vec<i64>> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).map(|run| run.parse().ok()).collect()
}

/// The value of `expression`, if it uses each of `numbers` exactly once.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn value_of(expression: &str, numbers: &[i64]) -> Result<Ratio, String> {
    let found = expression::evaluate(expression)?;
    // Signs are refused, because they could turn a number into another; only operations between numbers are allowed.
    if found.operators + 1 != found.numbers.len() {
        return Err("signs are not allowed, only operations between numbers".to_string());
    }
    let mut left: Vec<Ratio> = numbers.iter().map(|number| Ratio::integer(i128::from(*number))).collect();
    for number in &found.numbers {
        let place = left.iter().position(|given| given == number);
        left.swap_remove(place.ok_or_else(|| format!("{} was not given, or is used twice", number.to_f64()))?);
    }
    match left.len() {
        0 => Ok(found.value),
        unused => Err(format!("{unused} of the given numbers are not used")),
    }
}

impl Rule for Countdown {
    fn name(&self) -> &str {
        "countdown"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some((numbers, target)) = parse_prompt(evidence.prompt) else {
            return Verdict::Abstain { reason: "the prompt gives no numbers and target".to_string() };
        };
        let answer = match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => answer,
            Err(reason) => return Verdict::zero(reason),
        };
        let folded = quantity::fold(answer);
        let (expression, claimed) = match folded.split_once('=') {
            Some((expression, claimed)) => (expression, Some(claimed.trim())),
            None => (folded.as_str(), None),
        };
        if claimed.is_some_and(|claimed| claimed.parse() != Ok(target)) {
            return Verdict::zero("the result after = is not the target");
        }
        match value_of(expression, &numbers) {
            Err(reason) => Verdict::zero(reason),
            Ok(value) if value == Ratio::integer(i128::from(target)) => Verdict::pass(true, format!("gives {target}")),
            Ok(value) => Verdict::score(self.config.partial, format!("gives {}, not {target}", value.to_f64())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[track_caller]
    fn check(prompt: &str, answer: &str, expected: Option<f64>) {
        let text = format!("<think>x</think><answer>{answer}</answer>");
        let completion = Completion::finished(&text);
        let verdict = Countdown::default().judge(&Evidence { prompt, answer: None, completion: &completion });
        assert_eq!(verdict.value(), expected, "{prompt} / {answer}: {verdict:?}");
    }

    #[test]
    fn each_number_once_and_the_target() {
        let prompt = "用3、5、7得到22。";
        check(prompt, "3*5+7", Some(1.0));
        check(prompt, "3×5＋7＝22", Some(1.0));
        check(prompt, "(7+5)*3", Some(0.1));
        check(prompt, "(7+5)*3=22", Some(0.1));
        check(prompt, "3*5+7=21", Some(0.0));
        check(prompt, "3*5+7+0", Some(0.0));
        check(prompt, "3*7+1", Some(0.0));
        check(prompt, "22", Some(0.0));
        check(prompt, "3*5+7*1", Some(0.0));
        check(prompt, "3*5", Some(0.0));
        check(prompt, "--3*5+7", Some(0.0));
        check(prompt, "", Some(0.0));
        check("用3、3、3得到4", "3/3+3", Some(1.0));
        check("没有数", "1", None);
    }

    #[test]
    fn prompts_of_the_usual_sets_are_read() {
        let prompt = "Using the numbers [19, 36, 55, 7], create an equation that equals 65. You can use basic arithmetic \
                      operations (+, -, *, /). For example <answer> (1 + 2) / 3 </answer>.";
        assert_eq!(parse_prompt(prompt), Some((vec![19, 36, 55, 7], 65)));
        assert_eq!(parse_prompt("用3、5、7得到22。"), Some((vec![3, 5, 7], 22)));
        assert_eq!(parse_prompt("99999999999999999999 1"), None);
        check(prompt, "55 + 36 - 7 - 19", Some(1.0));
    }
}
