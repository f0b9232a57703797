//! Statistics of a user's file, and warnings about it.

use super::layout::{self, Layout};
use super::table::{Format, Table};
use crate::rewards::language::Script;
use crate::rewards::quantity;
use crate::suggest;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The number of labels that are shown by name.
const TOP: usize = 8;
/// The largest number of distinct answers that counts as a choice.
const MOST_CHOICES: usize = 50;

/// Statistics of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// The file's format.
    pub format: Format,
    /// The text's encoding.
    pub encoding: Option<&'static str>,
    /// The layout of the columns.
    pub layout: Layout,
    /// The number of rows.
    pub rows: usize,
    /// Columns with the number of rows that fill them.
    pub columns: Vec<(String, usize)>,
    /// Columns that no case is made of.
    pub unused: Vec<String>,
    /// Rows without a prompt.
    pub empty_prompts: usize,
    /// Rows whose prompt an earlier row has.
    pub duplicates: usize,
    /// Duplicates whose answer differs from that of the first row with the prompt.
    pub contradictions: usize,
    /// Lengths of the prompts, in characters.
    pub prompt_chars: Lengths,
    /// Lengths of the answers, in characters; all 0 without answers.
    pub answer_chars: Lengths,
    /// Lengths of the demonstrations, in characters; all 0 without demonstrations.
    pub demonstration_chars: Lengths,
    /// Rows with a known answer.
    pub answers: usize,
    /// Rows with a demonstration.
    pub demonstrations: usize,
    /// The kind of the answers.
    pub answer_kind: AnswerKind,
    /// The most frequent answers, in descending order.
    pub labels: Vec<(String, usize)>,
    /// Distinct answers.
    pub distinct_answers: usize,
    /// The share of letters in each script, largest first.
    pub scripts: Vec<(&'static str, f64)>,
}

/// What the rows say of the columns.
pub(super) struct Columns {
    filled: Vec<(String, usize)>,
    unused: Vec<String>,
}

impl Columns {
    pub(super) fn of(table: &Table, layout: Layout) -> Columns {
        let mut filled: HashMap<&str, usize> = HashMap::new();
        for (name, _) in table.rows.iter().flatten().filter(|(_, value)| !value.is_null()) {
            *filled.entry(name).or_default() += 1;
        }
        let filled = |name: &String| (name.clone(), filled.get(name.as_str()).copied().unwrap_or(0));
        Columns {
            filled: table.columns.iter().map(filled).collect(),
            unused: layout.unused(&table.columns, &table.rows),
        }
    }
}

/// Lengths in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// The median.
    pub median: usize,
    /// The 95th percentile.
    pub p95: usize,
    /// The longest.
    pub max: usize,
}

/// The kind of a file's answers, which decides which rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// No answers.
    None,
    /// Quantities.
    Number,
    /// A few answers that recur.
    Choice,
    /// Short texts.
    Text,
}

impl Lengths {
    fn of(mut lengths: Vec<usize>) -> Lengths {
        lengths.sort_unstable();
        let at =
            |share: f64| lengths.get(((lengths.len() as f64 * share) as usize).min(lengths.len().saturating_sub(1)));
        let at = |share: f64| at(share).copied().unwrap_or(0);
        Lengths { min: at(0.0), median: at(0.5), p95: at(0.95), max: at(1.0) }
    }
}

/// The last number of a GSM8K answer, or the answer itself.
fn bare(answer: &str) -> &str {
    answer.rsplit_once("#### ").map_or(answer, |(_, last)| last).trim()
}

impl Findings {
    /// Computes the statistics.
    pub(super) fn of(
        format: Format,
        encoding: Option<&'static str>,
        layout: Layout,
        columns: Columns,
        cases: &[Value],
    ) -> Findings {
        let chars = |texts: &[String]| Lengths::of(texts.iter().map(|text| text.chars().count()).collect());
        let prompts: Vec<String> = cases.iter().map(layout::prompt_of).collect();
        let answers: Vec<Option<String>> = cases.iter().map(|case| answer_of(layout, case)).collect();
        let demonstrations: Vec<String> = cases.iter().filter_map(demonstration_of).collect();
        let (duplicates, contradictions) = repeats(&prompts, &answers);
        let present: Vec<String> = answers.iter().flatten().cloned().collect();
        let counts = tally(&present);
        Findings {
            format,
            encoding,
            layout,
            rows: cases.len(),
            columns: columns.filled,
            unused: columns.unused,
            empty_prompts: prompts.iter().filter(|prompt| prompt.trim().is_empty()).count(),
            duplicates,
            contradictions,
            prompt_chars: chars(&prompts),
            answer_chars: chars(&present),
            demonstration_chars: chars(&demonstrations),
            answers: present.len(),
            demonstrations: demonstrations.len(),
            answer_kind: kind(&present, counts.len()),
            distinct_answers: counts.len(),
            labels: counts.into_iter().take(TOP).collect(),
            scripts: scripts(&prompts),
        }
    }

