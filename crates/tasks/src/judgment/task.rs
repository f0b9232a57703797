//! The task itself: its cases, their splits, demonstrations and grades.

use std::collections::HashSet;
use std::path::Path;

use kernels::rng::Key;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::Answer;
use super::charge::canonical_charge;
use super::draft::{Draft, draft};
use super::grade::{self, Record};
use super::records::{self, RealCase};
use super::{corpus, rules};
use crate::case::{Case, Completion, Grade, Prompt, Split};
use crate::partition::{self, Part};
use crate::paths::Paths;
use crate::refusal::Refusal;
use crate::rewards::RuleSet;
use crate::task::{Configured, Task, TaskError};

const NAME: &str = "judgment";

/// The keys of the task.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JudgmentKeys {
    /// Real cases as JSON lines, in this project's layout or CAIL2018's; without files, cases are generated.
    pub files: Paths,
    /// The most characters of a case's facts; longer ones lose their middle.
    #[schemars(range(min = 40, max = 1_000_000_000), extend("hint" = "give at least 40, or leave it out to keep facts whole"))]
    pub fact_chars: Option<usize>,
}

/// The task. See [`super`].
pub struct Judgment {
    /// Real cases; `None` for the generator.
    real: Option<Vec<RealCase>>,
    /// The longest facts of a real case, in characters.
    fact_chars: usize,
    /// Records whose facts an earlier record has.
    repeated: usize,
}

impl Default for Judgment {
    fn default() -> Judgment {
        Judgment::generated()
    }
}

impl Judgment {
    /// The task on built-in cases.
    pub fn generated() -> Judgment {
        Judgment { real: None, fact_chars: usize::MAX, repeated: 0 }
    }

    /// The task on real records. Facts longer than `fact_chars` lose their middle; the hidden record holds the number
    /// of characters cut as `cut_chars`. Of cases with equal facts the first one is kept.
    ///
    /// # Errors
    /// A file that cannot be read, or the first invalid line.
    pub fn from_files<P: AsRef<Path>>(files: &[P], fact_chars: Option<usize>) -> Result<Judgment, Refusal> {
        let fact_chars = fact_chars.unwrap_or(usize::MAX);
        let mut seen = HashSet::new();
        let (mut real, mut read) = (Vec::new(), 0);
        for file in files {
            let cases = records::read(file.as_ref())?;
            read += cases.len();
            real.extend(cases.into_iter().filter(|case| seen.insert(blake3::hash(case.fact.as_bytes()))));
        }
        let repeated = read - real.len();
        Ok(Judgment { real: Some(real), fact_chars, repeated })
    }

    /// The generated case of an index: the first draft under its key that belongs to the split and is not in `taken`.
    fn generated_case(&self, split: Split, key: Key, taken: &mut HashSet<String>) -> Case {
        let unseen = split == Split::HeldoutUnseen;
        (0..)
            .map(|attempt| draft(key.number(attempt), unseen))
            .filter(|draft| unseen || partition::generated(&draft.facts) == Part::Split(split))
            .map(|draft| generated(&draft))
            .find(|case| taken.insert(case.id.clone()))
            .expect("attempts do not end")
    }

    fn real_cases(&self, real: &[RealCase], split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        let mut inside: Vec<&RealCase> = real.iter().filter(|case| real_split(&case.fact) == split).collect();
        if inside.is_empty() {
            let hint = match split {
                Split::HeldoutUnseen => "real records have no unseen wordings of their own; evaluate on heldout",
                _ => "the files hold too few cases; about 7 in 10 train, 2 are held out, 1 validates",
            };
            return Err(TaskError::empty_split(NAME, split, hint));
        }
        let key = Key::new(seed).word("judgment").word("real");
        inside.sort_by_cached_key(|case| key.word(&case.fact).bits(0));
        Ok(inside.into_iter().take(n).map(|case| real_case(case, self.fact_chars)).collect())
    }
}

/// The split of a real case.
pub fn real_split(fact: &str) -> Split {
    partition::filed(fact.trim())
}

/// The prompt for facts.
pub fn prompt(facts: &str) -> String {
    format!("案情：{facts}\n裁判：")
}

fn case(facts: &str, answer: &Answer, record: &Record) -> Case {
    Case {
        id: partition::id(&record.facts),
        prompt: Prompt::Text(prompt(facts)),
        answer: Some(answer.to_string()),
        record: serde_json::to_value(record).expect("a record is plain data"),
    }
}

fn generated(draft: &Draft) -> Case {
    let answer = draft.answer();
    let record = Record {
        origin: "generated".to_string(),
        facts: draft.facts.clone(),
        charges: answer.charge_set().into_iter().collect(),
        penalty: Some(draft.penalty.to_string()),
        months: draft.penalty.months(),
        range: Some(draft.range),
        statutory: Some(draft.counts[0].scene.tier().statutory()),
        rows: draft.counts.iter().map(|count| count.scene.row.clone()).collect(),
        figures: draft.counts.iter().map(|count| count.figure.clone()).filter(|figure| !figure.is_empty()).collect(),
        factors: draft.factors.iter().map(|name| name.to_string()).collect(),
        band: Some(draft.band.word().to_string()),
        chain: Some(draft.chain()),
        exact_articles: true,
        cut_chars: 0,
    };
    case(&draft.facts, &answer, &record)
}

