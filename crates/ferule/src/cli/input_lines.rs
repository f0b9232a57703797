//! JSON lines from stdin; every error names the line and the field, and says what to do.

use std::io::{self, BufRead, IsTerminal};

use serde::de::DeserializeOwned;
use tasks::data::file;

use crate::outcome::failure;

/// One line of the input.
#[derive(Clone, Debug)]
pub struct InputLine {
    /// The line's number, counted from 1, blank lines included.
    pub number: usize,
    /// The line without its line end.
    pub text: String,
}

/// The lines of stdin that are not blank. `form` shows the form of a line to a user at a terminal.
pub fn stdin_lines(form: &str) -> impl Iterator<Item = anyhow::Result<InputLine>> {
    if io::stdin().is_terminal() {
        eprintln!("reading lines such as {form}; Ctrl-D ends the input");
    }
    lines_of(io::stdin().lock())
}

fn lines_of(reader: impl BufRead) -> impl Iterator<Item = anyhow::Result<InputLine>> {
    (1..).zip(file::lines(reader)).filter_map(|(number, line)| match line.map(String::from_utf8) {
        Ok(Ok(text)) if text.trim().is_empty() => None,
        Ok(Ok(text)) => Some(Ok(InputLine { number, text })),
        Ok(Err(_)) => {
            let hint = "convert the input, for example with iconv";
            Some(Err(failure(format!("stdin line {number}: not UTF-8"), hint)))
        }
        Err(error) => Some(Err(anyhow::anyhow!("stdin line {number}: cannot read: {error}"))),
    })
}

impl InputLine {
    /// Parses the line as a `T`. `form` is shown in the hint.
    pub fn parse<T: DeserializeOwned>(&self, form: &str) -> anyhow::Result<T> {
        let mut json = serde_json::Deserializer::from_str(&self.text);
        let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = match error.path().to_string().as_str() {
                // These stand in serde_path_to_error for the line itself and for an unknown place.
                "." | "?" => String::new(),
                path => format!("field `{path}`: "),
            };
            let column = error.inner().column();
            let problem = plain(error.inner());
            self.failure(format!("{field}{problem}, at column {column}"), format!("a line is {form}"))
        })?;
        json.end()
            .map_err(|_| self.failure("something follows the JSON object", format!("a line is one object, {form}")))?;
        Ok(parsed)
    }

    /// A failure that names this line.
    pub fn failure(&self, problem: impl std::fmt::Display, hint: impl std::fmt::Display) -> anyhow::Error {
        failure(format!("stdin line {}: {problem}", self.number), hint)
    }

    /// Adds this line's number to another error.
    pub fn name<T>(&self, outcome: Result<T, impl Into<anyhow::Error>>) -> anyhow::Result<T> {
        outcome.map_err(|error| error.into().context(format!("stdin line {}", self.number)))
    }

    /// Refuses ids outside a vocabulary.
    pub fn check_ids(&self, tokens: &[u32], vocab_size: usize) -> anyhow::Result<()> {
        match tokens.iter().position(|&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(at) => {
                let problem = format!("field `tokens[{at}]`: {} is outside the vocabulary of {vocab_size}", tokens[at]);
                Err(self.failure(problem, "the ids must come from this model's tokenizer"))
            }
        }
    }

    /// The names of the line's fields, for messages about a missing one.
    pub fn fields(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&self.text).unwrap_or_default();
        let names: Vec<String> = object.keys().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "no field".into() } else { names.join(", ") }
    }
}

/// serde's message without its position, because that position counts lines within this line.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome;

    #[derive(serde::Deserialize, Debug)]
    struct Row {
        #[allow(dead_code)]
        tokens: Vec<u32>,
    }

    fn message(text: &str) -> String {
        let lines: Vec<_> = lines_of(text.as_bytes()).collect();
        let line = lines.into_iter().last().expect("a line").expect("valid UTF-8");
        outcome::message(&line.parse::<Row>("{\"tokens\": [1, 2]}").expect_err("a bad line"))
    }

    #[test]
    fn errors_name_line_field_and_form() {
        assert_eq!(
            message("{\"tokens\": [1]}\n\n{\"tokens\": [1, -2]}\n"),
            "stdin line 3: field `tokens[1]`: invalid value: integer `-2`, expected u32, at column 17\n\
             hint: a line is {\"tokens\": [1, 2]}"
        );
        assert_eq!(
            message("{\"tokens\": [1]"),
            "stdin line 1: EOF while parsing an object, at column 14\nhint: a line is {\"tokens\": [1, 2]}"
        );
        assert_eq!(
            message("{\"tokens\": [1]} {}"),
            "stdin line 1: something follows the JSON object\nhint: a line is one object, {\"tokens\": [1, 2]}"
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_with_their_line() {
        let lines: Vec<_> = lines_of(&b"{}\n\xff\n"[..]).collect();
        let error = outcome::message(lines[1].as_ref().expect_err("not UTF-8"));
        assert_eq!(error, "stdin line 2: not UTF-8\nhint: convert the input, for example with iconv");
    }
}