    /// Faults to fix before training, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.unused.is_empty() {
            let names = suggest::listed(self.unused.iter().map(String::as_str));
            warnings.push(format!("no prompt and no answer is made of the columns {names}"));
        }
        if self.empty_prompts > 0 {
            warnings.push(format!("{} rows ask nothing and are left out", self.empty_prompts));
        }
        if self.duplicates > 0 {
            warnings.push(format!("{} rows repeat a prompt; the first one is kept", self.duplicates));
        }
        if self.contradictions > 0 {
            warnings.push(format!("{} of them answer it differently: which answer is right?", self.contradictions));
        }
        if let Some((label, count)) =
            self.labels.first().filter(|(_, count)| count * 2 > self.answers && self.answers >= 20)
        {
            let share = 100.0 * *count as f64 / self.answers as f64;
            warnings.push(format!(
                "{share:.0}% of the answers are \"{label}\": always answering so would be right as often"
            ));
        }
        let heldout = self.rows.saturating_sub(self.duplicates + self.empty_prompts) / 5;
        if heldout < 100 && self.layout != Layout::Documents {
            warnings.push(format!(
                "about {heldout} cases will be held out: accuracies will be uncertain by more than 10 points"
            ));
        }
        warnings
    }
}

fn answer_of(layout: Layout, case: &Value) -> Option<String> {
    let known = match layout {
        Layout::Judgment => {
            let charges = case.get("charges").or_else(|| case.pointer("/meta/accusation"))?.as_array()?;
            let mut names: Vec<String> = charges.iter().map(|name| layout::text(Some(name))).collect();
            names.sort();
            names.join("、")
        }
        _ => bare(&layout::text(case.get("answer"))).to_string(),
    };
    (!known.is_empty()).then_some(known)
}

fn demonstration_of(case: &Value) -> Option<String> {
    let said = case.get("messages").and_then(Value::as_array).and_then(|messages| messages.last());
    let said =
        said.filter(|message| message["role"] == "assistant").map(|message| layout::text(message.get("content")));
    let worked =
        case.get("answer").and_then(Value::as_str).filter(|answer| answer.contains("#### ")).map(str::to_string);
    let written = Some(layout::text(case.get("demonstration"))).filter(|text| !text.is_empty());
    written.or(said).or(worked)
}

/// The number of rows whose prompt an earlier row has, and how many of them have another answer.
fn repeats(prompts: &[String], answers: &[Option<String>]) -> (usize, usize) {
    let mut first: HashMap<&str, &Option<String>> = HashMap::new();
    let (mut duplicates, mut contradictions) = (0, 0);
    for (prompt, answer) in prompts.iter().zip(answers).filter(|(prompt, _)| !prompt.trim().is_empty()) {
        match first.get(prompt.as_str()) {
            None => drop(first.insert(prompt, answer)),
            Some(before) => {
                duplicates += 1;
                contradictions += usize::from(*before != answer);
            }
        }
    }
    (duplicates, contradictions)
}

