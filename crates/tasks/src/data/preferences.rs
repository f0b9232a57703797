//! People's preferences from a file of the user: pairs of completions, or thumbs on single ones.
//!
//! | kind | columns | meaning |
//! |---|---|---|
//! | pair | `prompt`, `chosen`, `rejected` | the chosen completion is better than the rejected one |
//! | thumb | `prompt`, `completion`, `label` | the completion is good (`true`, `1`, `up`) or bad (`false`, `0`, `down`) |
//!
//! The names are TRL's; a recipe may give the file's own. A prompt is a text or a list of messages. A completion is a
//! text or a list of one message of the assistant. If `chosen` and `rejected` are whole conversations, their common
//! beginning is the prompt. Then there is no column `prompt`, or it repeats the last message of that beginning.
//! [`super::table`] lists the formats.
//!
//! The reader never guesses: an invalid row is an error with its place. A row that adds nothing new is left out and
//! counted.
//!
//! Read next: `train::stages::dpo`, which trains on pairs.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::row::Row;
use super::table::{self, Table};
use crate::case::{Message, Prompt};
use crate::refusal::Refusal;
use crate::{partition, suggest};

/// What a file calls the columns of pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PairColumns {
    /// What was asked.
    pub prompt: String,
    /// The better completion.
    pub chosen: String,
    /// The worse one.
    pub rejected: String,
}

impl Default for PairColumns {
    fn default() -> Self {
        let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(String::from);
        Self { prompt, chosen, rejected }
    }
}

/// What a file calls the columns of thumbs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThumbColumns {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub completion: String,
    /// Whether the answer was found good.
    pub label: String,
}

impl Default for ThumbColumns {
    fn default() -> Self {
        let [prompt, completion, label] = ["prompt", "completion", "label"].map(String::from);
        Self { prompt, completion, label }
    }
}

/// A person's judgement of the completions of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// An id from the content.
    pub id: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The judgement.
    pub judged: Judged,
}

/// A person's judgement of the answers to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// One is better than another.
    Pair {
        /// The better one.
        chosen: String,
        /// The worse one.
        rejected: String,
    },
    /// One is good or bad.
    Thumb {
        /// The answer.
        completion: String,
        /// Whether it was marked good.
        desirable: bool,
    },
}

impl Judged {
    /// The answers, the chosen one first.
    pub fn completions(&self) -> Vec<&str> {
        match self {
            Judged::Pair { chosen, rejected } => vec![chosen, rejected],
            Judged::Thumb { completion, .. } => vec![completion],
        }
    }

    /// The opposite judgement of the same answers.
    fn contrary(&self) -> Judged {
        match self.clone() {
            Judged::Pair { chosen, rejected } => Judged::Pair { chosen: rejected, rejected: chosen },
            Judged::Thumb { completion, desirable } => Judged::Thumb { completion, desirable: !desirable },
        }
    }
}

/// The preferences of a file, and counts of its other rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preferences {
    /// The preferences, sorted by id.
    pub rows: Vec<Preference>,
    /// Rows that repeat an earlier row.
    pub repeated: usize,
    /// Pairs whose two sides are the same.
    pub equal: usize,
    /// Rows whose opposite is in the file too; they are kept.
    pub contradicted: usize,
}

/// Reads the pairs of a file.
///
/// # Errors
/// A file that cannot be read or lacks the columns; the first invalid row, by its place; no pair whose sides differ.
pub fn pairs(path: &Path, columns: &PairColumns) -> Result<Preferences, Refusal> {
    let table = table::read(path)?;
    has(path, &table, &[("chosen", &columns.chosen), ("rejected", &columns.rejected)])?;
    collect(path, &table, |row| row.pair(columns))
}

/// Reads the thumbs of a file.
///
/// # Errors
/// As [`pairs`].
pub fn thumbs(path: &Path, columns: &ThumbColumns) -> Result<Preferences, Refusal> {
    let table = table::read(path)?;
    let names = [("prompt", &columns.prompt), ("completion", &columns.completion), ("label", &columns.label)];
    has(path, &table, &names)?;
    collect(path, &table, |row| row.thumb(columns))
}

fn has(path: &Path, table: &Table, names: &[(&str, &String)]) -> Result<(), Refusal> {
    let Some((key, name)) = names.iter().find(|(_, name)| !table.columns.contains(name)) else { return Ok(()) };
    let columns = table.columns.iter().map(String::as_str);
    let problem = format!("there is no column `{name}`, only {}", suggest::listed(columns.clone()));
    let near = suggest::hint(name, columns);
    let hint = format!("{near}; say what the file calls it with `columns = {{ {key} = \"…\" }}`");
    Err(Refusal::new(problem, hint).in_file(path))
}

