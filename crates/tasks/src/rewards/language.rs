//! `language`: the completion's letters belong to the wanted script. It is DeepSeek-R1's language-consistency reward.
//!
//! The score is the share of letters in the script, without the tags. It distinguishes scripts, not languages: French
//! counts as English. A completion without letters scores 0.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::refusal::Refusal;

/// The keys of `language`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct LanguageConfig {
    /// The wanted script.
    pub script: Script,
}

/// A script that `language` can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// Chinese characters.
    #[serde(alias = "zh")]
    Han,
    /// Latin letters.
    #[serde(alias = "en")]
    Latin,
    /// Chinese characters and kana.
    #[serde(alias = "ja")]
    Japanese,
    /// Hangul.
    #[serde(alias = "ko")]
    Hangul,
    /// Cyrillic letters.
    #[serde(alias = "ru")]
    Cyrillic,
    /// Arabic letters.
    #[serde(alias = "ar")]
    Arabic,
}

impl Script {
    /// Whether a letter belongs to the script.
    pub fn has(self, c: char) -> bool {
        let han = is_han(c);
        match self {
            Script::Han => han,
            Script::Latin => c.is_ascii_alphabetic() || matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}'),
            Script::Japanese => han || matches!(c, '\u{3040}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}'),
            Script::Hangul => matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7a3}'),
            Script::Cyrillic => matches!(c, '\u{400}'..='\u{52f}'),
            Script::Arabic => matches!(c, '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}'),
        }
    }
}

/// Whether `c` is a Chinese character (unified ideographs, with extensions and 〇).
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{323af}' | '\u{f900}'..='\u{faff}' | '〇')
}

/// The rule. See the module.
#[derive(Debug, Clone)]
pub struct Language {
    script: Script,
}

impl Language {
    /// The rule for a script.
    pub fn new(config: LanguageConfig) -> Language {
        Language { script: config.script }
    }
}

impl Configured for Language {
    const NAME: &'static str = "language";
    const SUMMARY: &'static str = "The completion's letters belong to the wanted script; the score is their share.";
    const READS: Reads = Reads::Prompt;
    type Keys = LanguageConfig;

    fn build(keys: LanguageConfig, _: &Path) -> Result<Language, Refusal> {
        Ok(Language::new(keys))
    }
}

impl Rule for Language {
    fn name(&self) -> &str {
        "language"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let mut text = evidence.completion.text.to_string();
        for tag in ["<think>", "</think>", "<answer>", "</answer>"] {
            text = text.replace(tag, " ");
        }
        let (mut letters, mut inside) = (0usize, 0usize);
        for c in text.chars().filter(|c| c.is_alphabetic()) {
            letters += 1;
            inside += usize::from(self.script.has(c));
        }
        match letters {
            0 => Verdict::zero("there are no letters"),
            _ => Verdict::score(inside as f64 / letters as f64, format!("{inside} of {letters} letters")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    #[test]
    fn letters_are_counted_by_script() {
        let score = |script, text: &str| {
            let completion = Completion::finished(text);
            Language { script }.judge(&Evidence { prompt: "p", answer: None, completion: &completion }).value().unwrap()
        };
        assert_eq!(score(Script::Han, "<think>盗窃，三年。</think><answer>3年</answer>"), 1.0);
        assert_eq!(score(Script::Han, "盗窃ab"), 0.5);
        assert_eq!(score(Script::Latin, "déjà vu"), 1.0);
        assert_eq!(score(Script::Japanese, "日本のab"), 0.6);
        assert_eq!(score(Script::Han, "1 + 2"), 0.0);
    }
}
