//! The reference of a recipe: every table with its keys, and for each key its type, its default and a sentence.
//!
//! It is derived from the structs that a recipe is read into. `ferule explain` prints it, and `docs/src/recipe.md` is generated from it.

use lm::config::Shape;
use tasks::keys::{KeyDoc, keys_of};
use tasks::rewards::Reads;

use crate::flywheel::turn::FlywheelKeys;
use crate::recipe::keys::RecipeKeys;
use crate::recipe::model_source::{CopyKeys, FileKeys};
use crate::recipe::optimisation::Optimisation;
use crate::recipe::settings::EvalSettings;
use crate::stages::registry::STAGES;

/// One table of a recipe.
pub struct Section {
    /// The part of the reference that it belongs to.
    pub group: Group,
    /// The word that names it, such as `sft`.
    pub word: &'static str,
    /// Other words that a recipe may write for it.
    pub aliases: &'static [&'static str],
    /// What the table is for, in one or two sentences.
    pub summary: String,
    /// Its keys, in order.
    pub keys: Vec<KeyDoc>,
}

/// A part of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The recipe itself and its tables.
    Recipe,
    /// A kind of stage.
    Stage,
    /// A task.
    Task,
    /// A rule.
    Rule,
}

impl Group {
    /// The groups in the order of the reference, with their headings.
    pub const ALL: [(Group, &'static str); 4] = [
        (Group::Recipe, "The recipe"),
        (Group::Stage, "Stages: `[[stages]]` with `kind = …`"),
        (Group::Task, "Tasks: `[task]` with `name = …`"),
        (Group::Rule, "Rules: `rules = [{ rule = … }]`"),
    ];
}

/// Every section, in the order of the reference.
pub fn sections() -> Vec<Section> {
    let recipe = |word, summary: &str, keys| Section {
        group: Group::Recipe,
        word,
        aliases: &[],
        summary: summary.to_string(),
        keys,
    };
    let mut sections = vec![
        recipe("recipe", "The keys of the file itself.", keys_of::<RecipeKeys>()),
        recipe("eval", "`[eval]`: how the ladder's accuracies are measured.", keys_of::<EvalSettings>()),
        recipe(
            "flywheel",
            "`[flywheel]` of a turn file: how a turn of the flywheel chooses and judges.",
            keys_of::<FlywheelKeys>(),
        ),
        recipe("path", "`[models.NAME]` of a model that comes from a file.", keys_of::<FileKeys>()),
        recipe("from", "`[models.NAME]` of a copy of what a stage made.", keys_of::<CopyKeys>()),
        recipe("shape", "`[models.NAME]` of a model with random weights.", keys_of::<Shape>()),
        recipe("optimisation", "How steps are taken: keys of every stage that trains.", keys_of::<Optimisation>()),
    ];
    let shared = keys_of::<Optimisation>();
    sections.extend(STAGES.iter().map(|entry| {
        let (common, keys): (Vec<_>, Vec<_>) = (entry.keys)().into_iter().partition(|key| shared.contains(key));
        let summary = match common.is_empty() {
            false => format!("{} It takes the keys of `optimisation` too.", entry.summary),
            true => entry.summary.to_string(),
        };
        Section { group: Group::Stage, word: entry.kind, aliases: entry.aliases, summary, keys }
    }));
    sections.extend(tasks::registry::names().filter_map(tasks::registry::describe).map(|task| Section {
        group: Group::Task,
        word: task.name,
        aliases: &[],
        summary: format!("{} A stage's `rules` can be {}.", task.summary, quoted(task.arms)),
        keys: task.keys,
    }));
    sections.extend(tasks::rewards::registry::names().filter_map(tasks::rewards::registry::describe).map(|rule| {
        let reads = match rule.reads {
            Reads::Prompt => "It does not read the known answer.",
            Reads::Answer => "It reads the case's known answer.",
        };
        let summary = format!("{} {reads}", rule.summary);
        Section { group: Group::Rule, word: rule.name, aliases: &[], summary, keys: rule.keys }
    }));
    sections
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_both_ends_of_a_range() {
        for section in sections() {
            for KeyDoc { name, kind, .. } in section.keys {
                for number in
                    kind.split(" or ").filter(|kind| kind.starts_with("integer") || kind.starts_with("number"))
                {
                    let bounded = number.contains(" to ") || number.contains(" ≤ ") || number.contains(" < ");
                    assert!(bounded, "{}.{name}: {number}", section.word);
                }
            }
        }
    }
}
