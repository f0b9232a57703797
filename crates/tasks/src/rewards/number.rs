//! `number`: the answer is one quantity that equals the known answer's, within a tolerance.
//!
//! It parses 三年六个月, 2万余元, full-width digits, thousands separators, percentages and fractions; see [`super::quantity`].
//! It abstains if the case has no answer or one that is not a quantity.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::quantity;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `number`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NumberConfig {
    /// The allowed difference as a share of the known value.
    #[schemars(range(min = 0.0, max = 1e6), extend("hint" = "0.01 allows one percent"))]
    pub tolerance: f64,
    /// The allowed difference in the known value's own unit, months for durations.
    #[schemars(range(min = 0.0, max = 1e15))]
    pub tolerance_absolute: f64,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Number {
    config: NumberConfig,
}

impl Number {
    /// The rule with these keys.
    pub fn new(config: NumberConfig) -> Number {
        Number { config }
    }
}

impl Configured for Number {
    const NAME: &'static str = "number";
    const SUMMARY: &'static str = "The answer is one quantity equal to the known answer's, within a tolerance.";
    const READS: Reads = Reads::Answer;
    type Keys = NumberConfig;

    fn build(keys: NumberConfig, _: &Path) -> Result<Number, Refusal> {
        Ok(Number::new(keys))
    }
}

impl Rule for Number {
    fn name(&self) -> &str {
        "number"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some(known) = evidence.answer.and_then(quantity::parse) else {
            return Verdict::Abstain { reason: "the case's answer is no quantity".to_string() };
        };
        let answer = match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => answer,
            Err(reason) => return Verdict::zero(reason),
        };
        match quantity::parse(answer) {
            Some(found) => Verdict::pass(
                found.matches(&known, self.config.tolerance, self.config.tolerance_absolute),
                format!("answered {found}, known {known}"),
            ),
            None => Verdict::zero("the answer is no single quantity"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[track_caller]
    fn check(known: &str, answer: &str, expected: Option<f64>) {
        let text = format!("<answer>{answer}</answer>");
        let completion = Completion::finished(&text);
        let rule = Number::new(NumberConfig { tolerance: 0.01, ..Default::default() });
        let verdict = rule.judge(&Evidence { prompt: "p", answer: Some(known), completion: &completion });
        assert_eq!(verdict.value(), expected, "{known} / {answer}: {verdict:?}");
    }

    #[test]
    fn one_quantity_within_the_tolerance() {
        check("18", "18", Some(1.0));
        check("1,000", "1005 dollars", Some(1.0));
        check("1,000", "1011", Some(0.0));
        check("三年六个月", "3年6个月", Some(1.0));
        check("18", "18 or 19", Some(0.0));
        check("18", "", Some(0.0));
        check("盗窃", "18", None);
    }
}
