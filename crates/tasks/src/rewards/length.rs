//! `length`: the completion's length is within bounds. Outside them the score falls linearly to 0 over `margin`.
//!
//! It judges length alone. A truncated completion scores 0, whatever its length.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `length`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LengthConfig {
    /// The least length.
    #[schemars(range(max = 1_000_000_000))]
    pub min: usize,
    /// The greatest length; without it any length is short enough.
    #[schemars(range(max = 1_000_000_000))]
    pub max: Option<usize>,
    /// Over how much the score falls to 0 outside the bounds; 0 for at once.
    #[schemars(range(max = 1_000_000_000))]
    pub margin: usize,
    /// What is counted: tokens, the end token included, or characters.
    pub unit: LengthUnit,
}

/// What a length counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Tokens of the policy's tokenizer, the end token included.
    #[default]
    Tokens,
    /// Unicode scalar values.
    Chars,
}

impl Default for LengthConfig {
    fn default() -> LengthConfig {
        LengthConfig { min: 1, max: None, margin: 0, unit: LengthUnit::default() }
    }
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Length {
    config: LengthConfig,
}

impl Length {
    /// The rule with these keys.
    pub fn new(config: LengthConfig) -> Length {
        Length { config }
    }
}

impl Configured for Length {
    const NAME: &'static str = "length";
    const SUMMARY: &'static str =
        "The completion's length lies within bounds; outside them the score falls linearly to 0 over a margin.";
    const READS: Reads = Reads::Prompt;
    type Keys = LengthConfig;

    fn build(keys: LengthConfig, _: &Path) -> Result<Length, Refusal> {
        match keys.max {
            Some(max) if max < keys.min => {
                Err(Refusal::new(format!("{max} lies below min = {}", keys.min), "swap the two").in_key("max"))
            }
            _ => Ok(Length::new(keys)),
        }
    }
}

impl Rule for Length {
    fn name(&self) -> &str {
        "length"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let completion = evidence.completion;
        if !completion.finished {
            return Verdict::zero("cut short: the end token is missing");
        }
        let length = match self.config.unit {
            LengthUnit::Tokens => completion.tokens,
            LengthUnit::Chars => completion.text.chars().count(),
        };
        let too_short = self.config.min.saturating_sub(length);
        let outside = too_short.max(self.config.max.map_or(0, |max| length.saturating_sub(max)));
        // With a margin of m, the score reaches 0 in m steps from the bounds.
        Verdict::score(
            1.0 - outside as f64 / (self.config.margin + 1) as f64,
            format!("length {length}, {outside} outside"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[test]
    fn the_score_falls_outside_the_bounds() {
        let rule = Length::new(LengthConfig { min: 3, max: Some(5), margin: 3, unit: LengthUnit::Chars });
        let score = |text: &str, finished| {
            let completion = Completion { text, finished, tokens: 99 };
            rule.judge(&Evidence { prompt: "p", answer: None, completion: &completion }).value().unwrap()
        };
        for (text, expected) in
            [("三个字", 1.0), ("五个字的话", 1.0), ("字字", 0.75), ("123456789", 0.0), ("12345678", 0.25)]
        {
            assert_eq!(score(text, true), expected, "{text}");
        }
        assert_eq!(score("三个字", false), 0.0);
    }
}
