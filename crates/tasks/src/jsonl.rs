//! The user's own cases: a JSON-lines file with `prompt` or `messages`, and perhaps `answer`.
//!
//! | fields | read as |
//! |---|---|
//! | `prompt` (text, or a list of messages) | the prompt |
//! | `messages` | the prompt; a last message of the assistant becomes the demonstration |
//! | `question`, `answer` | prompt and answer; if the answer ends in `#### n` (GSM8K), `n` is the answer and the text above it is the demonstration |
//! | `answer` | the known answer: text or a number |
//! | `demonstration` | what an expert wrote, reasoning and answer |
//!
//! A recipe's [`Columns`] map these fields to the file's own column names. Other fields are kept in the hidden record.
//! The rules come from the recipe. The hash of its prompt decides a case's split, so adding or moving lines does not
//! change the split of any other case. Lines with equal prompts are one case; the repeats are counted. If the recipe
//! names a file of held-out cases, all cases of that file are held out. Cases of the first file that are in it too are
//! left out and counted.
//!
//! The reader never guesses: an invalid line is an error with its line number, before anything is trained.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kernels::rng::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::case::{Case, Completion, Grade, Message, Prompt, Split};
use crate::data::file;
use crate::data::limits::Budget;
use crate::partition;
use crate::paths::located;
use crate::refusal::Refusal;
use crate::rewards::{RuleConfig, RuleSet, answer, quantity};
use crate::suggest;
use crate::task::{Configured, Task, TaskError};

const NAME: &str = "jsonl";
/// The prompt's placeholder in a template.
const PLACE: &str = "{prompt}";

/// What reading a file found, besides the cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Lines that are not empty.
    pub lines: usize,
    /// Lines whose prompt an earlier line has; the first line is kept.
    pub duplicates: usize,
    /// Cases of the first file that are in the held-out file too.
    pub also_heldout: usize,
    /// Cases with a known answer.
    pub answers: usize,
    /// Cases with a demonstration.
    pub demonstrations: usize,
}

/// What a file calls its columns; the names of the module's table unless written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// The prompt: text, or a list of messages. Unless this is written, a column `question` will do as well.
    pub prompt: String,
    /// The prompt as a list of messages.
    pub messages: String,
    /// The answer that is known to be right.
    pub answer: String,
    /// What an expert wrote, reasoning and answer.
    pub demonstration: String,
}

impl Default for Columns {
    fn default() -> Columns {
        let [prompt, messages, answer, demonstration] =
            ["prompt", "messages", "answer", "demonstration"].map(String::from);
        Columns { prompt, messages, answer, demonstration }
    }
}

/// The keys of the task.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct JsonlKeys {
    /// The file.
    #[schemars(extend("format" = "path"))]
    pub path: PathBuf,
    /// A second file, all of whose cases are held out; then the cases of `path` train and validate.
    #[schemars(extend("format" = "path"))]
    pub heldout: Option<PathBuf>,
    /// A text around every text prompt, which takes the place of `{prompt}` in it.
    pub template: Option<String>,
    /// What the files call their columns.
    #[serde(default)]
    pub columns: Columns,
    /// What rewards a policy, such as `[{ rule = "format", weight = 0.1 }, { rule = "number" }]`.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// The task. See the module.
pub struct Jsonl {
    keys: JsonlKeys,
    cases: Vec<(Split, Case)>,
    demonstrations: HashMap<String, String>,
    found: Found,
    /// Built once. A refusal is returned only to callers that need rules.
    rules: Result<RuleSet, Refusal>,
}

impl Jsonl {
    /// Reads the files; relative paths start at `folder`.
    ///
    /// # Errors
    /// A template without `{prompt}` or a file that cannot be read, by its key; an empty or binary file, or the first
    /// invalid line, by file and line.
    pub fn open(keys: JsonlKeys, folder: &Path) -> Result<Jsonl, Refusal> {
        if let Some(template) = keys.template.as_ref().filter(|template| !template.contains(PLACE)) {
            let problem = format!("\"{template}\" has no {PLACE}");
            let hint = format!("write {PLACE} where the line's prompt belongs");
            return Err(Refusal::new(problem, hint).in_key("template"));
        }
        let path = located(folder, &keys.path);
        let heldout = keys.heldout.as_ref().map(|heldout| located(folder, heldout));
        let rules = RuleSet::from_config(&keys.rules, folder).map_err(|refusal| refusal.in_key("rules"));
        let (cases, demonstrations, found) = (Vec::new(), HashMap::new(), Found::default());
        let mut task = Jsonl { keys, cases, demonstrations, found, rules };
        let mut seen = HashMap::new();
        // Held-out cases are read first, so that a case in both files is left out of training.
        if let Some(heldout) = &heldout {
            task.read("heldout", heldout, |_| Split::Heldout, &mut seen)?;
        }
        let split = |id: &str| match partition::filed(id) {
            Split::Heldout if heldout.is_some() => Split::Train,
            split => split,
        };
        task.read("path", &path, split, &mut seen)?;
        task.found.demonstrations = task.demonstrations.len();
        Ok(task)
    }

