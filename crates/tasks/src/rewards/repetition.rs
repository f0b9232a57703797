//! `repetition`: 1 minus the share of the completion's character n-grams that repeat an earlier one.
//!
//! A share of repeats up to `free` costs nothing, since every natural text has some. A text shorter than one n-gram
//! scores 1, because it repeats nothing; other rules judge whether it says anything.

use std::collections::HashSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `repetition`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RepetitionConfig {
    /// Characters in an n-gram.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub chars: usize,
    /// The share of repeats that costs nothing.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub free: f64,
}

impl Default for RepetitionConfig {
    fn default() -> RepetitionConfig {
        RepetitionConfig { chars: 8, free: 0.2 }
    }
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Repetition {
    config: RepetitionConfig,
}

impl Repetition {
    /// The rule with these keys.
    pub fn new(config: RepetitionConfig) -> Repetition {
        Repetition { config }
    }
}

impl Configured for Repetition {
    const NAME: &'static str = "repetition";
    const SUMMARY: &'static str =
        "The completion does not repeat itself: 1 less the share of character n-grams that came before.";
    const READS: Reads = Reads::Prompt;
    type Keys = RepetitionConfig;

    fn build(keys: RepetitionConfig, _: &Path) -> Result<Repetition, Refusal> {
        Ok(Repetition::new(keys))
    }
}

impl Rule for Repetition {
    fn name(&self) -> &str {
        "repetition"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let chars: Vec<char> = evidence.completion.text.chars().collect();
        let windows = chars.windows(self.config.chars);
        let total = windows.len();
        if total == 0 {
            return Verdict::pass(true, "too short to repeat anything");
        }
        let distinct: HashSet<&[char]> = windows.collect();
        let repeated = 1.0 - distinct.len() as f64 / total as f64;
        let counted = (repeated - self.config.free).max(0.0) / (1.0 - self.config.free);
        Verdict::score(1.0 - counted, format!("{:.0}% of the n-grams repeat", repeated * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[test]
    fn repeats_cost_beyond_the_free_share() {
        let score = |chars, free, text: &str| {
            let completion = Completion::finished(text);
            let evidence = Evidence { prompt: "p", answer: None, completion: &completion };
            Repetition::new(RepetitionConfig { chars, free }).judge(&evidence).value().unwrap()
        };
        // ab ba ab ba ab: two of the five n-grams are new.
        assert!((score(2, 0.0, "ababab") - 0.4).abs() < 1e-12);
        assert!((score(2, 0.2, "ababab") - 0.5).abs() < 1e-12);
        assert_eq!(score(2, 0.0, "abcdef"), 1.0);
        assert_eq!(score(2, 0.0, "a"), 1.0);
        assert!(score(8, 0.2, &"嗯".repeat(500)) < 0.01);
    }
}
