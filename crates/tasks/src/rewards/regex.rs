//! `regex`: the answer matches a pattern as a whole.
//!
//! The rule anchors the pattern at both ends; a writer who does not want that puts `.*` there. Look-around and
//! back-references are allowed, so matching can take exponential time. It is stopped after a fixed number of steps,
//! which is a time-out and not a score.

use std::path::Path;

use fancy_regex::{Error, RegexBuilder, RuntimeError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// Backtracking steps after which a match is stopped; about a tenth of a second.
const BACKTRACK_LIMIT: usize = 1_000_000;

/// The keys of `regex`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct RegexConfig {
    /// The pattern for the whole answer, in the syntax of Rust's `fancy-regex`.
    pub pattern: String,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    #[serde(default)]
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone)]
pub struct Regex {
    pattern: fancy_regex::Regex,
    read: ReadFrom,
}

impl Configured for Regex {
    const NAME: &'static str = "regex";
    const SUMMARY: &'static str = "The answer matches a pattern as a whole.";
    const READS: Reads = Reads::Prompt;
    type Keys = RegexConfig;

    fn build(keys: RegexConfig, _: &Path) -> Result<Regex, Refusal> {
        let pattern = RegexBuilder::new(&format!(r"\A(?:{})\z", keys.pattern)).backtrack_limit(BACKTRACK_LIMIT).build();
        let pattern = pattern.map_err(|error| {
            Refusal::new(error.to_string(), "in TOML, single quotes keep backslashes").in_key("pattern")
        })?;
        Ok(Regex { pattern, read: keys.read })
    }
}

impl Rule for Regex {
    fn name(&self) -> &str {
        "regex"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        match answer::read(evidence.completion, self.read) {
            Ok(answer) => match self.pattern.is_match(answer) {
                Ok(true) => Verdict::pass(true, "matches"),
                Ok(false) => Verdict::zero("does not match"),
                Err(Error::RuntimeError(limit @ RuntimeError::BacktrackLimitExceeded)) => {
                    Verdict::TimedOut { reason: limit.to_string() }
                }
                Err(error) => Verdict::Failed { reason: error.to_string() },
            },
            Err(reason) => Verdict::zero(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    fn judge(pattern: &str, answer: &str) -> Verdict {
        let keys = RegexConfig { pattern: pattern.into(), read: ReadFrom::Block };
        let rule = Regex::build(keys, Path::new("")).unwrap();
        let text = format!("<answer>{answer}</answer>");
        let completion = Completion::finished(&text);
        rule.judge(&Evidence { prompt: "p", answer: None, completion: &completion })
    }

    #[test]
    fn the_whole_answer_must_match() {
        assert_eq!(judge(r"第\d+条", "第264条").value(), Some(1.0));
        assert_eq!(judge(r"第\d+条", "见第264条").value(), Some(0.0));
        assert_eq!(judge(r"a|b", "ab").value(), Some(0.0));
    }

    #[test]
    fn a_pattern_that_explodes_is_a_time_out_not_a_score() {
        let verdict = judge(r"(?:(a+)\1?)+[bc]", &"a".repeat(60));
        assert!(matches!(verdict, Verdict::TimedOut { .. }), "{verdict:?}");
    }
}