fn tally(answers: &[String]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> =
        counts.into_iter().map(|(answer, count)| (answer.to_string(), count)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counts
}

fn kind(answers: &[String], distinct: usize) -> AnswerKind {
    let numbers = answers.iter().filter(|answer| quantity::parse(answer).is_some()).count();
    match answers.len() {
        0 => AnswerKind::None,
        n if numbers * 20 >= n * 19 => AnswerKind::Number,
        n if distinct <= MOST_CHOICES && distinct * 3 <= n => AnswerKind::Choice,
        _ => AnswerKind::Text,
    }
}

/// Shares of letters by script, from the first thousand prompts.
fn scripts(prompts: &[String]) -> Vec<(&'static str, f64)> {
    let known = [
        ("Chinese", Script::Han),
        ("Latin", Script::Latin),
        ("Korean", Script::Hangul),
        ("Cyrillic", Script::Cyrillic),
        ("Arabic", Script::Arabic),
    ];
    let letters: Vec<char> =
        prompts.iter().take(1000).flat_map(|text| text.chars()).filter(|c| c.is_alphabetic()).collect();
    let mut shares: Vec<(&str, f64)> = known
        .iter()
        .map(|(name, script)| {
            (*name, letters.iter().filter(|c| script.has(**c)).count() as f64 / letters.len().max(1) as f64)
        })
        .filter(|(_, share)| *share >= 0.01)
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}–{}, median {}, 95% up to {}", self.min, self.max, self.median, self.p95)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let encoding = self.encoding.map(|encoding| format!(", {encoding}")).unwrap_or_default();
        writeln!(f, "{} rows ({:?}{encoding}): {}", self.rows, self.format, self.layout.words())?;
        let scripts: Vec<String> =
            self.scripts.iter().map(|(name, share)| format!("{name} {:.0}%", share * 100.0)).collect();
        writeln!(f, "prompts: {} characters; {}", self.prompt_chars, scripts.join(", "))?;
        if self.answers > 0 {
            writeln!(
                f,
                "answers: {} rows, {} distinct; {} characters",
                self.answers, self.distinct_answers, self.answer_chars
            )?;
            let labels: Vec<String> = self.labels.iter().map(|(label, count)| format!("{label} {count}")).collect();
            if self.answer_kind == AnswerKind::Choice || self.layout == Layout::Judgment {
                writeln!(f, "commonest: {}", labels.join(", "))?;
            }
        }
        if self.demonstrations > 0 {
            writeln!(f, "demonstrations: {} rows; {} characters", self.demonstrations, self.demonstration_chars)?;
        }
        for warning in self.warnings() {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::inspect;

    fn findings(lines: &[String]) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        inspect(&path).unwrap().findings
    }

    #[test]
    fn duplicates_contradictions_and_labels_are_counted() {
        let mut lines: Vec<String> = (0..60)
            .map(|i| {
                format!("{{\"text\": \"案情第{i}号ab\", \"label\": \"{}\"}}", if i % 3 == 0 { "诈骗" } else { "盗窃" })
            })
            .collect();
        lines.push("{\"text\": \"案情第1号ab\", \"label\": \"盗窃\"}".to_string());
        lines.push("{\"text\": \"案情第2号ab\", \"label\": \"抢劫\"}".to_string());
        lines.push("{\"text\": \" \", \"label\": \"盗窃\"}".to_string());
        let found = findings(&lines);
        assert_eq!((found.rows, found.duplicates, found.contradictions, found.empty_prompts), (63, 2, 1, 1));
        assert_eq!(found.labels[0], ("盗窃".to_string(), 42));
        assert_eq!((found.answer_kind, found.distinct_answers), (AnswerKind::Choice, 3));
        assert_eq!(found.prompt_chars.max, 8);
        assert_eq!(found.scripts[0].0, "Chinese");
        let warnings = found.warnings().join("\n");
        for part in
            ["1 rows ask nothing", "2 rows repeat", "1 of them answer", "67% of the answers are \"盗窃\"", "held out"]
        {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }

    #[test]
    fn answers_are_numbers_choices_or_texts() {
        let kind_of = |answer: &dyn Fn(usize) -> String| {
            let lines: Vec<String> =
                (0..40).map(|i| format!("{{\"prompt\": \"{i}\", \"answer\": \"{}\"}}", answer(i))).collect();
            findings(&lines).answer_kind
        };
        assert_eq!(kind_of(&|i| format!("{i}元")), AnswerKind::Number);
        assert_eq!(kind_of(&|i| ["A", "B"][i % 2].to_string()), AnswerKind::Choice);
        assert_eq!(kind_of(&|i| format!("第{i}号人物")), AnswerKind::Text);
        assert_eq!(findings(&["{\"prompt\": \"a\"}".to_string()]).answer_kind, AnswerKind::None);
    }

    #[test]
    fn gsm8k_has_answers_and_demonstrations() {
        let found = findings(&["{\"question\": \"q\", \"answer\": \"3*4=12 because\\n#### 12\"}".to_string()]);
        assert_eq!((found.answers, found.demonstrations, found.answer_kind), (1, 1, AnswerKind::Number));
        assert_eq!(found.answer_chars.max, 2);
    }
}
