//! The user's own cases: a JSON-lines file with `prompt` or `messages`, and perhaps `answer`.
//!
//! | fields | read as |
//! |---|---|
//! | `prompt` (text, or a list of messages) | the prompt |
//! | `messages` | the prompt; a last message of the assistant becomes the demonstration |
//! | `question`, `answer` | prompt and answer; where the answer ends in `#### n` (GSM8K), `n` is the answer and what stands above it the demonstration |
//! | `answer` | the known answer: text or a number |
//! | `demonstration` | what an expert wrote, reasoning and answer |
//!
//! Other fields are kept in the hidden record. Rules come from the recipe. A case is held out by the hash of its prompt, so
//! that lines may be added or moved without changing any other case's split; equal prompts are one case, and counted.
//!
//! It never guesses: a line that is not what it should be is an error with its number, before anything is trained.

use super::{Case, Completion, Grade, Message, Prompt, Split, Task, TaskError, partition};
use crate::rewards::{RuleConfig, RuleSet, answer, quantity};
use crate::rng::Key;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const NAME: &str = "jsonl";

/// What reading a file found, besides the cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Lines that hold something.
    pub lines: usize,
    /// Lines whose prompt stood further up; the first one was kept.
    pub duplicates: usize,
    /// Cases with a known answer.
    pub answers: usize,
    /// Cases with a demonstration.
    pub demonstrations: usize,
}

/// The task. See the module.
pub struct Jsonl {
    path: PathBuf,
    cases: Vec<Case>,
    demonstrations: HashMap<String, String>,
    found: Found,
    rules: Vec<RuleConfig>,
    folder: PathBuf,
    template: Option<String>,
}

