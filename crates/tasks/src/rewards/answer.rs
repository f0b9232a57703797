//! The one strict parser of `<think>…</think><answer>…</answer>`.
//!
//! Rewards and evaluation both use it, so neither can be more lenient than the other. A completion has an answer only
//! if it ended with its end token, contains exactly one answer block and no text outside the blocks, and has no tag
//! inside a block. White space around the blocks does not count.
//!
//! It departs from the common practice of taking the first or the last block that a pattern finds. A policy learns
//! within a few steps to exploit that, by writing many blocks and never stopping.

use crate::case::Completion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];
const CUT_SHORT: &str = "cut short: the end token is missing";

/// The blocks of a well-formed completion, trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks<'a> {
    /// The reasoning; none if there is no think block.
    pub think: Option<&'a str>,
    /// The answer; may be empty.
    pub answer: &'a str,
}

/// Where a rule finds the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// In the one answer block.
    #[default]
    Block,
    /// The whole completion is the answer; it must still have ended by itself.
    Whole,
}

/// The trimmed answer of `completion`, or the reason why it has none.
pub fn read<'a>(completion: &Completion<'a>, from: ReadFrom) -> Result<&'a str, String> {
    match from {
        ReadFrom::Block => blocks(completion).map(|blocks| blocks.answer),
        ReadFrom::Whole if completion.finished => Ok(completion.text.trim()),
        ReadFrom::Whole => Err(CUT_SHORT.to_string()),
    }
}

/// The blocks of `completion`, or the reason why it has none.
///
/// The think block is optional here; the rule `format` can require it.
pub fn blocks<'a>(completion: &Completion<'a>) -> Result<Blocks<'a>, String> {
    if !completion.finished {
        return Err(CUT_SHORT.to_string());
    }
    blocks_of(completion.text)
}

/// As [`blocks`], for a text that is known to be complete.
pub fn blocks_of(text: &str) -> Result<Blocks<'_>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("empty".to_string());
    }
    for tag in TAGS {
        let count = text.matches(tag).count();
        if count > 1 {
            return Err(format!("{tag} stands {count} times"));
        }
    }
    let (think, rest) = match text.strip_prefix("<think>") {
        Some(rest) => {
            let (think, rest) = rest.split_once("</think>").ok_or("<think> is never closed")?;
            (Some(think.trim()), rest.trim_start())
        }
        None => (None, text),
    };
    let inner = rest.strip_prefix("<answer>").ok_or_else(|| match rest.find("<answer>") {
        Some(_) => "text stands before <answer>, outside any block".to_string(),
        None => "there is no <answer> block".to_string(),
    })?;
    let answer = inner.strip_suffix("</answer>").ok_or_else(|| match inner.find("</answer>") {
        Some(_) => "text stands after </answer>".to_string(),
        None => "<answer> is never closed".to_string(),
    })?;
    if TAGS.iter().any(|tag| answer.contains(tag) || think.is_some_and(|think| think.contains(tag))) {
        return Err("a tag stands inside a block".to_string());
    }
    Ok(Blocks { think, answer: answer.trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(Option<&str>, &str), &str>) {
        match (blocks_of(text), expect) {
            (Ok(blocks), Ok((think, answer))) => {
                assert_eq!((blocks.think, blocks.answer), (think, answer), "{text}")
            }
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{text}: {reason}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn exactly_one_answer_and_nothing_else() {
        check("<think>a</think><answer>b</answer>", Ok((Some("a"), "b")));
        check(" <think> a\n</think>\n<answer> b </answer>\n", Ok((Some("a"), "b")));
        check("<answer></answer>", Ok((None, "")));
        check("", Err("empty"));
        check("b", Err("no <answer>"));
        check("<answer>b", Err("never closed"));
        check("<think>a<answer>b</answer>", Err("<think> is never closed"));
        check("<answer>a</answer><answer>b</answer>", Err("<answer> stands 2 times"));
        check("<answer>a</answer> and more", Err("after </answer>"));
        check("so <answer>a</answer>", Err("before <answer>"));
        check("<think>a</think>so<answer>b</answer>", Err("before <answer>"));
        check("<answer>b</answer><think>a</think>", Err("after </answer>"));
        check("<answer>b<think></answer>", Err("inside a block"));
        check("<think>a<answer></think>b</answer>", Err("no <answer> block"));
    }

    #[test]
    fn an_unfinished_completion_has_no_answer() {
        let completion = Completion { text: "<answer>b</answer>", finished: false, tokens: 5 };
        assert!(blocks(&completion).unwrap_err().contains("cut short"));
    }
}
