//! The meaning of columns: the layouts of Alpaca, ShareGPT, chat messages, TRL, GSM8K and CAIL, and plain labelled
//! text.
//!
//! A layout turns a row into a case of [`crate::jsonl`]: `prompt` or `messages`, with `answer` or `demonstration` if
//! the row has one. The file's outputs are answers if nine in ten are short; otherwise they are demonstrations. An
//! output with an `<answer>` block is both.

use std::collections::HashSet;

use super::row::Row;
use crate::rewards::answer;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The length in characters up to which an output of one line counts as short.
const ANSWER_CHARS: usize = 40;

/// Names of the column with a text to label, and of the column with its label.
const TEXTS: [&str; 8] = ["text", "content", "sentence", "document", "文本", "内容", "事实", "正文"];
const LABELS: [&str; 8] = ["label", "labels", "category", "class", "target", "标签", "类别", "罪名"];

/// A layout of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `messages`: a list of `role` and `content`.
    Messages,
    /// `conversations`: a list of `from` and `value` (ShareGPT).
    ShareGpt,
    /// `instruction`, `input`, `output` (Alpaca).
    Alpaca,
    /// `prompt` with `chosen` and `rejected` (TRL's preferences). The chosen completion is the demonstration.
    Preference,
    /// `prompt` with `completion`, `response` or `output` (TRL).
    PromptCompletion,
    /// `prompt` with `answer`, `solution` or `ground_truth`, or alone.
    PromptAnswer,
    /// `question` and `answer` (GSM8K and similar).
    QuestionAnswer,
    /// `fact` with `meta` (CAIL2018) or `charges`: criminal cases, for the task `judgment`.
    Judgment,
    /// A text and its label.
    Labelled,
    /// Text alone, for pretraining.
    Documents,
}

impl Layout {
    /// The layout that has these columns; the most specific one if several fit.
    pub fn of(columns: &[String]) -> Option<Layout> {
        let has = |name: &str| columns.iter().any(|column| column == name);
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        Some(match () {
            () if has("fact") && any(&["meta", "charges"]) => Layout::Judgment,
            () if has("messages") => Layout::Messages,
            () if any(&["conversations", "conversation"]) => Layout::ShareGpt,
            () if has("prompt") && has("chosen") => Layout::Preference,
            () if has("prompt") && any(&["completion", "response", "output"]) => Layout::PromptCompletion,
            () if has("prompt") => Layout::PromptAnswer,
            () if has("instruction") && any(&["output", "response"]) => Layout::Alpaca,
            () if any(&["question", "问题"]) && any(&["answer", "答案", "response"]) => Layout::QuestionAnswer,
            () if any(&TEXTS) && any(&LABELS) => Layout::Labelled,
            () if any(&TEXTS) => Layout::Documents,
            () => return None,
        })
    }