impl Jsonl {
    /// Reads a file. `rules` are the recipe's, whose relative paths start at `folder`; `template` is put around every text
    /// prompt, which stands where it says `{prompt}`.
    ///
    /// # Errors
    /// An unreadable, empty or binary file; the first line that is no case, by its number; a template without `{prompt}`.
    pub fn open(path: &Path, rules: &[RuleConfig], folder: &Path, template: Option<&str>) -> Result<Jsonl, TaskError> {
        if let Some(template) = template.filter(|template| !template.contains("{prompt}")) {
            return Err(TaskError::Setting {
                task: NAME.to_string(),
                field: "template".to_string(),
                message: format!("\"{template}\" has no {{prompt}}"),
                hint: "write {prompt} where the line's prompt belongs".to_string(),
            });
        }
        let mut task = Jsonl {
            path: path.to_path_buf(),
            cases: Vec::new(),
            demonstrations: HashMap::new(),
            found: Found::default(),
            rules: rules.to_vec(),
            folder: folder.to_path_buf(),
            template: template.map(str::to_string),
        };
        let text = read_text(path)?;
        let mut seen = HashMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            task.found.lines += 1;
            let (case, demonstration) = task.line(at + 1, line)?;
            if seen.insert(case.id.clone(), at).is_some() {
                task.found.duplicates += 1;
                continue;
            }
            task.found.answers += usize::from(case.answer.is_some());
            if let Some(demonstration) = demonstration {
                task.demonstrations.insert(case.id.clone(), demonstration);
            }
            task.cases.push(case);
        }
        task.found.demonstrations = task.demonstrations.len();
        if task.cases.is_empty() {
            return Err(task.wrong(
                1,
                "line",
                "the file is empty".to_string(),
                "one JSON object a line, with `prompt` or `messages`",
            ));
        }
        Ok(task)
    }

    /// What reading found.
    pub fn found(&self) -> Found {
        self.found
    }

    /// How many cases of a split have a demonstration: the most labels that fine-tuning can ask for.
    pub fn demonstrated(&self, split: Split) -> usize {
        let inside = self.cases.iter().filter(|case| split_of(case) == split);
        inside.filter(|case| self.demonstrations.contains_key(&case.id)).count()
    }

    fn wrong(&self, line: usize, field: &str, message: String, hint: &str) -> TaskError {
        TaskError::Line { path: self.path.clone(), line, field: field.to_string(), message, hint: hint.to_string() }
    }

    /// The case of a line and its demonstration.
    fn line(&self, number: usize, line: &str) -> Result<(Case, Option<String>), TaskError> {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            let hint = match line.trim_start().chars().next() {
                Some('[') => "this looks like one JSON list; write one object a line instead",
                Some('{') if error.is_eof() => "the line ends too soon; an object must not run over several lines",
                _ => "every line is one JSON object",
            };
            self.wrong(number, "line", format!("no JSON: {error}"), hint)
        })?;
        let Value::Object(record) = &value else {
            return Err(self.wrong(number, "line", "not an object".to_string(), "every line is one JSON object"));
        };
        let text = |field: &str| match record.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) if field == "answer" => Ok(Some(number.to_string())),
            Some(_) => Err(self.wrong(number, field, "not a text".to_string(), "write it in quotes")),
        };
        let mut demonstration = text("demonstration")?;
        let mut known = text("answer")?;
        let prompt = match (record.get("prompt"), record.get("messages"), record.get("question")) {
            (Some(Value::Array(list)), _, _) | (None, Some(Value::Array(list)), _) => {
                let (messages, last) = self.messages(number, list)?;
                demonstration = demonstration.or(last);
                Prompt::Messages(messages)
            }
            (Some(Value::String(text)), _, _) | (None, None, Some(Value::String(text))) if !text.trim().is_empty() => {
                Prompt::Text(self.template.as_ref().map_or(text.clone(), |template| template.replace("{prompt}", text)))
            }
            (None, None, None) => {
                let names: Vec<&str> = record.keys().map(String::as_str).collect();
                let message = format!("there is no `prompt`, only {}", names.join(", "));
                return Err(self.wrong(
                    number,
                    "prompt",
                    message,
                    "name the field `prompt` (text) or `messages` (a list)",
                ));
            }
            _ => {
                return Err(self.wrong(
                    number,
                    "prompt",
                    "empty, or neither text nor messages".to_string(),
                    "give it text",
                ));
            }
        };
        if let Some((reasoning, last)) = known.as_deref().and_then(gsm8k) {
            demonstration = demonstration.or(Some(format!("<think>{reasoning}</think><answer>{last}</answer>")));
            known = Some(last);
        }
        let id = partition::id(&serde_json::to_string(&prompt).unwrap_or_default());
        Ok((Case { id, prompt, answer: known, record: value }, demonstration))
    }

    /// The messages up to the last one of the assistant, and that one.
    fn messages(&self, number: usize, list: &[Value]) -> Result<(Vec<Message>, Option<String>), TaskError> {
        let mut messages: Vec<Message> = Vec::with_capacity(list.len());
        for value in list {
            let message = serde_json::from_value(value.clone()).map_err(|error| {
                let hint = "every message is {\"role\": \"user\", \"content\": \"…\"}";
                self.wrong(number, "messages", error.to_string(), hint)
            })?;
            messages.push(message);
        }
        let last = messages.pop_if(|message| message.role == "assistant").map(|message| message.content);
        match messages.last() {
            Some(message) if message.role != "assistant" => Ok((messages, last)),
            _ => Err(self.wrong(
                number,
                "messages",
                "nobody asks anything".to_string(),
                "end with a message of the user",
            )),
        }
    }
}

/// The text of a file, whole.
fn read_text(path: &Path) -> Result<String, TaskError> {
    let bytes = std::fs::read(path).map_err(|source| TaskError::Read {
        path: path.to_path_buf(),
        source,
        hint: "give the path of a JSON-lines file, from the recipe's folder".to_string(),
    })?;
    let bad = |at: usize, message: &str, hint: &str| TaskError::Line {
        path: path.to_path_buf(),
        line: bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1,
        field: "line".to_string(),
        message: message.to_string(),
        hint: hint.to_string(),
    };
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(bad(at, "a zero byte: the file is binary or UTF-16", "save it as JSON lines in UTF-8"));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| bad(error.valid_up_to(), "not UTF-8", "save it as UTF-8; `ferule init` reads GB18030 too"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_string())
}

