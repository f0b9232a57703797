//! `exact`: the answer block equals the known answer, apart from white space at the ends.
//!
//! It abstains if a case has no answer. It compares text, not meaning: "3" is not equal to "3.0" here; see `number`.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `exact`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExactConfig {
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Whether all blanks are left out before comparing.
    pub ignore_blanks: bool,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Exact {
    config: ExactConfig,
}

impl Exact {
    /// The rule with these keys.
    pub fn new(config: ExactConfig) -> Exact {
        Exact { config }
    }

    fn plain(&self, text: &str) -> String {
        let kept: String = text.trim().chars().filter(|c| !(self.config.ignore_blanks && c.is_whitespace())).collect();
        if self.config.ignore_case { kept.to_lowercase() } else { kept }
    }
}

impl Configured for Exact {
    const NAME: &'static str = "exact";
    const SUMMARY: &'static str = "The answer equals the known answer, blanks at the ends aside.";
    const READS: Reads = Reads::Answer;
    type Keys = ExactConfig;

    fn build(keys: ExactConfig, _: &Path) -> Result<Exact, Refusal> {
        Ok(Exact::new(keys))
    }
}

impl Rule for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn reads(&self) -> Reads {
        Reads::Answer
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let Some(expected) = evidence.answer else {
            return Verdict::Abstain { reason: "the case has no answer".to_string() };
        };
        match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => Verdict::pass(
                self.plain(answer) == self.plain(expected),
                format!("answered \"{answer}\", expected \"{}\"", expected.trim()),
            ),
            Err(reason) => Verdict::zero(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    fn score(config: ExactConfig, answer: Option<&str>, text: &str) -> Option<f64> {
        let completion = Completion::finished(text);
        Exact::new(config).judge(&Evidence { prompt: "p", answer, completion: &completion }).value()
    }

    #[test]
    fn equal_or_not() {
        let strict = ExactConfig::default;
        assert_eq!(score(strict(), Some(" 盗窃 "), "<answer>盗窃</answer>"), Some(1.0));
        assert_eq!(score(strict(), Some("盗窃"), "<answer>盗窃罪</answer>"), Some(0.0));
        assert_eq!(score(strict(), Some("盗窃"), "盗窃"), Some(0.0));
        assert_eq!(score(strict(), Some("A b"), "<answer>a B</answer>"), Some(0.0));
        assert_eq!(score(strict(), None, "<answer>盗窃</answer>"), None);
        let loose = ExactConfig { ignore_case: true, ignore_blanks: true, ..strict() };
        assert_eq!(score(loose, Some("A b"), "<answer>aB</answer>"), Some(1.0));
    }
}