    /// The layout in words, for the terminal and for the recipe's comments.
    pub fn words(self) -> &'static str {
        match self {
            Layout::Messages => "conversations (`messages`)",
            Layout::ShareGpt => "conversations in ShareGPT's layout",
            Layout::Alpaca => "instructions in Alpaca's layout",
            Layout::Preference => "preferences in TRL's layout (the chosen completion is the demonstration)",
            Layout::PromptCompletion => "prompts with completions in TRL's layout",
            Layout::PromptAnswer => "prompts",
            Layout::QuestionAnswer => "questions with answers",
            Layout::Judgment => "criminal cases",
            Layout::Labelled => "texts with labels",
            Layout::Documents => "documents",
        }
    }

    /// The columns that the layout reads: of each list, the first one that a row has.
    fn columns(self) -> &'static [&'static [&'static str]] {
        match self {
            Layout::Messages => &[&["messages"]],
            Layout::ShareGpt => &[&["conversations", "conversation"]],
            Layout::Alpaca => &[&["instruction"], &["input"], &["output", "response"]],
            Layout::Preference => &[&["prompt"], &["chosen"], &["rejected"]],
            Layout::PromptCompletion => &[&["prompt"], &["completion", "response", "output"]],
            Layout::PromptAnswer => {
                &[&["prompt"], &["demonstration"], &["answer", "solution", "ground_truth", "label"]]
            }
            Layout::QuestionAnswer => &[&["question", "问题"], &["answer", "答案", "response"]],
            Layout::Judgment => {
                &[&["fact"], &["meta"], &["charges"], &["articles"], &["months"], &["life"], &["death"]]
            }
            Layout::Labelled => &[&TEXTS, &LABELS],
            Layout::Documents => &[&TEXTS],
        }
    }

    /// The columns that no row uses.
    pub fn unused(self, columns: &[String], rows: &[Row]) -> Vec<String> {
        let mut used: HashSet<&str> = HashSet::new();
        for row in rows {
            used.extend(self.columns().iter().filter_map(|names| names.iter().find(|name| row.contains_key(**name))));
        }
        columns.iter().filter(|name| !used.contains(name.as_str())).cloned().collect()
    }

    /// The row's output, if the layout has one column for both answers and demonstrations.
    fn output(self, row: &Row) -> Option<Value> {
        let names: &[&str] = match self {
            Layout::Alpaca => &["output", "response"],
            Layout::Preference => &["chosen"],
            Layout::PromptCompletion => &["completion", "response", "output"],
            Layout::QuestionAnswer => &["answer", "答案", "response"],
            _ => &[],
        };
        names.iter().find_map(|name| row.get(*name)).cloned()
    }

    /// Whether the file's outputs are answers, that is, nine in ten are short.
    pub fn outputs_are_answers(self, rows: &[Row]) -> bool {
        let outputs: Vec<String> =
            rows.iter().map(|row| last_content(self.output(row))).filter(|text| !text.is_empty()).collect();
        let short =
            outputs.iter().filter(|text| text.chars().count() <= ANSWER_CHARS && !text.trim().contains('\n')).count();
        short * 10 >= outputs.len() * 9
    }

    /// The case of a row. `short` says that outputs are answers. Rows of judgments and documents are not changed.
    pub fn case(self, row: Row, short: bool) -> Value {
        let first = |names: &[&str]| names.iter().find_map(|name| row.get(*name)).cloned();
        let prompt = match self {
            Layout::Judgment | Layout::Documents => return Value::Object(row),
            Layout::Messages => return json!({ "messages": first(&["messages"]) }),
            Layout::ShareGpt => return json!({ "messages": share_gpt(&row) }),
            Layout::Alpaca => {
                let parts = [text(row.get("instruction")), text(row.get("input"))];
                let parts: Vec<String> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
                Some(Value::String(parts.join("\n")))
            }
            Layout::Preference | Layout::PromptCompletion => first(&["prompt"]),
            Layout::PromptAnswer => {
                let mut case = keep(&row, &["prompt", "demonstration"]);
                if let Some(answer) = first(&["answer", "solution", "ground_truth", "label"]) {
                    let worked = text(case.get("demonstration"));
                    if !worked.is_empty() && answer::blocks_of(&worked).is_err() {
                        let blocks =
                            format!("<think>{}</think><answer>{}</answer>", worked.trim(), text(Some(&answer)).trim());
                        case.insert("demonstration".to_string(), Value::String(blocks));
                    }
                    case.insert("answer".to_string(), answer);
                }
                return Value::Object(case);
            }
            Layout::QuestionAnswer => {
                if let Some(answer) = row.get("answer").filter(|answer| text(Some(answer)).contains("#### ")) {
                    // The task knows this layout and separates reasoning and number.
                    return json!({ "question": first(&["question"]), "answer": answer });
                }
                first(&["question", "问题"])
            }
            Layout::Labelled => {
                let label = first(&LABELS).map(|label| Value::String(labels(&label)));
                return json!({ "prompt": first(&TEXTS), "answer": label });
            }
        };
        let mut case = Map::new();
        case.insert("prompt".to_string(), prompt.unwrap_or(Value::Null));
        place(&mut case, &last_content(self.output(&row)), short);
        Value::Object(case)
    }
}

/// Adds an output to the case, as answer, demonstration or both.
fn place(case: &mut Map<String, Value>, output: &str, short: bool) {
    let output = output.trim();
    if output.is_empty() {
        return;
    }
    let block = answer::blocks_of(output).ok().map(|blocks| blocks.answer);
    if let Some(answer) = block.or(short.then_some(output)) {
        case.insert("answer".to_string(), Value::String(answer.to_string()));
    }
    if block.is_some() || !short {
        case.insert("demonstration".to_string(), Value::String(output.to_string()));
    }
}

/// A completion as text; for a list of messages, the content of the last one.
fn last_content(output: Option<Value>) -> String {
    match output {
        Some(Value::Array(messages)) => text(messages.last().and_then(|message| message.get("content"))),
        other => text(other.as_ref()),
    }
}

fn share_gpt(row: &Row) -> Value {
    let turns = row.get("conversations").or_else(|| row.get("conversation")).and_then(Value::as_array);
    let turns = turns.map(Vec::as_slice).unwrap_or_default().iter();
    let messages = turns.map(|turn| {
        let said_by = turn.get("from").or_else(|| turn.get("role")).and_then(Value::as_str).unwrap_or("user");
        let role = match said_by {
            "human" | "user" => "user",
            "gpt" | "assistant" | "model" | "chatgpt" => "assistant",
            other => other,
        };
        json!({ "role": role, "content": text(turn.get("value").or_else(|| turn.get("content"))) })
    });
    messages.collect()
}

