//! Parses decisions.

use store::data_folder::review::Decision;

/// A decision by its word, in English or in the Chinese of the page.
pub(super) fn decision(word: &str) -> Result<Decision, String> {
    let word = word.trim().to_lowercase();
    let chinese = |decision| match decision {
        Decision::Accept => "通过",
        Decision::Correct => "更正",
        Decision::Reject => "驳回",
        Decision::Skip => "跳过",
    };
    Decision::ALL
        .into_iter()
        .find(|decision| word == decision.word() || word == chinese(*decision))
        .ok_or_else(|| "it is accept, correct, reject or skip".to_string())
}
