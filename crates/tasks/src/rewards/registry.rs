//! From a recipe's table to a rule: `{ rule = "number", weight = 1.0, gate = true, tolerance = 0.01 }`.
//!
//! `rule`, `weight` (1 unless written) and `gate` (`true` asks for the full score, a number for at least that) belong to
//! every rule; the other keys are the rule's own typed struct, and an unknown one is refused with a suggestion. Names
//! that other trainers use for the same thing are not accepted, only suggested from.
//!
//! To add a rule: write its file, then one line in [`CONSTRUCTORS`].

use super::{
    Rule, RuleError, choice, countdown, dictionary, exact, format, interval, language, length, math, number, regex,
    repetition,
};
use crate::suggest;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// One rule of a recipe, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleConfig {
    /// The rule's name.
    pub rule: String,
    /// All its other keys.
    #[serde(flatten)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub keys: toml::Table,
}

type Constructor = fn(&RuleConfig, &Path) -> Result<Arc<dyn Rule>, RuleError>;

/// Every rule that a recipe can name.
pub const CONSTRUCTORS: &[(&str, Constructor)] = &[
    ("choice", |config, _| Ok(Arc::new(choice::Choice::new(config.own()?)))),
    ("countdown", |config, _| Ok(Arc::new(countdown::Countdown::from_config(config)?))),
    ("dictionary", |config, folder| Ok(Arc::new(dictionary::DictionaryRule::from_config(config, folder)?))),
    ("exact", |config, _| Ok(Arc::new(exact::Exact::new(config.own()?)))),
    ("format", |config, _| Ok(Arc::new(format::Format::new(config.own()?)))),
    ("interval", |config, _| Ok(Arc::new(interval::Interval::from_config(config)?))),
    ("language", |config, _| Ok(Arc::new(language::Language::new(config.own()?)))),
    ("length", |config, _| Ok(Arc::new(length::Length::from_config(config)?))),
    ("math", |config, _| Ok(Arc::new(math::Math::new(config.own()?)))),
    ("number", |config, _| Ok(Arc::new(number::Number::from_config(config)?))),
    ("regex", |config, _| Ok(Arc::new(regex::Regex::from_config(config)?))),
    ("repetition", |config, _| Ok(Arc::new(repetition::Repetition::from_config(config)?))),
];

/// What other trainers call a rule, and our name for it.
const FOREIGN_NAMES: &[(&str, &str)] = &[
    ("accuracy_reward", "exact"),
    ("math_verify", "math"),
    ("format_reward", "format"),
    ("think_format_reward", "format"),
    ("get_soft_overlong_punishment", "length"),
    ("repetition_penalty_reward", "repetition"),
    ("language_consistency", "language"),
];

/// Builds a rule; relative paths start at `folder`.
pub(super) fn build(config: &RuleConfig, folder: &Path) -> Result<Arc<dyn Rule>, RuleError> {
    let name = config.rule.as_str();
    match CONSTRUCTORS.iter().find(|(known, _)| *known == name) {
        Some((_, construct)) => construct(config, folder),
        None => Err(RuleError::UnknownRule {
            name: name.to_string(),
            hint: match FOREIGN_NAMES.iter().find(|(theirs, _)| *theirs == name) {
                Some((_, ours)) => format!("here it is called \"{ours}\""),
                None => suggest::hint(name, CONSTRUCTORS.iter().map(|(known, _)| *known)),
            },
        }),
    }
}

impl RuleConfig {
    /// How much the rule counts; 1 unless written.
    ///
    /// # Errors
    /// [`RuleError::BadValue`] unless it is a finite number ≥ 0.
    pub fn weight(&self) -> Result<f64, RuleError> {
        match self.keys.get("weight").map(as_number) {
            None => Ok(1.0),
            Some(Some(weight)) if weight.is_finite() && weight >= 0.0 => Ok(weight),
            Some(_) => Err(self.bad("weight", "not a number from 0 upwards", "for example `weight = 0.5`")),
        }
    }