    /// Adds the cases of the file that `key` names.
    fn read(
        &mut self,
        key: &str,
        path: &Path,
        split: impl Fn(&str) -> Split,
        seen: &mut HashMap<String, PathBuf>,
    ) -> Result<(), Refusal> {
        let text = read_text(key, path)?;
        let before = self.found.lines;
        let mut budget = Budget::new(text.len() as u64);
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            self.found.lines += 1;
            let (case, demonstration) = self.line(&At { path, line: at + 1 }, line, &mut budget)?;
            if let Some(first) = seen.get(&case.id) {
                let repeated = if first == path { &mut self.found.duplicates } else { &mut self.found.also_heldout };
                *repeated += 1;
                continue;
            }
            seen.insert(case.id.clone(), path.to_path_buf());
            self.found.answers += usize::from(case.answer.is_some());
            if let Some(demonstration) = demonstration {
                self.demonstrations.insert(case.id.clone(), demonstration);
            }
            self.cases.push((split(&case.id), case));
        }
        if self.found.lines == before {
            let hint = "one JSON object a line, with `prompt` or `messages`";
            return Err(At { path, line: 1 }.wrong("line", "the file is empty", hint));
        }
        Ok(())
    }

    /// What reading found.
    pub fn found(&self) -> Found {
        self.found
    }

    /// The number of cases of a split that have a demonstration: the most labels that fine-tuning can ask for.
    pub fn demonstrated(&self, split: Split) -> usize {
        self.of(split).filter(|case| self.demonstrations.contains_key(&case.id)).count()
    }

    fn of(&self, split: Split) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(move |(own, _)| *own == split).map(|(_, case)| case)
    }

    /// The case of a line and its demonstration.
    fn line(&self, at: &At, line: &str, budget: &mut Budget) -> Result<(Case, Option<String>), Refusal> {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            let hint = match line.trim_start().chars().next() {
                Some('[') => "this looks like one JSON list; write one object a line instead",
                Some('{') if error.is_eof() => "the line ends too soon; an object must not run over several lines",
                _ => "every line is one JSON object",
            };
            at.wrong("line", format!("no JSON: {error}"), hint)
        })?;
        let Value::Object(record) = &value else {
            return Err(at.wrong("line", "not an object", "every line is one JSON object"));
        };
        budget.take(record).map_err(|refusal| refusal.in_line(at.path, at.line))?;
        let columns = &self.keys.columns;
        let text = |field: &str| match record.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) if *field == columns.answer => Ok(Some(number.to_string())),
            Some(_) => Err(at.wrong(field, "not a text", "write it in quotes")),
        };
        let mut demonstration = text(&columns.demonstration)?;
        let mut known = text(&columns.answer)?;
        let (prompt, last) = self.prompt(at, record)?;
        demonstration = demonstration.or(last);
        if let Some((reasoning, last)) = known.as_deref().and_then(gsm8k) {
            demonstration = demonstration.or(Some(format!("<think>{reasoning}</think><answer>{last}</answer>")));
            known = Some(last);
        }
        let mut case = Case { id: String::new(), prompt, answer: known, record: value };
        // The content does not contain the template, so changing the template does not move a case to another split.
        let content = match &case.prompt {
            Prompt::Text(_) => Prompt::Text(self.words(&case)),
            messages => messages.clone(),
        };
        case.id = id(&content);
        Ok((case, demonstration))
    }

    /// A line's prompt, and the assistant's text that follows it.
    fn prompt(&self, at: &At, record: &Map<String, Value>) -> Result<(Prompt, Option<String>), Refusal> {
        let columns = &self.keys.columns;
        let question = record.get("question").filter(|_| columns.prompt == Columns::default().prompt);
        match (record.get(&columns.prompt), record.get(&columns.messages), question) {
            (Some(Value::Array(list)), _, _) | (None, Some(Value::Array(list)), _) => {
                let (messages, last) = messages(at, list)?;
                Ok((Prompt::Messages(messages), last))
            }
            (Some(Value::String(text)), _, _) | (None, None, Some(Value::String(text))) if !text.trim().is_empty() => {
                Ok((Prompt::Text(self.around(text)), None))
            }
            (None, None, None) => {
                let names = suggest::listed(record.keys().map(String::as_str));
                let message = format!("there is no `{}`, only {names}", columns.prompt);
                let hint = "name the field `prompt` (text) or `messages` (a list), or set columns.prompt in [task]";
                Err(at.wrong(&columns.prompt, message, hint))
            }
            _ => Err(at.wrong(&columns.prompt, "empty, or neither text nor messages", "give it text")),
        }
    }

    /// A case's own text: a text prompt without the template, or the user's messages.
    fn words(&self, case: &Case) -> String {
        match &case.prompt {
            Prompt::Messages(messages) => {
                let said = messages.iter().filter(|message| message.role == "user");
                said.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
            }
            Prompt::Text(text) => self.inside(text).to_string(),
        }
    }

    /// A text prompt in the template.
    fn around(&self, text: &str) -> String {
        self.keys.template.as_ref().map_or(text.to_string(), |template| template.replace(PLACE, text))
    }

    /// A text prompt without the template.
    fn inside<'t>(&self, text: &'t str) -> &'t str {
        let around = self.keys.template.as_deref().and_then(|template| template.split_once(PLACE));
        let (before, behind) = around.unwrap_or_default();
        text.strip_prefix(before).and_then(|text| text.strip_suffix(behind)).unwrap_or(text)
    }
}

