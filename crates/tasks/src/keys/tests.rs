use std::path::PathBuf;

use super::*;
use crate::paths::Paths;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Keys {
    /// The model that
    /// learns.
    model: String,
    /// Times each is seen.
    #[serde(default = "eight")]
    #[schemars(range(min = 1))]
    epochs: u64,
    /// Divides the logits, see [`crate::keys`].
    #[serde(default = "fifth")]
    #[schemars(extend("exclusiveMinimum" = 0, "hint" = "1 leaves the logits as they are"))]
    temperature: f32,
    /// How many at most.
    #[schemars(range(min = 1, max = 9))]
    most: Option<usize>,
    /// Where from.
    #[serde(default)]
    files: Paths,
    /// A dictionary.
    #[schemars(extend("format" = "path"))]
    dictionary: Option<PathBuf>,
    /// What is taken together.
    #[serde(default)]
    rules: Rules,
    /// Whether it is one.
    #[serde(default = "closed")]
    gate: Gate,
    /// What the file calls its columns.
    #[serde(default)]
    columns: Columns,
    #[serde(flatten)]
    steps: Steps,
}

fn eight() -> u64 {
    8
}

fn fifth() -> f32 {
    0.2
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Rules {
    Arm(String),
    List(Vec<Rule>),
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::Arm("answers".into())
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Gate {
    Full(bool),
    AtLeast(#[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))] f64),
}

fn closed() -> Gate {
    Gate::Full(true)
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Rule {
    /// Its name.
    rule: String,
    #[serde(flatten)]
    #[schemars(with = "serde_json::Map<String, Value>")]
    keys: Table,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Columns {
    /// What is asked.
    prompt: String,
    /// How many.
    #[schemars(range(max = 4))]
    count: i32,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { prompt: "prompt".into(), count: -1 }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Steps {
    /// How the rate goes.
    schedule: Schedule,
    /// Whether to.
    recompute: bool,
    /// A share.
    #[schemars(range(min = 0.0, max = 0.5))]
    share: f64,
}

impl Default for Steps {
    fn default() -> Steps {
        Steps { schedule: Schedule::Cosine, recompute: false, share: 0.25 }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Schedule {
    Cosine,
    /// It stays.
    ConstantRate,
}

fn table(text: &str) -> Table {
    text.parse().expect("TOML")
}

#[test]
fn every_key_comes_with_its_kind_default_and_sentence() {
    let told: Vec<String> = keys_of::<Keys>()
        .into_iter()
        .map(|key| {
            let default = if key.required { "required".into() } else { key.default.unwrap_or("–".into()) };
            format!("{} | {} | {default} | {}", key.name, key.kind, key.doc)
        })
        .collect();
    let expected = [
        "model | text | required | The model that learns.",
        "epochs | integer ≥ 1 | 8 | Times each is seen.",
        "temperature | number > 0 | 0.2 | Divides the logits, see `crate::keys`.",
        "most | integer from 1 to 9 | – | How many at most.",
        "files | path or list of paths | [] | Where from.",
        "dictionary | path | – | A dictionary.",
        "rules | text or list of tables | \"answers\" | What is taken together.",
        "gate | true or false or number > 0 and ≤ 1 | true | Whether it is one.",
        "columns | table | – | What the file calls its columns.",
        "columns.prompt | text | \"prompt\" | What is asked.",
        "columns.count | integer ≤ 4 | -1 | How many.",
        "schedule | one of \"cosine\", \"constant_rate\" | \"cosine\" | How the rate goes.",
        "recompute | true or false | false | Whether to.",
        "share | number from 0 to 0.5 | 0.25 | A share.",
    ];
    assert_eq!(told, expected);
    assert_eq!(names_of::<Rule>(), ["rule"]);
    assert!(names_of::<u8>().is_empty());
}

#[test]
fn numbers_out_of_their_range_are_refused() {
    for (written, expected) in [
        ("epochs = 0", "epochs: is 0\nhint: it counts from 1; leave it out for the default"),
        ("most = 0", "most: is 0\nhint: it counts from 1"),
        ("most = 10", "most: 10 is above 9\nhint: it takes integer from 1 to 9"),
        ("epochs = -2", "epochs: -2 is below 1\nhint: it takes integer ≥ 1; 8 is the default"),
        ("temperature = 0", "temperature: 0 is not above 0\nhint: 1 leaves the logits as they are"),
        ("temperature = 1e-300", "temperature: 0 is not above 0\nhint: 1 leaves the logits as they are"),
        ("share = nan", "share: NaN is not finite\nhint: it takes number from 0 to 0.5; 0.25 is the default"),
        ("share = 0.6", "share: 0.6 is above 0.5\nhint: it takes number from 0 to 0.5; 0.25 is the default"),
        ("gate = 2", "gate: 2 is above 1\nhint: it takes true or false or number > 0 and ≤ 1; true is the default"),
        ("columns.count = 5", "columns.count: 5 is above 4\nhint: it takes integer ≤ 4; -1 is the default"),
    ] {
        let refusal = check(&schema_of::<Keys>(), &table(written)).expect_err(written);
        assert_eq!(refusal.to_string(), expected);
    }
    for written in ["epochs = 1", "temperature = 1e-9", "most = 9", "share = 0.5", "epochs = \"x\"", "other = 0"] {
        assert_eq!(check(&schema_of::<Keys>(), &table(written)), Ok(()), "{written}");
    }
}

#[test]
fn a_table_is_read_or_refused_by_its_key() {
    let keys: Keys = read(table("model = \"a\"\nrules = [{ rule = \"exact\", x = 1 }]\nshare = 0.1"), &[]).unwrap();
    assert_eq!((keys.model.as_str(), keys.epochs, keys.steps.share), ("a", 8, 0.1));
    assert_eq!(keys.rules, Rules::List(vec![Rule { rule: "exact".into(), keys: table("x = 1") }]));
    let rule: Rule = read(table("rule = \"exact\"\nx = 1"), &[]).unwrap();
    assert_eq!(rule.keys, table("x = 1"));

    let mend = "numbers stand without quotes, words in quotes, lists in brackets";
    for (written, expected) in [
        ("epoch = 1", "epoch: unknown key\nhint: did you mean \"epochs\"?".to_string()),
        ("num_train_epochs = 1", "num_train_epochs: unknown key\nhint: here it is called \"epochs\"".to_string()),
        ("columns.promt = \"q\"", "columns.promt: unknown key\nhint: did you mean \"prompt\"?".to_string()),
        ("epochs = 0", "epochs: is 0\nhint: it counts from 1; leave it out for the default".to_string()),
        ("", format!("missing field `model`\nhint: {mend}")),
        ("model = 1", format!("model: invalid type: integer `1`, expected a string\nhint: {mend}")),
        (
            "model = \"a\"\nrecompute = 1",
            format!("recompute: invalid type: integer `1`, expected a boolean\nhint: {mend}"),
        ),
        (
            "model = \"a\"\ngate = \"x\"",
            "gate: is of the wrong kind\nhint: it takes true or false or number > 0 and ≤ 1".to_string(),
        ),
        (
            "model = \"a\"\nschedule = \"linear\"",
            format!("schedule: unknown variant `linear`, expected `cosine` or `constant_rate`\nhint: {mend}"),
        ),
    ] {
        let refusal = read::<Keys>(table(written), &[("epochs", &["num_train_epochs"])]).expect_err(written);
        assert_eq!(refusal.to_string(), expected);
    }
}
