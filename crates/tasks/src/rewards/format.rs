//! `format`: the completion is exactly one `<think>…</think><answer>…</answer>`, with nothing else, and ended with its
//! end token.
//!
//! It never looks at the content of the blocks, so alone it rewards empty text. Give it a small weight, or make it a
//! gate.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `format`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FormatConfig {
    /// Whether a think block must stand before the answer; without it none may.
    pub think: bool,
    /// The least number of characters in the think block, blanks not counted.
    #[schemars(range(max = 1_000_000_000))]
    pub think_min_chars: usize,
}

impl Default for FormatConfig {
    fn default() -> FormatConfig {
        FormatConfig { think: true, think_min_chars: 0 }
    }
}

/// The rule. See the module.
#[derive(Debug, Clone, Default)]
pub struct Format {
    config: FormatConfig,
}

impl Format {
    /// The rule with these keys.
    pub fn new(config: FormatConfig) -> Format {
        Format { config }
    }
}

impl Configured for Format {
    const NAME: &'static str = "format";
    const SUMMARY: &'static str =
        "The completion is one `<think>…</think><answer>…</answer>` and nothing else, whatever the blocks say.";
    const READS: Reads = Reads::Prompt;
    type Keys = FormatConfig;

    fn build(keys: FormatConfig, _: &Path) -> Result<Format, Refusal> {
        Ok(Format::new(keys))
    }
}

impl Rule for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let blocks = match answer::blocks(evidence.completion) {
            Ok(blocks) => blocks,
            Err(reason) => return Verdict::zero(reason),
        };
        if blocks.answer.is_empty() {
            return Verdict::zero("the answer is empty");
        }
        match (self.config.think, blocks.think) {
            (true, None) => Verdict::zero("there is no <think> block"),
            (false, Some(_)) => Verdict::zero("a <think> block where none is wanted"),
            (true, Some(think)) => {
                let length = think.chars().filter(|c| !c.is_whitespace()).count();
                let least = self.config.think_min_chars;
                Verdict::pass(
                    length >= least,
                    format!("well formed, {length} characters of reasoning (at least {least})"),
                )
            }
            (false, None) => Verdict::pass(true, "well formed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    fn check(rule: &Format, text: &str, score: f64) {
        let completion = Completion::finished(text);
        let verdict = rule.judge(&Evidence { prompt: "p", answer: None, completion: &completion });
        assert_eq!(verdict.value(), Some(score), "{text}: {verdict:?}");
    }

    #[test]
    fn both_blocks_are_wanted() {
        let rule = Format::default();
        check(&rule, "<think>a</think><answer>b</answer>", 1.0);
        check(&rule, "<think></think><answer>b</answer>", 1.0);
        check(&rule, "<think>a</think><answer> </answer>", 0.0);
        check(&rule, "<answer>b</answer>", 0.0);
        check(&rule, "<think>a</think><answer>b</answer>c", 0.0);
    }

    #[test]
    fn reasoning_can_be_asked_for_or_forbidden() {
        let long = Format::new(FormatConfig { think: true, think_min_chars: 3 });
        check(&long, "<think>a b c</think><answer>b</answer>", 1.0);
        check(&long, "<think>a  b</think><answer>b</answer>", 0.0);
        let bare = Format::new(FormatConfig { think: false, think_min_chars: 0 });
        check(&bare, "<answer>b</answer>", 1.0);
        check(&bare, "<think></think><answer>b</answer>", 0.0);
    }
}