/// The id of a case, from its prompt.
fn id(prompt: &Prompt) -> String {
    partition::id(&serde_json::to_string(prompt).unwrap_or_default())
}

/// A place in a file.
struct At<'a> {
    path: &'a Path,
    line: usize,
}

impl At<'_> {
    fn wrong(&self, field: &str, problem: impl Into<String>, hint: &str) -> Refusal {
        Refusal::new(problem, hint).in_key(field).in_line(self.path, self.line)
    }
}

/// The messages before the last one of the assistant, and that last one.
fn messages(at: &At, list: &[Value]) -> Result<(Vec<Message>, Option<String>), Refusal> {
    let mut messages: Vec<Message> = Vec::with_capacity(list.len());
    for value in list {
        let message = serde_json::from_value(value.clone()).map_err(|error| {
            let hint = "every message is {\"role\": \"user\", \"content\": \"…\"}";
            at.wrong("messages", error.to_string(), hint)
        })?;
        messages.push(message);
    }
    let last = messages.pop_if(|message| message.role == "assistant").map(|message| message.content);
    match messages.last() {
        Some(message) if message.role != "assistant" => Ok((messages, last)),
        _ => Err(at.wrong("messages", "nobody asks anything", "end with a message of the user")),
    }
}

/// The whole text of the file that a key names.
fn read_text(key: &str, path: &Path) -> Result<String, Refusal> {
    let bytes = file::read(path).map_err(|error| {
        let hint = "give the path of a JSON-lines file, from the recipe's folder";
        Refusal::new(error.to_string(), hint).in_file(path).in_key(key)
    })?;
    let bad = |at: usize, problem: &str, hint: &str| {
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        At { path, line }.wrong("line", problem, hint)
    };
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(bad(at, "a zero byte: the file is binary or UTF-16", "save it as JSON lines in UTF-8"));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        return Err(bad(error.valid_up_to(), "not UTF-8", "save it as UTF-8; `ferule init` reads GB18030 too"));
    }
    let mut text = String::from_utf8(bytes).expect("checked above");
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
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