fn collect(
    path: &Path,
    table: &Table,
    read: impl Fn(&Place) -> Result<(Prompt, Judged), Refusal>,
) -> Result<Preferences, Refusal> {
    let mut found = Preferences::default();
    let mut seen = BTreeSet::new();
    for (row, &line) in table.rows.iter().zip(&table.places) {
        let (prompt, judged) = read(&Place { path, line, row })?;
        let id = id(&prompt, &judged);
        if matches!(&judged, Judged::Pair { chosen, rejected } if chosen.trim() == rejected.trim()) {
            found.equal += 1;
        } else if seen.insert(id.clone()) {
            found.rows.push(Preference { id, prompt, judged });
        } else {
            found.repeated += 1;
        }
    }
    found.contradicted =
        found.rows.iter().filter(|row| seen.contains(&self::id(&row.prompt, &row.judged.contrary()))).count();
    if found.rows.is_empty() {
        let hint = "a pair needs two completions that differ";
        let problem = "there is nothing to learn from: both sides of every pair are the same";
        return Err(Refusal::new(problem, hint).in_file(path));
    }
    found.rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn id(prompt: &Prompt, judged: &Judged) -> String {
    let content = match judged {
        Judged::Pair { chosen, rejected } => json!([prompt, chosen, rejected]),
        Judged::Thumb { completion, desirable } => json!([prompt, completion, desirable]),
    };
    partition::id(&content.to_string())
}

/// A row and its place in the file.
struct Place<'a> {
    path: &'a Path,
    line: usize,
    row: &'a Row,
}

impl Place<'_> {
    fn wrong<T>(&self, column: &str, problem: impl Into<String>, hint: &str) -> Result<T, Refusal> {
        Err(Refusal::new(problem, hint).in_key(column).in_line(self.path, self.line))
    }

    fn pair(&self, columns: &PairColumns) -> Result<(Prompt, Judged), Refusal> {
        let (mut chosen, mut rejected) = (self.said(&columns.chosen)?, self.said(&columns.rejected)?);
        let mut shared = Vec::new();
        if let (Said::Messages(a), Said::Messages(b)) = (&mut chosen, &mut rejected) {
            let most = a.len().min(b.len()) - 1;
            let length = (0..most).take_while(|&i| a[i] == b[i]).count();
            shared = a.drain(..length).collect();
            b.drain(..length);
        }
        let prompt = match (self.row.get(&columns.prompt), shared.last()) {
            (_, None) => self.prompt(&columns.prompt)?,
            (None, Some(_)) => self.asked(&columns.chosen, shared)?,
            (Some(Value::String(text)), Some(last)) if text.trim() == last.content.trim() => {
                self.asked(&columns.chosen, shared)?
            }
            (Some(_), Some(_)) => {
                let problem = "both completions begin with messages that are not the prompt";
                return self.wrong(&columns.chosen, problem, "leave out the column of prompts, or these messages");
            }
        };
        let chosen = self.answer(&columns.chosen, chosen)?;
        let rejected = self.answer(&columns.rejected, rejected)?;
        Ok((prompt, Judged::Pair { chosen, rejected }))
    }

    fn thumb(&self, columns: &ThumbColumns) -> Result<(Prompt, Judged), Refusal> {
        let prompt = self.prompt(&columns.prompt)?;
        let completion = self.answer(&columns.completion, self.said(&columns.completion)?)?;
        let Some(value) = self.row.get(&columns.label) else {
            return self.wrong(&columns.label, "there is none", "write true or false on every row");
        };
        let Some(desirable) = thumb(value) else {
            let hint = "write true, 1 or up for a good completion, false, 0 or down for a bad one";
            return self.wrong(&columns.label, format!("{value} is neither up nor down"), hint);
        };
        Ok((prompt, Judged::Thumb { completion, desirable }))
    }

    fn prompt(&self, column: &str) -> Result<Prompt, Refusal> {
        let hint = "write what was asked: a text, or a list of messages";
        match self.row.get(column) {
            None => self.wrong(column, "there is none", hint),
            Some(Value::Array(list)) => self.asked(column, self.messages(column, list)?),
            Some(value) => match text(value) {
                Some(text) if !text.trim().is_empty() => Ok(Prompt::Text(text)),
                Some(_) => self.wrong(column, "it is empty", hint),
                None => self.wrong(column, "it is neither text nor messages", hint),
            },
        }
    }

    fn asked(&self, column: &str, messages: Vec<Message>) -> Result<Prompt, Refusal> {
        match messages.last() {
            Some(last) if last.role != "assistant" => Ok(Prompt::Messages(messages)),
            _ => self.wrong(
                column,
                "the prompt does not end with a message of the user",
                "leave the answer to the completions",
            ),
        }
    }

    fn said(&self, column: &str) -> Result<Said, Refusal> {
        let hint = "write what was answered: a text, or a message of the assistant";
        match self.row.get(column) {
            None => self.wrong(column, "there is none", hint),
            Some(Value::Array(list)) if !list.is_empty() => Ok(Said::Messages(self.messages(column, list)?)),
            Some(value) => match text(value) {
                Some(text) => Ok(Said::Text(text)),
                None => self.wrong(column, "it is neither text nor messages", hint),
            },
        }
    }

    /// The one answer of a completion.
    fn answer(&self, column: &str, said: Said) -> Result<String, Refusal> {
        let text = match said {
            Said::Text(text) => text,
            Said::Messages(messages) => match <[Message; 1]>::try_from(messages) {
                Ok([message]) if message.role == "assistant" => message.content,
                Ok([message]) => {
                    let problem = format!("it is a message of the {}", message.role);
                    return self.wrong(column, problem, "a completion is what the assistant answered");
                }
                Err(messages) => {
                    let problem = format!("{} messages where one answer is compared", messages.len());
                    return self.wrong(column, problem, "put all but the last answer into the prompt");
                }
            },
        };
        match text.trim().is_empty() {
            true => self.wrong(column, "it is empty", "leave the row out: an empty completion teaches nothing"),
            false => Ok(text),
        }
    }

    fn messages(&self, column: &str, list: &[Value]) -> Result<Vec<Message>, Refusal> {
        let hint = "every message is {\"role\": \"user\", \"content\": \"…\"}";
        let message = |value: &Value| match Message::deserialize(value) {
            Ok(message) => Ok(message),
            Err(error) => self.wrong(column, error.to_string(), hint),
        };
        list.iter().map(message).collect()
    }
}

