//! Finds a judgment's facts, reasoning and verdict.

use std::ops::Range;

use serde::Serialize;

/// Words that open a verdict, with the variants and misspellings of some courts.
const OPENINGS: [&str; 7] = ["判决如下", "判决意见如下", "判处如下", "判決如下", "裁判如下", "判决 如下", "判决如 下"];
/// Words that end a verdict.
const ENDINGS: [&str; 10] =
    ["（此页无", "审判长", "审 判 长", "审判员", "审 判 员", "代理审判员", "人民陪审员", "书记员", "附相关", "附："];
/// Words that explain how to appeal. They end the decision, and the verdict's section continues.
const APPEALS: &str = "如不服";
/// The longest verdict without any of these words, in bytes.
const LONGEST_VERDICT: usize = 12_000;

/// Sections as ranges of characters, `[start, end)`; none if they were not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sections {
    /// The facts, as prosecution and court state them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<[usize; 2]>,
    /// The court's reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<[usize; 2]>,
    /// The court's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<[usize; 2]>,
}

/// Sections as ranges of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The facts.
    pub facts: Option<Range<usize>>,
    /// The reasoning.
    pub reasoning: Option<Range<usize>>,
    /// The verdict up to the signature.
    pub verdict: Range<usize>,
    /// The decision: the verdict without the part on appeals.
    pub decided: Range<usize>,
}

/// Finds the sections; none in a text without a verdict.
pub fn find(text: &str) -> Option<Places> {
    let (at, opening) = OPENINGS.iter().filter_map(|opening| Some((text.rfind(opening)?, *opening))).max()?;
    let start = at + opening.len();
    let start = start
        + (text[start..].len() - text[start..].trim_start_matches([':', '：', '，', ' ', '\n', '\u{3000}']).len());
    let rest = super::head::upto(&text[start..], LONGEST_VERDICT);
    let end = ENDINGS.iter().filter_map(|ending| rest.find(ending)).min().unwrap_or(rest.len());
    let verdict = start..start + rest[..end].trim_end().len();
    let decided = start..start + rest[..end].find(APPEALS).unwrap_or(end);
    let before = &text[..at];
    let opened = text[..start].trim_end().len();
    let reasoning = opinion(before).map(|from| from..opened);
    let facts_end = reasoning.as_ref().map_or(at, |reasoning| reasoning.start);
    let told = &text[..facts_end];
    let facts = ["审理终结。", "审理终结"]
        .iter()
        .find_map(|word| told.find(word).map(|at| at + word.len()))
        .or_else(|| told.find("经审理查明"))
        .map(|from| from + (told[from..].len() - told[from..].trim_start().len())..told.trim_end().len())
        .filter(|facts| facts.start < facts.end);
    Some(Places { facts, reasoning, verdict, decided })
}

/// The beginning of the court's opinion: the last paragraph that begins with 本院认为, or the one in which these words come
/// after a short opening.
fn opinion(before: &str) -> Option<usize> {
    let opens = |at: &usize| before[..*at].chars().next_back().is_none_or(char::is_whitespace);
    if let Some(at) = before.rmatch_indices("本院认为").map(|(at, _)| at).find(opens) {
        return Some(at);
    }
    let at = before.rfind("本院认为")?;
    let paragraph = before[..at].rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let paragraph = (paragraph..at).find(|&place| before.is_char_boundary(place)).unwrap_or(at);
    // A longer opening states facts first.
    Some(if at - paragraph < 150 { paragraph } else { at })
}

impl Places {
    /// The same ranges in characters.
    pub fn in_characters(&self, text: &str) -> Sections {
        let characters = |range: &Range<usize>| {
            let start = text[..range.start].chars().count();
            [start, start + text[range.clone()].chars().count()]
        };
        Sections {
            facts: self.facts.as_ref().map(characters),
            reasoning: self.reasoning.as_ref().map(characters),
            verdict: Some(characters(&self.verdict)),
        }
    }
}

/// Words that mark a sentence as a conclusion.
const CONCLUSIONS: [&str; 14] = [
    "罪",
    "刑事责任",
    "量刑",
    "判处",
    "刑法",
    "从轻",
    "从重",
    "减轻处罚",
    "缓刑",
    "有期徒刑",
    "拘役",
    "提请",
    "依法惩处",
    "公诉机关认为",
];

/// The facts without the sentences that state a conclusion.
pub fn without_conclusions(facts: &str) -> String {
    facts
        .split_inclusive(['。', '；', '\n'])
        .filter(|s| !CONCLUSIONS.iter().any(|word| s.contains(word)))
        .collect::<String>()
        .trim()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_and_counted_in_characters() {
        let text = "某法院。现已审理终结。 经审理查明，王某偷了一辆车。 本院认为，王某构成盗窃罪。依照刑法，判决如下： 被告人王某犯盗窃罪。如不服本判决，可上诉。 审判长李某";
        let places = find(text).unwrap();
        assert_eq!(&text[places.facts.clone().unwrap()], "经审理查明，王某偷了一辆车。");
        assert_eq!(&text[places.reasoning.clone().unwrap()], "本院认为，王某构成盗窃罪。依照刑法，判决如下：");
        assert_eq!(&text[places.decided.clone()], "被告人王某犯盗窃罪。");
        assert_eq!(&text[places.verdict.clone()], "被告人王某犯盗窃罪。如不服本判决，可上诉。");
        let sections = places.in_characters(text);
        let [start, end] = sections.verdict.unwrap();
        assert_eq!(text.chars().skip(start).take(end - start).collect::<String>(), text[places.verdict]);
        assert!(find("没有结论的文字").is_none());
    }

    #[test]
    fn conclusions_are_cut_out_of_the_facts() {
        let facts = "公诉机关指控，王某偷了一辆车。应当以盗窃罪追究其刑事责任。车值五千元。";
        assert_eq!(without_conclusions(facts), "公诉机关指控，王某偷了一辆车。车值五千元。");
    }
}
