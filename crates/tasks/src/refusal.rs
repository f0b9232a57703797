//! Refusals: errors that the user can fix. A refusal says where the fault is, what is wrong, and how to fix it.
//!
//! Every error that the user can fix is a [`Refusal`]. It is created where the fault is found, with the place that is
//! known there (often just a key), and each caller adds the place around it: the rule, the stage, the line of the
//! recipe. [`std::fmt::Display`] renders it once; no code parses the text again.
//!
//! ```
//! use tasks::refusal::Refusal;
//!
//! let found = Refusal::new("not above 0", "1.0 is the default").in_key("tolerance").in_rule("number");
//! let told = found.in_key("stages[0].rules").in_line("r.toml", 7);
//! assert_eq!(told.to_string(), "r.toml:7: stages[0].rules: rule \"number\": tolerance: not above 0\nhint: 1.0 is the default");
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

/// A refusal. Shown as `place: problem`, and `hint: hint` on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Where the fault is.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// How to fix it.
    pub hint: String,
}

/// A place, from the outside in: a recipe's line, a key in it, a rule there, a key of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// A file, and its line counted from 1 if it is known.
    File {
        path: PathBuf,
        line: Option<usize>,
    },
    /// A key, column or field.
    Key(String),
    Rule(String),
    Stage(String),
    Task(String),
}

impl Refusal {
    /// A refusal without a place. The `in_…` methods add one, the innermost part first.
    pub fn new(problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal { place: Place::default(), problem: problem.into(), hint: hint.into() }
    }

    /// In a key. A key in a key is written `outer.inner`.
    pub fn in_key(self, key: impl Into<String>) -> Refusal {
        self.within(Part::Key(key.into()))
    }

    /// In a rule.
    pub fn in_rule(self, name: impl Into<String>) -> Refusal {
        self.within(Part::Rule(name.into()))
    }

    /// In a stage.
    pub fn in_stage(self, name: impl Into<String>) -> Refusal {
        self.within(Part::Stage(name.into()))
    }

    /// In a task.
    pub fn in_task(self, name: impl Into<String>) -> Refusal {
        self.within(Part::Task(name.into()))
    }

    /// In a file as a whole.
    pub fn in_file(self, path: impl Into<PathBuf>) -> Refusal {
        self.within(Part::File { path: path.into(), line: None })
    }

    /// In a line of a file, counted from 1; in the file as a whole if the line is unknown.
    pub fn in_line(self, path: impl Into<PathBuf>, line: impl Into<Option<usize>>) -> Refusal {
        self.within(Part::File { path: path.into(), line: line.into() })
    }

    fn within(mut self, part: Part) -> Refusal {
        self.place.parts.insert(0, part);
        self
    }
}

impl Place {
    /// The file that the place begins with, if any. Such a place is complete, and no caller adds another file.
    pub fn file(&self) -> Option<&Path> {
        match self.parts.first() {
            Some(Part::File { path, .. }) => Some(path),
            _ => None,
        }
    }

    /// The keys that it begins with (after its file), dotted; empty if there are none.
    pub fn key(&self) -> String {
        let inside = &self.parts[usize::from(self.file().is_some())..];
        let keys = inside.iter().map_while(|part| match part {
            Part::Key(key) => Some(key.as_str()),
            _ => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Part::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Part::File { path, line: None } => write!(f, "{}", path.display()),
            Part::Key(key) => f.write_str(key),
            Part::Rule(name) => write!(f, "rule \"{name}\""),
            Part::Stage(name) => write!(f, "stage \"{name}\""),
            Part::Task(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let between = match (at.checked_sub(1).map(|before| &self.parts[before]), part) {
                (None, _) => "",
                (Some(Part::Key(_)), Part::Key(_)) => ".",
                _ => ": ",
            };
            write!(f, "{between}{part}")?;
        }
        Ok(())
    }
}

impl Refusal {
    /// What is wrong, behind where it stands; without the hint.
    pub fn problem_in_place(&self) -> String {
        match self.place.parts.is_empty() {
            true => self.problem.clone(),
            false => format!("{}: {}", self.place, self.problem),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.problem_in_place(), self.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_from_the_outside_in() {
        let refusal = || Refusal::new("is 0", "write 1");
        for (found, expected) in [
            (refusal(), "is 0\nhint: write 1"),
            (refusal().in_key("epochs").in_key("stages[0]"), "stages[0].epochs: is 0\nhint: write 1"),
            (refusal().in_line("r.toml", 3), "r.toml:3: is 0\nhint: write 1"),
            (refusal().in_line("r.toml", None).in_key("path"), "path: r.toml: is 0\nhint: write 1"),
            (refusal().in_stage("sft"), "stage \"sft\": is 0\nhint: write 1"),
            (refusal().in_key("numbers").in_task("countdown"), "countdown: numbers: is 0\nhint: write 1"),
        ] {
            assert_eq!(found.to_string(), expected);
        }
    }

    #[test]
    fn the_leading_file_and_keys_can_be_asked_for() {
        let inner =
            Refusal::new("is 0", "write 1").in_key("tolerance").in_rule("number").in_key("rules").in_key("task");
        assert_eq!((inner.place.file(), inner.place.key()), (None, "task.rules".to_string()));
        let outer = inner.in_line("r.toml", 7);
        assert_eq!((outer.place.file(), outer.place.key()), (Some(Path::new("r.toml")), "task.rules".to_string()));
    }
}
