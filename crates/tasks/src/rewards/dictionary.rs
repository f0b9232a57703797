//! `dictionary`: the answer is a word of a list. In a chain, it must also begin with the last character of the word
//! before and must not have been used yet.
//!
//! The rule uses the prompt alone. The words used so far are the prompt's runs of Chinese characters that are in the
//! list, in order. The answer has to follow the last of them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{self, ReadFrom};
use super::language::is_han;
use super::rule::{Configured, Evidence, Reads, Rule, Verdict};
use crate::data::file;
use crate::paths::located;
use crate::refusal::Refusal;

static BUILTIN: LazyLock<Arc<Dictionary>> = LazyLock::new(|| {
    Arc::new(Dictionary::from_words(include_str!("../../data/idioms.txt").lines().map(str::to_string)))
});

/// A list of words with an index by first character.
#[derive(Debug, Clone, Default)]
pub struct Dictionary {
    words: Vec<String>,
    place: HashMap<String, usize>,
    by_first: BTreeMap<char, Vec<usize>>,
    duplicates: usize,
}

impl Dictionary {
    /// The list of common idioms that ships with Ferule.
    pub fn builtin() -> Arc<Dictionary> {
        BUILTIN.clone()
    }

    /// A dictionary of words. Blank lines and lines that begin with `#` are left out, and duplicates are counted.
    pub fn from_words(words: impl IntoIterator<Item = String>) -> Dictionary {
        let mut dictionary = Dictionary::default();
        for word in words {
            let word = word.trim();
            let Some(first) = word.chars().next().filter(|first| *first != '#') else { continue };
            if dictionary.place.contains_key(word) {
                dictionary.duplicates += 1;
                continue;
            }
            let place = dictionary.words.len();
            dictionary.words.push(word.to_string());
            dictionary.place.insert(word.to_string(), place);
            dictionary.by_first.entry(first).or_default().push(place);
        }
        dictionary
    }

    /// Reads the list in a file: one word per line, or JSON lines with a field `word` (`.jsonl`).
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8 or holds no word; an invalid JSON line, by its number.
    pub fn read(path: &Path) -> Result<Dictionary, Refusal> {
        let text = file::read_to_string(path).map_err(|error| {
            let hint = "give a UTF-8 text file, one word a line, or .jsonl with a field `word`";
            Refusal::new(error.to_string(), hint).in_file(path)
        })?;
        let words: Vec<String> = if path.extension().is_some_and(|ending| ending == "jsonl") {
            #[derive(Deserialize)]
            struct Line {
                word: String,
            }
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            lines
                .map(|(at, line)| match serde_json::from_str::<Line>(line) {
                    Ok(line) => Ok(line.word),
                    Err(error) => {
                        let hint = "every line is an object such as {\"word\": \"画蛇添足\"}";
                        Err(Refusal::new(error.to_string(), hint).in_line(path, at + 1))
                    }
                })
                .collect::<Result<_, _>>()?
        } else {
            text.lines().map(str::to_string).collect()
        };
        let dictionary = Dictionary::from_words(words);
        if dictionary.words.is_empty() {
            let hint = "one word a line; lines that begin with # are comments";
            return Err(Refusal::new("it holds no word", hint).in_file(path));
        }
        Ok(dictionary)
    }

    /// All words, in the list's order.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The number of words that repeat an earlier one in the list.
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// Whether the list holds a word.
    pub fn has(&self, word: &str) -> bool {
        self.place.contains_key(word)
    }

    /// The words that may follow `word` in a chain: those that begin with its last character, except `word` itself.
    pub fn followers<'a>(&'a self, word: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let own = self.place.get(word).copied();
        let places = word.chars().last().and_then(|last| self.by_first.get(&last)).map_or(&[][..], Vec::as_slice);
        places.iter().filter(move |place| Some(**place) != own).map(|place| self.words[*place].as_str())
    }

    /// The words of the list that `text` holds as whole runs of Chinese characters, in order.
    pub fn words_in<'a>(&self, text: &'a str) -> Vec<&'a str> {
        text.split(|c: char| !is_han(c)).filter(|run| self.has(run)).collect()
    }

    /// Whether `next` may follow the words `used`.
    ///
    /// # Errors
    /// The demand that it fails: to be in the list, to be new, or to begin with the last character of the word before.
    pub fn check_move(&self, used: &[&str], next: &str) -> Result<(), Fault> {
        if !self.has(next) {
            return Err(Fault::Unknown);
        }
        if used.contains(&next) {
            return Err(Fault::UsedBefore);
        }
        match used.last() {
            Some(last) if last.chars().last() != next.chars().next() => Err(Fault::NotLinked),
            _ => Ok(()),
        }
    }
}

/// What is wrong with a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The list does not hold it.
    #[error("not in the dictionary")]
    Unknown,
    /// It is in the chain already.
    #[error("used before")]
    UsedBefore,
    /// Its first character is not the last character of the word before.
    #[error("does not begin with the last character of the word before")]
    NotLinked,
}

/// The keys of `dictionary`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DictionaryConfig {
    /// The list: one word a line, or JSON lines with a field `word`. Without it, the idioms that ship with Ferule.
    #[schemars(extend("format" = "path"))]
    pub path: Option<PathBuf>,
    /// Whether the answer must continue the chain in the prompt, or only be a word of the list.
    pub chain: bool,
    /// The score of a word of the list that is new and does not link.
    #[schemars(
        range(min = 0.0, max = 0.5),
        extend("hint" = "a policy that is paid more than half for a wrong answer learns to give it")
    )]
    pub partial: f64,
    /// Where the answer stands: in the one `<answer>` block, or the whole completion is the answer.
    pub read: ReadFrom,
}

