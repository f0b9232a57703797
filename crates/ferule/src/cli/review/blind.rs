//! What a reviewer sees before the verdict.

use anyhow::Context;
use serde_json::{Value, json};
use store::data_folder::review::Waiting;

/// A waiting item, without what a reviewer must not know before the verdict.
pub(super) fn blind(item: &Waiting) -> anyhow::Result<Value> {
    let messages = messages(&item.messages)?;
    Ok(json!({
        "item": item.item, "request": item.request, "reason": item.reason, "question": question(&messages),
        "answer": item.completion, "messages": messages,
    }))
}

pub(super) fn messages(text: &str) -> anyhow::Result<Vec<Value>> {
    serde_json::from_str(text).context("the ledger holds messages that are no JSON list")
}

/// The text of the user's last message.
pub(super) fn question(messages: &[Value]) -> String {
    let last = messages.iter().rev().find(|message| message["role"] == "user").or(messages.last());
    last.and_then(|message| message["content"].as_str()).unwrap_or_default().to_string()
}