fn real_case(real: &RealCase, fact_chars: usize) -> Case {
    let (facts, cut_chars) = without_middle(&real.fact, fact_chars);
    let (range, statutory) = grade::real_range(&real.answer);
    let record = Record {
        origin: real.origin.clone(),
        facts: real.fact.clone(),
        charges: real.answer.charges.iter().map(|name| canonical_charge(name)).collect(),
        penalty: real.answer.penalty.map(|penalty| penalty.to_string()),
        months: real.answer.penalty.and_then(|penalty| penalty.months()),
        range,
        statutory,
        rows: Vec::new(),
        figures: Vec::new(),
        factors: Vec::new(),
        band: None,
        chain: None,
        exact_articles: false,
        cut_chars,
    };
    case(&facts, &real.answer, &record)
}

/// The text unchanged if it fits into `limit` characters; otherwise its first two thirds and last third of `limit`
/// around an ellipsis. Also returns the number of characters cut.
pub(super) fn without_middle(text: &str, limit: usize) -> (String, usize) {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= limit {
        return (text.to_string(), 0);
    }
    let kept = limit - 1;
    let head = kept * 2 / 3;
    let tail = chars.len() - (kept - head);
    let shortened = chars[..head].iter().chain(&['…']).chain(&chars[tail..]).collect();
    (shortened, tail - head)
}

impl Task for Judgment {
    fn name(&self) -> &str {
        NAME
    }

    fn cases(&self, split: Split, n: usize, seed: u64) -> Result<Vec<Case>, TaskError> {
        if let Some(real) = &self.real {
            return self.real_cases(real, split, n, seed);
        }
        let key = Key::new(seed).word("judgment").word(split.name());
        let mut taken = HashSet::new();
        Ok((0..n as u64).map(|index| self.generated_case(split, key.number(index), &mut taken)).collect())
    }

    /// The generator's chain and answer. A real case with all parts stated gets a chain that names charge and articles.
    /// A case with an unknown part has no demonstration.
    fn demonstration(&self, case: &Case) -> Option<String> {
        let record: Record = serde_json::from_value(case.record.clone()).ok()?;
        let (answer, _) = Answer::parse_complete(case.answer.as_deref()?).ok()?;
        let chain = record.chain.unwrap_or_else(|| format!("行为符合{}的构成", answer.charges.join("、")));
        Some(format!("<think>{chain}</think><answer>{answer}</answer>"))
    }

    fn bare_answer(&self, case: &Case) -> Option<String> {
        let (answer, _) = Answer::parse_complete(case.answer.as_deref()?).ok()?;
        Some(format!("<think></think><answer>{answer}</answer>"))
    }

    /// Built-in cases have an endless corpus ([`corpus`]). Files of cases have none, since each of their cases belongs
    /// to a split.
    fn corpus(&self, index: u64, seed: u64) -> Option<String> {
        if self.real.is_some() {
            return None;
        }
        let key = Key::new(seed).word("judgment").word("corpus").number(index);
        Some(corpus::document(key, || {
            (0..)
                .map(|attempt| draft(key.number(attempt), false))
                .find(|draft| partition::generated(&draft.facts) == Part::Corpus)
                .expect("attempts do not end")
        }))
    }

    fn kept_out(&self, n: usize, seed: u64) -> Result<Vec<String>, TaskError> {
        if let Some(real) = &self.real {
            let outside = real.iter().filter(|case| real_split(&case.fact) != Split::Train);
            return Ok(outside.map(|case| case.fact.clone()).collect());
        }
        let mut facts = Vec::new();
        for split in [Split::Heldout, Split::HeldoutUnseen, Split::Validation] {
            facts.extend(
                self.cases(split, n, seed)?
                    .into_iter()
                    .filter_map(|case| case.record["facts"].as_str().map(str::to_string)),
            );
        }
        Ok(facts)
    }

    fn notices(&self) -> Vec<String> {
        let Some(real) = &self.real else { return Vec::new() };
        let complete =
            real.iter().filter(|case| case.answer.articles.is_some() && case.answer.penalty.is_some()).count();
        let longer = real.iter().filter(|case| case.fact.chars().count() > self.fact_chars).count();
        let mut notices = vec![format!(
            "judgment: {} records, {complete} of them with articles and penalty; {} repeated ones left out",
            real.len(),
            self.repeated
        )];
        if longer > 0 {
            notices.push(format!(
                "judgment: {longer} facts are longer than {} characters and lose their middle",
                self.fact_chars
            ));
        }
        notices
    }

    /// See [`grade`].
    ///
    /// # Panics
    /// If the case is not one of this task's.
    fn grade(&self, case: &Case, completion: &Completion) -> Grade {
        let record: Record = serde_json::from_value(case.record.clone()).expect("a case of the judgment task");
        let known =
            case.answer.as_deref().map(Answer::parse).expect("judgments state their answer").expect("in its notation");
        grade::grade(&known, &record, completion)
    }

    fn rules(&self, arm: &str) -> Result<RuleSet, TaskError> {
        rules::arm(arm).ok_or_else(|| TaskError::unknown_arm(NAME, arm, &rules::ARMS))
    }
}

impl Configured for Judgment {
    const NAME: &'static str = NAME;
    const SUMMARY: &'static str = "From the facts of a Chinese criminal case to charge, article and penalty.";
    const ARMS: &'static [&'static str] = &rules::ARMS;
    type Keys = JudgmentKeys;

    fn build(keys: JudgmentKeys, folder: &Path) -> Result<Judgment, Refusal> {
        let files = keys.files.located(folder);
        if files.is_empty() { Ok(Judgment::generated()) } else { Judgment::from_files(&files, keys.fact_chars) }
    }

    fn question(_: &JudgmentKeys, text: &str) -> String {
        prompt(text)
    }
}