impl Default for DictionaryConfig {
    fn default() -> DictionaryConfig {
        DictionaryConfig { path: None, chain: true, partial: 0.1, read: ReadFrom::default() }
    }
}

/// The rule. See the module.
#[derive(Debug, Clone)]
pub struct DictionaryRule {
    dictionary: Arc<Dictionary>,
    config: DictionaryConfig,
}

impl DictionaryRule {
    /// The rule with this list. The path in the config is ignored.
    pub fn new(dictionary: Arc<Dictionary>, config: DictionaryConfig) -> DictionaryRule {
        DictionaryRule { dictionary, config }
    }
}

impl Configured for DictionaryRule {
    const NAME: &'static str = "dictionary";
    const SUMMARY: &'static str = "The answer is a word of a list; in a chain, one that begins with the last character of the word before and is new.";
    const READS: Reads = Reads::Prompt;
    type Keys = DictionaryConfig;

    fn build(keys: DictionaryConfig, folder: &Path) -> Result<DictionaryRule, Refusal> {
        let dictionary = match &keys.path {
            Some(path) => {
                let read = Dictionary::read(&located(folder, path));
                Arc::new(read.map_err(|refusal| refusal.in_key("path"))?)
            }
            None => Dictionary::builtin(),
        };
        Ok(DictionaryRule::new(dictionary, keys))
    }
}

impl Rule for DictionaryRule {
    fn name(&self) -> &str {
        "dictionary"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    fn judge(&self, evidence: &Evidence) -> Verdict {
        let used = self.dictionary.words_in(evidence.prompt);
        if self.config.chain && used.is_empty() {
            return Verdict::Abstain { reason: "the prompt holds no word to follow".to_string() };
        }
        let answer = match answer::read(evidence.completion, self.config.read) {
            Ok(answer) => answer,
            Err(reason) => return Verdict::zero(reason),
        };
        if !self.config.chain {
            return Verdict::pass(self.dictionary.has(answer), format!("\"{answer}\""));
        }
        match self.dictionary.check_move(&used, answer) {
            Ok(()) => Verdict::pass(true, format!("\"{answer}\" follows")),
            Err(Fault::NotLinked) => Verdict::score(self.config.partial, format!("\"{answer}\": {}", Fault::NotLinked)),
            Err(fault) => Verdict::zero(format!("\"{answer}\": {fault}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_list_is_clean_and_chains() {
        let list = Dictionary::builtin();
        assert!(list.words().len() >= 1200, "{}", list.words().len());
        assert_eq!(list.duplicates(), 0);
        let odd: Vec<_> = list.words().iter().filter(|w| w.chars().count() != 4 || !w.chars().all(is_han)).collect();
        assert!(odd.is_empty(), "{odd:?}");
        let linked = list.words().iter().filter(|word| list.followers(word).next().is_some()).count();
        assert!(linked * 10 >= list.words().len() * 7, "{linked} of {} can be followed", list.words().len());
    }

    fn small() -> Dictionary {
        Dictionary::from_words(
            ["# words", "画蛇添足", "足智多谋", "足不出户", "", "画蛇添足", "数一数二", "不三不四"].map(String::from),
        )
    }

    #[test]
    fn followers_begin_with_the_last_character() {
        let list = small();
        assert_eq!(list.followers("画蛇添足").collect::<Vec<_>>(), ["足智多谋", "足不出户"]);
        assert_eq!(list.followers("足智多谋").count(), 0);
        assert_eq!(list.followers("").count(), 0);
        assert_eq!((list.words().len(), list.duplicates()), (5, 1));
    }

    #[test]
    fn a_move_is_known_new_and_linked() {
        let list = small();
        assert_eq!(list.check_move(&["画蛇添足"], "足智多谋"), Ok(()));
        assert_eq!(list.check_move(&["画蛇添足"], "足球比赛"), Err(Fault::Unknown));
        assert_eq!(list.check_move(&["足智多谋", "画蛇添足"], "足智多谋"), Err(Fault::UsedBefore));
        assert_eq!(list.check_move(&["画蛇添足"], "数一数二"), Err(Fault::NotLinked));
    }

    #[test]
    fn the_chain_is_read_from_the_prompt() {
        let rule = DictionaryRule::new(Arc::new(small()), DictionaryConfig::default());
        let score = |prompt: &str, answer: &str| {
            let text = format!("<answer>{answer}</answer>");
            let completion = crate::case::Completion::finished(&text);
            rule.judge(&Evidence { prompt, answer: None, completion: &completion }).value()
        };
        assert_eq!(score("接龙：数一数二→画蛇添足→", "足智多谋"), Some(1.0));
        assert_eq!(score("接龙：数一数二→画蛇添足→", "不三不四"), Some(0.1));
        assert_eq!(score("接龙：数一数二→画蛇添足→", "画蛇添足"), Some(0.0));
        assert_eq!(score("接龙：足智多谋→画蛇添足→", "足智多谋"), Some(0.0));
        assert_eq!(score("接龙：画蛇添足→", "足智多谋，足不出户"), Some(0.0));
        assert_eq!(score("接龙：", "足智多谋"), None);
    }

    #[test]
    fn lists_are_read_from_text_and_json_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.jsonl");
        std::fs::write(&path, "{\"word\": \"画蛇添足\", \"pinyin\": \"x\"}\n\n{\"word\": \"足智多谋\"}\n").unwrap();
        assert_eq!(Dictionary::read(&path).unwrap().words().len(), 2);
        std::fs::write(&path, "{\"word\": \"画蛇添足\"}\n{\"wrd\"").unwrap();
        assert!(Dictionary::read(&path).unwrap_err().to_string().contains(".jsonl:2: "));
        let path = folder.path().join("list.txt");
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(Dictionary::read(&path).unwrap_err().to_string().contains("holds no word"));
    }
}
