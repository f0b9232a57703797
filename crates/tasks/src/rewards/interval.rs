//! `interval`: the answer is one quantity within bounds. The bounds come from the recipe or from the case's answer
//! (`36..120`, 三年至十年).
//!
//! An answer that is itself a range is refused, because otherwise the widest range would always win.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::quantity;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `interval`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IntervalConfig {
    /// The least value. Without `low` and `high` the bounds come from the case's answer.
    #[schemars(range(min = -1e15, max = 1e15))]
    pub low: Option<f64>,
    /// The greatest value.
    #[schemars(range(min = -1e15, max = 1e15))]
    pub high: Option<f64>,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Interval {
    config: IntervalConfig,
}

impl Interval {
    /// The rule with these keys.
    pub fn new(config: IntervalConfig) -> Interval {
        Interval { config }
    }

    fn own_bounds(&self) -> Option<(f64, f64)> {
        match (self.config.low, self.config.high) {
            (None, None) => None,
            (low, high) => Some((low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY))),
        }
    }
}

impl Configured for Interval {
    const NAME: &'static str = "interval";
    const SUMMARY: &'static str =
        "The answer is one quantity within bounds, from the recipe or from the case's answer (`36..120`, 三年至十年).";
    const READS: Reads = Reads::Answer;
    type Keys = IntervalConfig;

    fn build(keys: IntervalConfig, _: &Path) -> Result<Interval, Refusal> {
        match (keys.low, keys.high) {
            (Some(low), Some(high)) if low > high => {
                Err(Refusal::new(format!("{low} lies above high = {high}"), "swap the two").in_key("low"))
            }
            _ => Ok(Interval::new(keys)),
        }
    }
}

/// The bounds in a text: two quantities separated by `..`, `~`, 至, 到 or a dash, the first not above the second.
pub fn parse_bounds(text: &str) -> Option<(f64, f64)> {
    let text = quantity::fold(text);
    ["..", "~", "至", "到", "-", "—"].iter().find_map(|separator| {
        // A dash may also be a sign, so every position is tried.
        text.match_indices(separator).find_map(|(at, _)| {
            let low = quantity::parse(&text[..at])?;
            let high = quantity::parse(&text[at + separator.len()..])?;
            (low.value <= high.value).then_some((low.value, high.value))
        })
    })
}

impl Rule for Interval {
    fn name(&self) -> &str {
        "interval"
    }

    fn reads(&self) -> Reads {
        if self.own_bounds().is_some() { Reads::Prompt } else { Reads::Answer }
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some((low, high)) = self.own_bounds().or_else(|| evidence.answer.and_then(parse_bounds)) else {
            return Verdict::Abstain { reason: "the case's answer states no bounds".to_string() };
        };
        let answer = match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => answer,
            Err(reason) => return Verdict::zero(reason),
        };
        match quantity::parse(answer) {
            Some(found) => {
                Verdict::pass((low..=high).contains(&found.value), format!("answered {found}, bounds {low}..{high}"))
            }
            None => Verdict::zero("the answer is no single quantity"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    fn score(config: IntervalConfig, known: Option<&str>, answer: &str) -> Option<f64> {
        let text = format!("<answer>{answer}</answer>");
        let completion = Completion::finished(&text);
        Interval::new(config).judge(&Evidence { prompt: "p", answer: known, completion: &completion }).value()
    }

    #[test]
    fn bounds_are_read_in_both_languages() {
        assert_eq!(parse_bounds("36..120"), Some((36.0, 120.0)));
        assert_eq!(parse_bounds("三年至十年"), Some((36.0, 120.0)));
        assert_eq!(parse_bounds("-3 - -1"), Some((-3.0, -1.0)));
        assert_eq!(parse_bounds("120..36"), None);
        assert_eq!(parse_bounds("120"), None);
    }

    #[test]
    fn one_quantity_within_the_bounds() {
        let open = IntervalConfig::default;
        assert_eq!(score(open(), Some("三年至十年"), "四年"), Some(1.0));
        assert_eq!(score(open(), Some("三年至十年"), "两年"), Some(0.0));
        assert_eq!(score(open(), Some("三年至十年"), "三年至十年"), Some(0.0));
        assert_eq!(score(open(), None, "四年"), None);
        let fixed = IntervalConfig { low: Some(0.0), high: None, ..open() };
        assert_eq!(score(fixed.clone(), None, "5"), Some(1.0));
        assert_eq!(score(fixed, None, "-5"), Some(0.0));
    }
}
