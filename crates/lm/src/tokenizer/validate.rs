//! What is refused of a `tokenizer.json` that the tokenizers library reads, and fails on later.

use tokenizers::{ModelWrapper, NormalizerWrapper, PostProcessorWrapper};

use crate::panics::caught;

/// Texts of many kinds: letters, digits, white space, composed characters, several scripts, control characters.
const PROBES: [&str; 5] = [
    "",
    " ",
    "The cat's 12 hats,\n\n\tnaïve cafe\u{301}! ",
    "三年 ﬁ Ⅳ ＡＢ １２ ガ ﷽ 👩‍👩‍👧 𝄞",
    "\u{0}\u{1b}\r\n\u{ad}\u{fffd}\u{10ffff}",
];

/// Checks a pipeline for settings that cannot work. Returns the problem and what to do.
pub fn check(inner: &tokenizers::Tokenizer) -> Result<(), (String, &'static str)> {
    let hint = "take the file from the model's release";
    let known = |token: &str| inner.token_to_id(token).is_some();
    match inner.get_model() {
        ModelWrapper::BPE(bpe) => {
            if bpe.dropout.is_some_and(|dropout| dropout != 0.0) {
                let problem = "model.dropout: with dropout, equal texts get different tokens each time";
                return Err((problem.into(), "set it to null"));
            }
            if let Some(token) = bpe.unk_token.as_deref().filter(|token| !known(token)) {
                return Err((format!("model.unk_token: `{token}` is not in the vocabulary"), hint));
            }
        }
        ModelWrapper::WordPiece(model) if !known(&model.unk_token) => {
            return Err((format!("model.unk_token: `{}` is not in the vocabulary", model.unk_token), hint));
        }
        ModelWrapper::WordLevel(model) if !known(&model.unk_token) => {
            return Err((format!("model.unk_token: `{}` is not in the vocabulary", model.unk_token), hint));
        }
        _ => {}
    }
    if inner.get_normalizer().is_some_and(replaces_nothing) {
        return Err(("normalizer: a Replace has an empty pattern".into(), hint));
    }
    if inner.get_post_processor().is_some_and(names_unknown_tokens) {
        return Err(("post_processor: the TemplateProcessing names a token that it does not list".into(), hint));
    }
    Ok(())
}

fn replaces_nothing(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(replaces_nothing),
        NormalizerWrapper::Replace(_) => {
            let json = serde_json::to_value(normalizer).unwrap_or_default();
            json["pattern"]["String"] == "" || json["pattern"]["Regex"] == ""
        }
        _ => false,
    }
}

fn names_unknown_tokens(processor: &PostProcessorWrapper) -> bool {
    match processor {
        PostProcessorWrapper::Sequence(sequence) => sequence.as_ref().iter().any(names_unknown_tokens),
        PostProcessorWrapper::Template(_) => {
            let json = serde_json::to_value(processor).unwrap_or_default();
            let pieces = ["single", "pair"].into_iter().flat_map(|form| json[form].as_array().into_iter().flatten());
            let mut names = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
            names.any(|name| json["special_tokens"][name]["ids"].as_array().is_none_or(Vec::is_empty))
        }
        _ => false,
    }
}

/// Encodes texts of many kinds, and decodes every token, to find out whether the library fails.
///
/// * `size`: one more than the largest id.
///
/// # Errors
/// A sentence for the user.
pub fn probe(inner: &tokenizers::Tokenizer, size: usize) -> Result<(), String> {
    let work = || -> tokenizers::Result<()> {
        for text in PROBES {
            for special in [false, true] {
                let ids = inner.encode(text, special)?.get_ids().to_vec();
                if let Some(id) = ids.iter().find(|&&id| id as usize >= size) {
                    return Err(format!("a text becomes the token {id}, and the largest is {}", size - 1).into());
                }
            }
        }
        let all: Vec<u32> = (0..size as u32).collect();
        inner.decode(&all, false).map(drop)
    };
    match caught(work) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("it cannot be used: {error}")),
        Err(panic) => Err(format!("the tokenizers library fails on it: {panic}")),
    }
}
