//! The tasks by name, built from a recipe's `[task]` table.
//!
//! To add a task, write its file and add a line to [`TASKS`].

use std::path::Path;

use toml::Table;

use crate::countdown::Countdown;
use crate::idiom_chain::IdiomChain;
use crate::jsonl::Jsonl;
use crate::judgment::Judgment;
use crate::keys::{self, KeyDoc};
use crate::refusal::Refusal;
use crate::suggest;
use crate::task::{Configured, Task};

/// Every task that a recipe can name.
const TASKS: &[Entry] =
    &[Entry::of::<Judgment>(), Entry::of::<IdiomChain>(), Entry::of::<Countdown>(), Entry::of::<Jsonl>()];

/// Builds a task from its table; relative paths start at the folder.
type Build = fn(Table, &Path) -> Result<Box<dyn Task>, Refusal>;

struct Entry {
    name: &'static str,
    arms: &'static [&'static str],
    summary: &'static str,
    keys: fn() -> Vec<KeyDoc>,
    build: Build,
    question: fn(Table, &str) -> Result<String, Refusal>,
}

impl Entry {
    const fn of<T: Configured>() -> Entry {
        Entry {
            name: T::NAME,
            arms: T::ARMS,
            summary: T::SUMMARY,
            keys: keys::keys_of::<T::Keys>,
            build: |table, folder| Ok(Box::new(T::build(keys::read(table, &[])?, folder)?)),
            question: |table, text| Ok(T::question(&keys::read(table, &[])?, text)),
        }
    }
}

/// The documentation of a task.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name in recipes.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// The names of its sets of rules. A stage's `rules` may name one.
    pub arms: &'static [&'static str],
    /// Its keys, besides `name`.
    pub keys: Vec<KeyDoc>,
}

/// The names of all tasks.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    TASKS.iter().map(|entry| entry.name)
}

/// The documentation of the task with that name.
pub fn describe(name: &str) -> Option<Described> {
    let entry = TASKS.iter().find(|entry| entry.name == name)?;
    Some(Described { name: entry.name, summary: entry.summary, arms: entry.arms, keys: (entry.keys)() })
}

/// The task that a `[task]` table describes; relative paths in it start at `folder`.
///
/// # Errors
/// An unknown task or key, an invalid value or a file that cannot be read, by the table's key; an invalid line, by its
/// file and number.
pub fn build(table: &Table, folder: &Path) -> Result<Box<dyn Task>, Refusal> {
    let (entry, keys) = named(table)?;
    (entry.build)(keys, folder)
}

/// Turns a user's text into a prompt of the task that a `[task]` table describes. The text is facts for `judgment`, an
/// idiom for `idiom_chain`. No file is read.
///
/// # Errors
/// An unknown task or key, an invalid value.
pub fn question(table: &Table, text: &str) -> Result<String, Refusal> {
    let (entry, keys) = named(table)?;
    (entry.question)(keys, text)
}

/// The task that a table names, and the table's other keys.
fn named(table: &Table) -> Result<(&'static Entry, Table), Refusal> {
    let mut keys = table.clone();
    let name = keys.remove("name");
    let name = name.as_ref().and_then(toml::Value::as_str).ok_or_else(|| {
        let names = names().collect::<Vec<_>>().join(", ");
        Refusal::new("is missing", format!("write name = \"…\"; there are {names}")).in_key("name")
    })?;
    match TASKS.iter().find(|entry| entry.name == name) {
        Some(entry) => Ok((entry, keys)),
        None => Err(Refusal::new(format!("there is no task \"{name}\""), suggest::hint(name, names())).in_key("name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_describes_itself() {
        for name in names() {
            let task = describe(name).expect("a task");
            assert!(task.summary.ends_with('.') && !task.arms.is_empty(), "{task:?}");
            assert!(task.keys.iter().all(|key| key.doc.ends_with('.')), "{task:?}");
        }
        assert!(describe("json").is_none());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (table, expected) in [
            ("", "name: is missing\nhint: write name = \"…\"; there are judgment, idiom_chain, countdown, jsonl"),
            ("name = \"json\"", "name: there is no task \"json\"\nhint: did you mean \"jsonl\"?"),
            ("name = \"countdown\"\nnumber = 3", "number: unknown key\nhint: did you mean \"numbers\"?"),
            (
                "name = \"countdown\"\nnumbers = 7",
                "numbers: 7 is above 6\nhint: it takes integer from 2 to 6; 3 is the default",
            ),
            (
                "name = \"judgment\"\nfact_chars = 9",
                "fact_chars: 9 is below 40\nhint: give at least 40, or leave it out to keep facts whole",
            ),
            (
                "name = \"jsonl\"\npath = \"a\"\ncolumns.promt = \"q\"",
                "columns.promt: unknown key\nhint: did you mean \"prompt\"?",
            ),
        ] {
            let refusal = build(&table.parse().expect("TOML"), Path::new("")).err().expect(table);
            assert_eq!(refusal.to_string(), expected);
        }
    }

    #[test]
    fn a_question_is_put_as_the_task_puts_it() {
        let asked = |table: &str| question(&table.parse().expect("TOML"), "1+1").expect("a question");
        assert_eq!(asked("name = \"jsonl\"\npath = \"a\"\ntemplate = \"Q: {prompt}\""), "Q: 1+1");
        assert_eq!(asked("name = \"countdown\""), "1+1");
        assert!(asked("name = \"judgment\"").contains("1+1\n"));
    }
}
