//! The rules by name: what a recipe can write, and what it gets.
//!
//! Every rule has the keys `rule`, `weight` and `gate`; the other keys are in the rule's own struct. An unknown rule or
//! key is refused with a suggestion. Names that other trainers use are not accepted, but the suggestion is found from
//! them.
//!
//! To add a rule, write its file and add a line to [`RULES`].

use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::choice::Choice;
use super::config::{RuleConfig, Shared};
use super::countdown::Countdown;
use super::dictionary::DictionaryRule;
use super::exact::Exact;
use super::format::Format;
use super::interval::Interval;
use super::language::Language;
use super::length::Length;
use super::math::Math;
use super::number::Number;
use super::regex::Regex;
use super::repetition::Repetition;
use super::rule::{Configured, Reads, Rule};
use crate::keys::{self, KeyDoc};
use crate::refusal::Refusal;
use crate::suggest;

/// Every rule that a recipe can name.
const RULES: &[Entry] = &[
    Entry::of::<Choice>(),
    Entry::of::<Countdown>(),
    Entry::of::<DictionaryRule>(),
    Entry::of::<Exact>(),
    Entry::of::<Format>(),
    Entry::of::<Interval>(),
    Entry::of::<Language>(),
    Entry::of::<Length>(),
    Entry::of::<Math>(),
    Entry::of::<Number>(),
    Entry::of::<Regex>(),
    Entry::of::<Repetition>(),
];

/// Other trainers' names of a rule, and Ferule's name.
const FOREIGN_NAMES: &[(&str, &str)] = &[
    ("accuracy_reward", "exact"),
    ("math_verify", "math"),
    ("format_reward", "format"),
    ("think_format_reward", "format"),
    ("get_soft_overlong_punishment", "length"),
    ("repetition_penalty_reward", "repetition"),
    ("language_consistency", "language"),
];

/// Builds a rule from its keys; relative paths start at the folder.
type Build = fn(Table, &Path) -> Result<Arc<dyn Rule>, Refusal>;

struct Entry {
    name: &'static str,
    reads: Reads,
    summary: &'static str,
    keys: fn() -> Vec<KeyDoc>,
    build: Build,
}

impl Entry {
    const fn of<R: Configured>() -> Entry {
        Entry {
            name: R::NAME,
            reads: R::READS,
            summary: R::SUMMARY,
            keys: keys::keys_of::<R::Keys>,
            build: |table, folder| Ok(Arc::new(R::build(keys::read(table, &[])?, folder)?)),
        }
    }
}

/// The documentation of a rule.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name in recipes.
    pub name: &'static str,
    /// What it rewards, in one sentence.
    pub summary: &'static str,
    /// What it uses at most besides the completion.
    pub reads: Reads,
    /// Its own keys, then those that every rule has.
    pub keys: Vec<KeyDoc>,
}

/// The names of all rules.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    RULES.iter().map(|entry| entry.name)
}

/// The documentation of the rule with that name.
pub fn describe(name: &str) -> Option<Described> {
    let entry = RULES.iter().find(|entry| entry.name == name)?;
    let keys = [(entry.keys)(), keys::keys_of::<Shared>()].concat();
    Some(Described { name: entry.name, summary: entry.summary, reads: entry.reads, keys })
}

/// A rule that was built from a recipe.
pub(super) struct Built {
    pub rule: Arc<dyn Rule>,
    pub weight: f64,
    /// The lowest score that passes, if the rule is a gate.
    pub gate: Option<f64>,
}

/// Builds a rule; relative paths start at `folder`.
///
/// # Errors
/// An unknown rule; in the rule, an unknown key, an invalid value, a file that cannot be read.
pub(super) fn build(config: &RuleConfig, folder: &Path) -> Result<Built, Refusal> {
    let name = config.rule.as_str();
    let Some(entry) = RULES.iter().find(|entry| entry.name == name) else {
        let hint = match FOREIGN_NAMES.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, ours)) => format!("here it is called \"{ours}\""),
            None => suggest::hint(name, names()),
        };
        return Err(Refusal::new(format!("there is no rule \"{name}\""), hint));
    };
    built(entry, config, folder).map_err(|refusal| refusal.in_rule(name))
}