impl Task for Jsonl {
    fn name(&self) -> &str {
        NAME
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut inside: Vec<&Case> = self.of(split).collect();
        if inside.is_empty() {
            let hint = match split {
                Split::HeldoutUnseen => "a file has no unseen wordings; evaluate on heldout",
                _ => "the file holds too few cases; about 7 in 10 train, 2 are held out, 1 validates",
            };
            return Err(TaskError::empty_split(NAME, split, hint));
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

    fn kept_out(&self, _: usize, _: u64) -> Result<Vec<String>, TaskError> {
        let outside = self.cases.iter().filter(|(split, _)| *split != Split::Train);
        Ok(outside.map(|(_, case)| self.words(case)).collect())
    }

    fn asked(&self, prompt: &Prompt) -> (String, Prompt) {
        let Prompt::Text(text) = prompt else { return (id(prompt), prompt.clone()) };
        let words = self.inside(text);
        (id(&Prompt::Text(words.to_string())), Prompt::Text(self.around(words)))
    }

    fn notices(&self) -> Vec<String> {
        let Found { lines, duplicates, also_heldout, answers, demonstrations } = self.found;
        let left_out = match also_heldout {
            0 => format!("{duplicates} repeated ones left out"),
            n => format!("{duplicates} repeated ones left out, and {n} that are held out too"),
        };
        vec![format!("{NAME}: {lines} lines; {answers} answers, {demonstrations} demonstrations; {left_out}")]
    }

    fn ungradable(&self, case: &Case) -> Option<String> {
        match self.rules("answers") {
            Err(_) => Some("the task has no rules that could be asked".to_string()),
            Ok(rules) => (case.answer.is_none() && rules.reads_answers()).then(|| "they have no answer".to_string()),
        }
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
        Ok(self.rules.clone()?)
    }
}

impl Configured for Jsonl {
    const NAME: &'static str = NAME;
    const SUMMARY: &'static str =
        "Your own cases: a file of JSON lines with `prompt` or `messages`, and perhaps `answer` and `demonstration`.";
    const ARMS: &'static [&'static str] = &["answers"];
    type Keys = JsonlKeys;

    fn build(keys: JsonlKeys, folder: &Path) -> Result<Jsonl, Refusal> {
        Jsonl::open(keys, folder)
    }

    fn question(keys: &JsonlKeys, text: &str) -> String {
        keys.template.as_deref().unwrap_or(PLACE).replace(PLACE, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> JsonlKeys {
        let rules = "rules = [{ rule = \"format\", weight = 0.1 }, { rule = \"number\", weight = 0.9 }]";
        toml::from_str(&format!("path = \"cases.jsonl\"\n{rules}")).unwrap()
    }

    fn open(content: impl AsRef<[u8]>) -> Result<Jsonl, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        open_in(folder.path(), content, keys())
    }

    fn open_in(folder: &Path, content: impl AsRef<[u8]>, keys: JsonlKeys) -> Result<Jsonl, Refusal> {
        std::fs::write(folder.join("cases.jsonl"), content).unwrap();
        Jsonl::open(keys, folder)
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
        assert_eq!(task.found(), Found { lines: 4, duplicates: 1, also_heldout: 0, answers: 2, demonstrations: 2 });
        let by_prompt =
            |text: &str| task.cases.iter().map(|(_, case)| case).find(|case| case.prompt_text() == text).unwrap();
        assert_eq!(by_prompt("1+1=").answer.as_deref(), Some("2"));
        let gsm8k = by_prompt("How many?");
        assert_eq!(gsm8k.answer.as_deref(), Some("1012"));
        let demonstration = task.demonstration(gsm8k).unwrap();
        assert_eq!(demonstration, "<think>He has 3*4=12.</think><answer>1012</answer>");
        assert!(task.grade(gsm8k, &Completion::finished(&demonstration)).correct);
        assert!(!task.grade(gsm8k, &Completion::finished("<think></think><answer>12</answer>")).correct);
        assert_eq!(task.demonstration(by_prompt("hi")).as_deref(), Some("<answer>x</answer>"));
        let why = |text: &str| task.ungradable(by_prompt(text));
        assert_eq!((why("hi").as_deref(), why("1+1=")), (Some("they have no answer"), None));
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
        // Half of the lines, in another order and with other answers: each case stays in its split.
        let half: Vec<String> = (0..250).rev().map(|i| format!("{{\"prompt\": \"case {i}\"}}")).collect();
        let smaller = open(half.join("\n")).unwrap();
        assert!(ids(&smaller, Split::Heldout, 1).iter().all(|id| heldout.contains(id)));
        assert!(matches!(task.cases(Split::HeldoutUnseen, 1, 1), Err(TaskError::EmptySplit(_))));
    }

    #[test]
    fn a_template_is_put_around_the_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let with = |template: &str| JsonlKeys { template: Some(template.to_string()), ..keys() };
        let task = open_in(folder.path(), "{\"prompt\": \"1+1\"}", with("Q: {prompt}\nA:")).unwrap();
        let case = &task.cases[0].1;
        assert_eq!((case.prompt_text().as_str(), task.words(case).as_str()), ("Q: 1+1\nA:", "1+1"));
        assert_eq!(case.id, open("{\"prompt\": \"1+1\"}").unwrap().cases[0].1.id);
        assert!(open_in(folder.path(), "{\"prompt\": \"1+1\"}", with("Q:")).is_err());
    }

    #[test]
    fn a_file_of_held_out_cases_holds_out_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let line = |i: usize| format!("{{\"q\": \"case {i}\", \"a\": {i}}}");
        let heldout = folder.path().join("test.jsonl");
        std::fs::write(&heldout, (0..20).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let columns = Columns { prompt: "q".into(), answer: "a".into(), ..Columns::default() };
        let keys = JsonlKeys { heldout: Some(heldout), columns, ..keys() };
        let content = (10..110).map(line).collect::<Vec<_>>().join("\n");
        let task = open_in(folder.path(), content, keys).unwrap();
        assert_eq!((task.found().also_heldout, task.found().answers), (10, 110));
        assert_eq!(task.cases(Split::Heldout, 99, 1).unwrap().len(), 20);
        assert!(task.notices()[0].contains("10 that are held out too"), "{:?}", task.notices());
        let kept_out = task.kept_out(0, 0).unwrap();
        let trained = task.cases(Split::Train, 99, 1).unwrap();
        assert!(trained.iter().all(|case| !kept_out.contains(&case.prompt_text())));
        assert_eq!(trained.len() + kept_out.len(), 110);
    }
}