/// GSM8K's answer: the reasoning without calculator marks, and the number after `####`.
fn gsm8k(answer: &str) -> Option<(String, String)> {
    let (reasoning, last) = answer.rsplit_once("#### ")?;
    let mut plain = String::with_capacity(reasoning.len());
    let mut rest = reasoning;
    while let Some((before, after)) = rest.split_once("<<") {
        plain.push_str(before);
        rest = after.split_once(">>").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    Some((plain.trim().to_string(), last.trim().replace(',', "")))
}

fn split_of(case: &Case) -> Split {
    partition::filed(&case.id)
}

impl Task for Jsonl {
    fn name(&self) -> &str {
        NAME
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut inside: Vec<&Case> = self.cases.iter().filter(|case| split_of(case) == split).collect();
        if inside.is_empty() {
            return Err(TaskError::EmptySplit {
                task: NAME.to_string(),
                split,
                hint: match split {
                    Split::HeldoutUnseen => "a file has no unseen wordings; evaluate on heldout",
                    _ => "the file holds too few cases; about 7 in 10 train, 2 are held out, 1 validates",
                }
                .to_string(),
            });
        }
        let key = Key::new(seed).word(NAME);
        inside.sort_by_cached_key(|case| (key.word(&case.id).bits(0), case.id.clone()));
        Ok(inside.into_iter().take(n).cloned().collect())
    }

    fn demonstration(&self, case: &Case) -> Option<String> {
        self.demonstrations.get(&case.id).cloned()
    }

    fn bare_answer(&self, case: &Case) -> Option<String> {
        case.answer.as_ref().map(|known| format!("<think></think><answer>{known}</answer>"))
    }

    fn corpus(&self, _: u64, _: u64) -> Option<String> {
        None
    }

    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        let answer_key =
            answer::blocks(completion).ok().map(|blocks| blocks.answer).filter(|answer| !answer.is_empty());
        let answer_key = answer_key.map(|answer| match quantity::parse(answer) {
            Some(found) => found.to_string(),
            None => answer.to_string(),
        });
        let rules = match self.rules("answers") {
            Ok(rules) => rules,
            Err(error) => {
                return Grade { correct: false, parts: BTreeMap::new(), reason: error.to_string(), answer_key };
            }
        };
        let judged = rules.judge(&case.prompt_text(), case.answer.as_deref(), completion);
        let deciding: Vec<&(String, _)> = judged
            .verdicts
            .iter()
            .zip(rules.deciding())
            .filter(|(_, decides)| *decides)
            .map(|(verdict, _)| verdict)
            .collect();
        let right = deciding.iter().all(|(_, verdict)| verdict.value() == Some(1.0));
        let reasons: Vec<String> =
            deciding.iter().map(|(name, verdict)| format!("{name}: {}", verdict.reason())).collect();
        Grade {
            correct: right && judged.reward.is_some_and(|reward| reward > 0.0),
            parts: judged
                .verdicts
                .iter()
                .filter_map(|(name, verdict)| Some((name.clone(), verdict.value()?)))
                .collect(),
            reason: reasons.join("; "),
            answer_key,
        }
    }

    /// The recipe's rules, whatever the arm is called.
    fn rules(&self, _: &str) -> Result<RuleSet, TaskError> {
        RuleSet::from_config(&self.rules, &self.folder).map_err(|error| TaskError::Setting {
            task: NAME.to_string(),
            field: "rules".to_string(),
            message: error.to_string(),
            hint: "for example rules = [{ rule = \"format\", weight = 0.1 }, { rule = \"number\" }]".to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<RuleConfig> {
        let table: BTreeMap<String, Vec<RuleConfig>> =
            toml::from_str("rules = [{ rule = \"format\", weight = 0.1 }, { rule = \"number\", weight = 0.9 }]")
                .unwrap();
        table["rules"].clone()
    }

    fn open(content: impl AsRef<[u8]>) -> Result<Jsonl, TaskError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.jsonl");
        std::fs::write(&path, content).unwrap();
        Jsonl::open(&path, &rules(), folder.path(), None)
    }

    #[track_caller]
    fn refused(content: impl AsRef<[u8]>, parts: &[&str]) {
        let error = open(content).err().expect("the file was accepted").to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn the_usual_fields_are_read() {
        let content = [
            r#"{"prompt": "1+1=", "answer": 2}"#,
            "",
            r#"{"question": "How many?", "answer": "He has 3*4=<<3*4=12>>12.\n#### 1,012"}"#,
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<answer>x</answer>"}]}"#,
            r#"{"prompt": "1+1=", "answer": 3, "source": "again"}"#,
        ];
        let task = open(content.join("\n")).unwrap();
        assert_eq!(task.found(), Found { lines: 4, duplicates: 1, answers: 2, demonstrations: 2 });
        let by_prompt = |text: &str| task.cases.iter().find(|case| case.prompt_text() == text).unwrap();
        assert_eq!(by_prompt("1+1=").answer.as_deref(), Some("2"));
        let gsm8k = by_prompt("How many?");
        assert_eq!(gsm8k.answer.as_deref(), Some("1012"));
        let demonstration = task.demonstration(gsm8k).unwrap();
        assert_eq!(demonstration, "<think>He has 3*4=12.</think><answer>1012</answer>");
        assert!(task.grade(gsm8k, &Completion::finished(&demonstration)).correct);
        assert!(!task.grade(gsm8k, &Completion::finished("<think></think><answer>12</answer>")).correct);
        assert_eq!(task.demonstration(by_prompt("hi")).as_deref(), Some("<answer>x</answer>"));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line_and_a_hint() {
        refused("", &["cases.jsonl:1", "empty", "hint: "]);
        refused("\n \n", &["empty"]);
        refused(b"{\"prompt\": \"a\"}\n\x00\x01", &["cases.jsonl:2", "binary"]);
        refused(b"{\"prompt\": \"a\"}\n{\"prompt\": \"\xff\"}", &["cases.jsonl:2", "not UTF-8"]);
        refused("{\"prompt\": \"a\"}\n{\"prompt\": ", &["cases.jsonl:2", "ends too soon"]);
        refused("[{\"prompt\": \"a\"},", &["cases.jsonl:1", "one JSON list"]);
        refused("\"prompt\"", &["not an object"]);
        refused("{\"promt\": \"a\"}", &["there is no `prompt`, only promt"]);
        refused("{\"prompt\": \" \"}", &["prompt: empty"]);
        refused("{\"prompt\": \"a\", \"answer\": [1]}", &["answer: not a text"]);
        refused("{\"messages\": [{\"role\": \"user\"}]}", &["messages: missing field `content`"]);
        refused("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", &["nobody asks"]);
    }

    #[test]
    fn splits_depend_on_the_prompt_alone() {
        let lines: Vec<String> = (0..500).map(|i| format!("{{\"prompt\": \"case {i}\", \"answer\": {i}}}")).collect();
        let task = open(lines.join("\n")).unwrap();
        let ids = |task: &Jsonl, split, seed| -> Vec<String> {
            task.cases(split, 1000, seed).unwrap().into_iter().map(|case| case.id).collect()
        };
        let heldout = ids(&task, Split::Heldout, 1);
        assert!(heldout.len().abs_diff(100) < 35, "{}", heldout.len());
        assert_ne!(heldout, ids(&task, Split::Heldout, 2), "the seed orders the cases");
        // Half the lines, in another order and with other answers: each case stays in its split.
        let half: Vec<String> = (0..250).rev().map(|i| format!("{{\"prompt\": \"case {i}\"}}")).collect();
        let smaller = open(half.join("\n")).unwrap();
        assert!(ids(&smaller, Split::Heldout, 1).iter().all(|id| heldout.contains(id)));
        assert!(matches!(task.cases(Split::HeldoutUnseen, 1, 1), Err(TaskError::EmptySplit { .. })));
    }

    #[test]
    fn a_template_is_put_around_the_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.jsonl");
        std::fs::write(&path, "{\"prompt\": \"1+1\"}").unwrap();
        let task = Jsonl::open(&path, &rules(), folder.path(), Some("Q: {prompt}\nA:")).unwrap();
        assert_eq!(task.cases[0].prompt_text(), "Q: 1+1\nA:");
        assert!(Jsonl::open(&path, &rules(), folder.path(), Some("Q:")).is_err());
    }
}