fn built(entry: &Entry, config: &RuleConfig, folder: &Path) -> Result<Built, Refusal> {
    let shared = keys::names_of::<Shared>();
    let own: Vec<String> = (entry.keys)().into_iter().map(|key| key.name).collect();
    let known: Vec<&str> = ["rule"].into_iter().chain(shared.iter().chain(&own).map(String::as_str)).collect();
    keys::refuse_unknown(&config.keys, &known, &[])?;
    let (shared, own): (Table, Table) = config.keys.clone().into_iter().partition(|(key, _)| shared.contains(key));
    let Shared { weight, gate } = keys::read(shared, &[])?;
    Ok(Built { rule: (entry.build)(own, folder)?, weight, gate: gate.threshold() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{describe, names};
    use crate::rewards::{Reads, RuleConfig, RuleSet};

    fn set(toml: &str) -> Result<RuleSet, String> {
        #[derive(serde::Deserialize)]
        struct Recipe {
            rules: Vec<RuleConfig>,
        }
        let recipe: Recipe = toml::from_str(toml).map_err(|error| error.to_string())?;
        RuleSet::from_config(&recipe.rules, Path::new(".")).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_set_comes_from_tables() {
        let rules = set("rules = [{ rule = \"format\", weight = 0.1, gate = true }, { rule = \"exact\" }]").unwrap();
        assert_eq!(rules.weights().collect::<Vec<_>>(), [("format", 0.1), ("exact", 1.0)]);
        assert!(rules.reads_answers());
    }

    #[test]
    fn what_is_wrong_is_named_and_mended() {
        for (rule, expected) in [
            ("rule = \"exakt\"", "there is no rule \"exakt\"\nhint: did you mean \"exact\"?"),
            (
                "rule = \"think_format_reward\"",
                "there is no rule \"think_format_reward\"\nhint: here it is called \"format\"",
            ),
            ("rule = \"exact\", wieght = 1", "rule \"exact\": wieght: unknown key\nhint: did you mean \"weight\"?"),
            (
                "rule = \"exact\", weight = -1",
                "rule \"exact\": weight: -1 is below 0\nhint: it takes number from 0 to 1000000; 1.0 is the default",
            ),
            (
                "rule = \"exact\", gate = 2",
                "rule \"exact\": gate: 2 is above 1\nhint: it takes true or false or number > 0 and ≤ 1; false is the default",
            ),
            (
                "rule = \"number\", tolerance = -0.5",
                "rule \"number\": tolerance: -0.5 is below 0\nhint: 0.01 allows one percent",
            ),
            ("rule = \"length\", min = 3, max = 2", "rule \"length\": max: 2 lies below min = 3\nhint: swap the two"),
            (
                "rule = \"dictionary\", path = \"no.txt\"",
                "rule \"dictionary\": path: ./no.txt: No such file or directory (os error 2)\nhint: give a UTF-8 text file, one word a line, or .jsonl with a field `word`",
            ),
            (
                "rule = \"format\", weight = 0",
                "no rule has a positive weight\nhint: give at least one rule `weight = 1.0`",
            ),
        ] {
            let refusal = set(&format!("rules = [{{ {rule} }}]")).err().expect(rule);
            assert_eq!(refusal, expected);
        }
        let wrong_type = set("rules = [{ rule = \"format\", think = 3 }]").err().expect("refused");
        assert!(wrong_type.starts_with("rule \"format\": think: invalid type"), "{wrong_type}");
    }

    #[test]
    fn every_rule_describes_itself() {
        for name in names() {
            let rule = describe(name).expect("a rule");
            assert!(rule.summary.ends_with('.'), "{rule:?}");
            assert!(rule.keys.iter().all(|key| key.doc.ends_with('.')), "{rule:?}");
            assert!(rule.keys.iter().any(|key| key.name == "weight"), "{rule:?}");
        }
        assert_eq!(describe("number").expect("a rule").reads, Reads::Answer);
        assert!(describe("exakt").is_none());
    }

    /// Defaults are in range, and the struct's defaults equal those of the rule that it makes.
    #[test]
    fn every_rule_can_be_built_from_its_defaults() {
        for name in names() {
            let rule = describe(name).expect("a rule");
            let required = match name {
                "language" => ", script = \"han\"",
                "regex" => ", pattern = \"a\"",
                _ => "",
            };
            let defaults: String = rule
                .keys
                .iter()
                .filter_map(|key| Some(format!(", {} = {}", key.name, key.default.as_ref()?)))
                .collect();
            let set = set(&format!("rules = [{{ rule = \"{name}\"{required}{defaults} }}]")).expect(name);
            assert_eq!(set.weights().collect::<Vec<_>>(), [(name, 1.0)]);
            assert!(!set.reads_answers() || rule.reads == Reads::Answer, "{name}");
        }
    }
}