fn keep(row: &Row, names: &[&str]) -> Map<String, Value> {
    row.iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// One label, or several sorted ones.
fn labels(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let mut names: Vec<String> = list.iter().map(|item| text(Some(item))).collect();
            names.sort();
            names.join("、")
        }
        other => text(Some(other)),
    }
}

/// A value as text: strings without quotes, a missing value as "".
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The prompt of a case as one text, which identifies duplicates.
pub fn prompt_of(case: &Value) -> String {
    let asked = |messages: &[Value]| -> String {
        let last = messages.last().is_some_and(|message| message["role"] == "assistant");
        let kept = &messages[..messages.len() - usize::from(last)];
        kept.iter().map(|message| text(message.get("content"))).collect::<Vec<_>>().join("\n")
    };
    match (case.get("prompt"), case.get("messages")) {
        (Some(Value::Array(messages)), _) | (None, Some(Value::Array(messages))) => asked(messages),
        (prompt, _) => {
            let names = ["question", "fact"].iter().chain(&TEXTS);
            text(prompt.or_else(|| names.into_iter().find_map(|name| case.get(*name))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: Value, layout: Layout, case: Value) {
        let Value::Object(row) = row else { panic!("not a row") };
        let columns: Vec<String> = row.keys().cloned().collect();
        assert_eq!(Layout::of(&columns), Some(layout), "{columns:?}");
        let short = layout.outputs_are_answers(std::slice::from_ref(&row));
        assert_eq!(layout.case(row, short), case);
    }

    #[test]
    fn the_usual_layouts_become_cases() {
        let long = "很长的回答。".repeat(10);
        check(
            json!({ "instruction": "翻译", "input": "hello", "output": "你好" }),
            Layout::Alpaca,
            json!({ "prompt": "翻译\nhello", "answer": "你好" }),
        );
        check(
            json!({ "instruction": "解释", "input": "", "output": long }),
            Layout::Alpaca,
            json!({ "prompt": "解释", "demonstration": long }),
        );
        check(
            json!({ "conversations": [{ "from": "human", "value": "a" }, { "from": "gpt", "value": "b" }] }),
            Layout::ShareGpt,
            json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] }),
        );
        check(
            json!({ "prompt": "p", "completion": "<think>t</think><answer>7</answer>" }),
            Layout::PromptCompletion,
            json!({ "prompt": "p", "answer": "7", "demonstration": "<think>t</think><answer>7</answer>" }),
        );
        check(
            json!({ "prompt": [{ "role": "user", "content": "p" }], "chosen": [{ "role": "assistant", "content": long }], "rejected": [] }),
            Layout::Preference,
            json!({ "prompt": [{ "role": "user", "content": "p" }], "demonstration": long }),
        );
        check(
            json!({ "prompt": "p", "demonstration": "so", "answer": 7 }),
            Layout::PromptAnswer,
            json!({ "prompt": "p", "demonstration": "<think>so</think><answer>7</answer>", "answer": 7 }),
        );
        check(json!({ "prompt": "p", "solution": 7 }), Layout::PromptAnswer, json!({ "prompt": "p", "answer": 7 }));
        check(
            json!({ "question": "q", "answer": "so\n#### 7" }),
            Layout::QuestionAnswer,
            json!({ "question": "q", "answer": "so\n#### 7" }),
        );
        check(
            json!({ "文本": "t", "类别": ["乙", "甲"] }),
            Layout::Labelled,
            json!({ "prompt": "t", "answer": "乙、甲" }),
        );
        check(json!({ "text": "t" }), Layout::Documents, json!({ "text": "t" }));
        let cail = json!({ "fact": "f", "meta": { "accusation": ["盗窃"] } });
        check(cail.clone(), Layout::Judgment, cail);
        assert_eq!(Layout::of(&["a".to_string(), "b".to_string()]), None);
    }

    #[test]
    fn columns_that_no_row_uses_are_found() {
        let rows: Vec<Row> = [r#"{"question": "q", "A": "1", "answer": "A"}"#, r#"{"question": "q", "response": "B"}"#]
            .map(|line| serde_json::from_str(line).unwrap())
            .into();
        let columns = ["question", "A", "answer", "response", "id"].map(String::from);
        assert_eq!(Layout::QuestionAnswer.unused(&columns, &rows), ["A", "id"]);
        assert_eq!(Layout::QuestionAnswer.unused(&columns, &rows[..1]), ["A", "response", "id"]);
    }

    #[test]
    fn what_is_asked_is_known_in_every_layout() {
        assert_eq!(prompt_of(&json!({ "prompt": "p", "answer": "a" })), "p");
        assert_eq!(prompt_of(&json!({ "question": "q" })), "q");
        let turns =
            json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] });
        assert_eq!(prompt_of(&turns), "a");
        assert_eq!(prompt_of(&json!({ "fact": "f" })), "f");
    }
}