    /// The least score that lets a reward through, if the rule is a gate.
    ///
    /// # Errors
    /// [`RuleError::BadValue`] unless it is a boolean or a number above 0 and at most 1.
    pub fn gate(&self) -> Result<Option<f64>, RuleError> {
        let bad =
            || self.bad("gate", "neither a boolean nor a share in (0, 1]", "for example `gate = true` or `gate = 0.5`");
        match self.keys.get("gate") {
            None | Some(toml::Value::Boolean(false)) => Ok(None),
            Some(toml::Value::Boolean(true)) => Ok(Some(1.0)),
            Some(value) => match as_number(value) {
                Some(threshold) if threshold > 0.0 && threshold <= 1.0 => Ok(Some(threshold)),
                _ => Err(bad()),
            },
        }
    }

    /// The rule's own keys as its typed struct.
    ///
    /// # Errors
    /// [`RuleError::UnknownKey`] with a suggestion, or [`RuleError::BadValue`] naming the key.
    pub fn own<T: DeserializeOwned>(&self) -> Result<T, RuleError> {
        let known = suggest::fields_of::<T>();
        let own: toml::Table = self
            .keys
            .iter()
            .filter(|(key, _)| *key != "weight" && *key != "gate")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if let Some(key) = own.keys().find(|key| !known.contains(&key.as_str())) {
            let names = ["rule", "weight", "gate"].into_iter().chain(known.iter().copied());
            return Err(RuleError::UnknownKey {
                rule: self.rule.clone(),
                key: key.clone(),
                hint: suggest::hint(key, names),
            });
        }
        serde_path_to_error::deserialize(toml::Value::Table(own)).map_err(|error| {
            let key = error.path().to_string();
            let problem = error.into_inner().to_string();
            self.bad(
                if key == "." { "keys" } else { &key },
                problem.trim(),
                "see the rule's documentation for what it takes",
            )
        })
    }

    /// The error for a value of this rule that cannot be.
    pub fn bad(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> RuleError {
        RuleError::BadValue {
            rule: self.rule.clone(),
            key: key.to_string(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

fn as_number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

#[cfg(test)]
mod tests {
    use crate::rewards::{RuleConfig, RuleSet};
    use std::path::Path;

    fn set(toml: &str) -> Result<RuleSet, String> {
        #[derive(serde::Deserialize)]
        struct Recipe {
            rules: Vec<RuleConfig>,
        }
        let recipe: Recipe = toml::from_str(toml).map_err(|error| error.to_string())?;
        RuleSet::from_config(&recipe.rules, Path::new(".")).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(toml: &str, message: &str) {
        match set(toml) {
            Ok(_) => panic!("accepted: {toml}"),
            Err(error) => assert!(error.contains(message), "{error}"),
        }
    }

    #[test]
    fn a_set_comes_from_tables() {
        let rules = set("rules = [{ rule = \"format\", weight = 0.1, gate = true }, { rule = \"exact\" }]").unwrap();
        assert_eq!(rules.weights().collect::<Vec<_>>(), [("format", 0.1), ("exact", 1.0)]);
        assert!(rules.reads_answers());
    }

    #[test]
    fn what_is_wrong_is_named_and_mended() {
        refused("rules = [{ rule = \"exakt\" }]", "did you mean \"exact\"?");
        refused("rules = [{ rule = \"think_format_reward\" }]", "here it is called \"format\"");
        refused("rules = [{ rule = \"exact\", wieght = 1 }]", "did you mean \"weight\"?");
        refused("rules = [{ rule = \"exact\", weight = -1 }]", "rule \"exact\": weight: not a number");
        refused("rules = [{ rule = \"exact\", gate = 2 }]", "gate: neither");
        refused("rules = [{ rule = \"format\", think = 3 }]", "rule \"format\": think: ");
        refused("rules = [{ rule = \"format\", weight = 0 }]", "no rule has a positive weight");
    }
}