/// A completion in the file's form.
enum Said {
    Text(String),
    Messages(Vec<Message>),
}

/// A cell as text; spreadsheets hold numbers.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn thumb(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(up) => Some(*up),
        value => match text(value)?.trim().to_lowercase().as_str() {
            "true" | "1" | "up" => Some(true),
            "false" | "0" | "down" => Some(false),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<T>(name: &str, text: &str, read: impl Fn(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    fn pairs_of(name: &str, text: &str) -> Result<Preferences, String> {
        at(name, text, |path| pairs(path, &PairColumns::default()).map_err(|error| error.to_string()))
    }

    fn thumbs_of(name: &str, text: &str) -> Result<Preferences, String> {
        at(name, text, |path| thumbs(path, &ThumbColumns::default()).map_err(|error| error.to_string()))
    }

    fn pair(chosen: &str, rejected: &str) -> Judged {
        Judged::Pair { chosen: chosen.into(), rejected: rejected.into() }
    }

    #[test]
    fn pairs_of_any_layout_are_the_same_pairs() {
        let user = json!({ "role": "user", "content": "q" });
        let said = |content: &str| json!({ "role": "assistant", "content": content });
        let line = |value: Value| format!("{value}\n");
        let lists = json!({ "prompt": [user], "chosen": [said("a")], "rejected": [said("b")] });
        let implicit = json!({ "chosen": [user, said("a")], "rejected": [user, said("b")] });
        let repeated = json!({ "prompt": "q", "chosen": [user, said("a")], "rejected": [user, said("b")] });
        let all = line(lists) + &line(implicit) + &line(repeated);
        let found = pairs_of("a.jsonl", &all).unwrap();
        assert_eq!((found.rows.len(), found.repeated), (1, 2));
        assert_eq!(found.rows[0].judged, pair("a", "b"));
        assert_eq!(found.rows[0].prompt, Prompt::Messages(vec![Message { role: "user".into(), content: "q".into() }]));

        let plain = json!({ "prompt": "q", "chosen": "a", "rejected": "b" }).to_string();
        let found = pairs_of("a.jsonl", &plain).unwrap();
        assert_eq!((&found.rows[0].prompt, &found.rows[0].judged), (&Prompt::Text("q".into()), &pair("a", "b")));
        for (name, text) in [("a.csv", "prompt,chosen,rejected\nq,a,b\n"), ("a.json", &format!("[{plain}]"))] {
            assert_eq!(pairs_of(name, text).unwrap(), found, "{name}");
        }
        let columns = PairColumns { prompt: "问".into(), ..PairColumns::default() };
        let renamed = at("a.csv", "问,chosen,rejected\nq,a,b\n", |path| pairs(path, &columns)).unwrap();
        assert_eq!(renamed, found);
    }

    #[test]
    fn rows_that_say_nothing_new_are_counted() {
        let found = pairs_of("a.csv", "prompt,chosen,rejected\nq,a,b\nq,b,a\nq,a,b\nq,a, a\nr,a,b\n").unwrap();
        assert_eq!((found.rows.len(), found.repeated, found.equal, found.contradicted), (3, 1, 1, 2));
        assert!(found.rows.is_sorted_by_key(|row| &row.id));
        let other_order = pairs_of("a.csv", "prompt,chosen,rejected\nr,a,b\nq,a, a\nq,b,a\nq,a,b\nq,a,b\n").unwrap();
        assert_eq!(other_order, found);
        let found = thumbs_of("a.csv", "prompt,completion,label\nq,a,true\nq,a,FALSE\nq,b,1\nq,b,up\nr,b,0\n").unwrap();
        assert_eq!((found.rows.len(), found.repeated, found.contradicted), (4, 1, 2));
        assert_eq!(
            found.rows.iter().filter(|row| matches!(row.judged, Judged::Thumb { desirable: true, .. })).count(),
            2
        );
    }

    #[test]
    fn what_is_no_preference_is_named_by_place_and_column() {
        let check = |told: Result<Preferences, String>, part: &str| {
            let error = told.unwrap_err();
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        };
        check(
            pairs_of("a.csv", "prompt,chosen,rejcted\nq,a,b\n"),
            "no column `rejected`, only prompt, chosen, rejcted",
        );
        check(
            pairs_of("a.csv", "prompt,chosen,rejcted\nq,a,b\n"),
            "did you mean \"rejcted\"?; say what the file calls it",
        );
        check(pairs_of("a.csv", "prompt,chosen,rejected\nq,a,b\n\"q\nq\",a,\n"), "a.csv:3: rejected: there is none");
        check(pairs_of("a.csv", "prompt,chosen,rejected\nq,a,\" \"\n"), "a.csv:2: rejected: it is empty");
        check(pairs_of("a.csv", "prompt,chosen,rejected\nq,a,a\n"), "nothing to learn from");
        check(pairs_of("a.jsonl", "{\"chosen\": \"a\", \"rejected\": \"b\"}"), "a.jsonl:1: prompt: there is none");
        check(pairs_of("a.jsonl", "{\"prompt\": {}, \"chosen\": \"a\", \"rejected\": \"b\"}"), "prompt: it is neither");
        let user = "{\"role\": \"user\", \"content\": \"q\"}";
        let said = "{\"role\": \"assistant\", \"content\": \"a\"}";
        let row = |prompt: &str, chosen: &str, rejected: &str| {
            pairs_of("a.jsonl", &format!("{{{prompt}\"chosen\": {chosen}, \"rejected\": {rejected}}}"))
        };
        let other = said.replace("\"a\"", "\"b\"");
        check(row("", &format!("[{user}]"), &format!("[{other}]")), "prompt: there is none");
        check(row("\"prompt\": \"q\",", &format!("[{user}]"), "\"b\""), "chosen: it is a message of the user");
        check(row("\"prompt\": \"q\",", &format!("[{said}, {user}, {said}]"), "\"b\""), "chosen: 3 messages where one");
        check(
            row("\"prompt\": \"r\",", &format!("[{user}, {said}]"), &format!("[{user}, {other}]")),
            "begin with messages that are not the prompt",
        );
        check(
            row("", &format!("[{said}, {said}]"), &format!("[{said}, {other}]")),
            "does not end with a message of the user",
        );
        check(
            thumbs_of("a.csv", "prompt,completion,label\nq,a,good\n"),
            "a.csv:2: label: \"good\" is neither up nor down",
        );
        check(thumbs_of("a.csv", "prompt,completion,label\nq,a,up\nq,b,\n"), "a.csv:3: label: there is none");
        check(thumbs_of("a.jsonl", "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": 2}"), "2 is neither");
    }
}
