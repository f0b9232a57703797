//! Turns signed verdicts into cases: one file to train on, one for the gate.
//!
//! A line is `{"prompt" or "messages", "answer", "demonstration"}`, as the task `jsonl` reads it. A conversation that
//! is a single user message becomes a `prompt`, so that the task's template is applied to it as it is in service. Any
//! other conversation becomes `messages`.
//!
//! The lines and their order depend on the records alone, so a turn can be replayed without one of them.

use serde_json::{Map, Value, json};
use store::data_folder::found::FoundLabel;
use store::data_folder::review::Signed;
use tasks::rewards::answer::blocks_of;

/// A turn's cases, as JSON lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// The cases to train on.
    pub train: Vec<String>,
    /// The cases on which the models are compared.
    pub gate: Vec<String>,
    /// Items of the gate that were rejected without a right answer. They cannot be used, because nobody knows whether
    /// another answer to them is right.
    pub gate_unknown: usize,
    /// Whether answers are in an `<answer>` block. Otherwise the whole completion is the answer.
    pub in_blocks: bool,
}

/// Makes the cases from `verdicts` and `found` labels.
pub fn dataset(verdicts: &[Signed], found: &[FoundLabel]) -> Dataset {
    let mut dataset = Dataset::default();
    // The model's own completions show the form that it was taught.
    let with_block = verdicts.iter().filter(|verdict| blocks_of(&verdict.completion).is_ok()).count();
    dataset.in_blocks = 2 * with_block > verdicts.len();
    for verdict in verdicts {
        match (verdict.right_answer(), verdict.gate) {
            (Some(right), gate) => {
                let line = line(&verdict.messages, &verdict.completion, right, dataset.in_blocks);
                if gate { &mut dataset.gate } else { &mut dataset.train }.push(line);
            }
            (None, true) => dataset.gate_unknown += 1,
            (None, false) => {}
        }
    }
    for label in found {
        let messages = json!([{ "role": "user", "content": label.prompt }]).to_string();
        dataset.train.push(line(&messages, "", &label.answer, dataset.in_blocks));
    }
    dataset.train.sort_unstable();
    dataset.gate.sort_unstable();
    dataset
}

fn line(messages: &str, completion: &str, right: &str, in_blocks: bool) -> String {
    let mut line = Map::new();
    let messages: Value = serde_json::from_str(messages).unwrap_or_default();
    match messages.as_array().map(Vec::as_slice) {
        Some([only]) if only["role"] == "user" && only["content"].is_string() => {
            line.insert("prompt".into(), only["content"].clone());
        }
        _ => {
            line.insert("messages".into(), messages);
        }
    }
    let (answer, demonstration) = match blocks_of(right) {
        Ok(blocks) => (blocks.answer.to_string(), right.to_string()),
        // A person writes the answer alone. The reasoning behind a wrong answer is not kept.
        Err(_) if in_blocks => {
            let think = if completion.contains("<think>") || completion.is_empty() { "<think></think>" } else { "" };
            (right.trim().to_string(), format!("{think}<answer>{}</answer>", right.trim()))
        }
        Err(_) => (right.trim().to_string(), right.trim().to_string()),
    };
    line.insert("answer".into(), answer.into());
    line.insert("demonstration".into(), demonstration.into());
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use store::data_folder::review::Decision;

    use super::*;

    fn signed(completion: &str, decision: Decision, correction: Option<&str>, gate: bool) -> Signed {
        Signed {
            id: 1,
            item: "i".into(),
            gate,
            request: "r".into(),
            messages: r#"[{"role":"user","content":"q"}]"#.into(),
            completion: completion.into(),
            reviewer: "an".into(),
            decision,
            correction: correction.map(String::from),
            seconds: 1.0,
            at_ms: 0,
        }
    }

    #[test]
    fn verdicts_become_cases_in_the_form_of_the_model() {
        let form = "<think>so</think><answer>a</answer>";
        let verdicts = [
            signed(form, Decision::Accept, None, false),
            signed(form, Decision::Correct, Some("b"), true),
            signed(form, Decision::Reject, None, false),
            signed(form, Decision::Reject, None, true),
        ];
        let dataset = dataset(&verdicts, &[]);
        assert_eq!(dataset.train, [format!(r#"{{"prompt":"q","answer":"a","demonstration":"{form}"}}"#)]);
        assert_eq!(
            dataset.gate,
            [r#"{"prompt":"q","answer":"b","demonstration":"<think></think><answer>b</answer>"}"#]
        );
        assert_eq!((dataset.gate_unknown, dataset.in_blocks), (1, true));
    }

    #[test]
    fn a_model_that_answers_plainly_is_taught_plainly() {
        let mut long = signed("a", Decision::Correct, Some(" b "), false);
        long.messages = r#"[{"role":"system","content":"s"},{"role":"user","content":"q"}]"#.into();
        let label = FoundLabel { item: "i".into(), document: None, prompt: "p".into(), answer: "c".into() };
        let dataset = dataset(&[long], &[label]);
        assert_eq!(dataset.train[1], r#"{"prompt":"p","answer":"c","demonstration":"c"}"#);
        assert!(
            dataset.train[0].starts_with(r#"{"messages":[{"role":"system""#)
                && dataset.train[0].ends_with(r#""demonstration":"b"}"#)
        );
    }
}
