//! `ferule explain WORD`: the keys of a stage, a task, a rule or a table of the recipe.

use std::fmt::Write;

use tasks::keys::KeyDoc;
use tasks::suggest;
use train::reference::{Group, Section, sections};

use super::outcome::WrongUse;
use super::output::Output;

/// What `ferule explain` reads.
#[derive(clap::Args)]
pub struct Arguments {
    /// A stage (sft), a task (jsonl), a rule (number), or a table of the recipe (eval, shape, optimisation); without a
    /// word, all words are listed
    #[arg(value_name = "KIND|TASK|RULE|TABLE")]
    word: Option<String>,
    /// Write the whole reference as Markdown
    #[arg(long, conflicts_with = "word")]
    markdown: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let sections = sections();
    let text = match arguments.word {
        Some(word) => explained(&sections, &word)?,
        None if arguments.markdown => markdown(&sections),
        None => listed(&sections),
    };
    let mut output = Output::stdout();
    output.text(&text)?;
    output.flush()
}

/// All sections with this name: `countdown` is a task and a rule.
fn explained(sections: &[Section], word: &str) -> anyhow::Result<String> {
    let named = |section: &&Section| section.word == word || section.aliases.contains(&word);
    let texts: Vec<String> = sections.iter().filter(named).map(plain).collect();
    if texts.is_empty() {
        let hint = suggest::hint(word, sections.iter().map(|section| section.word));
        return Err(WrongUse::error(format!("nothing in a recipe is called \"{word}\""), hint));
    }
    Ok(texts.join("\n"))
}

fn listed(sections: &[Section]) -> String {
    let mut text = String::new();
    for (group, heading) in Group::ALL {
        let own = sections.iter().filter(|section| section.group == group);
        let lines: String = own.map(|section| format!("  {:<18}{}\n", section.word, section.summary)).collect();
        let _ = writeln!(text, "{}{heading}\n{lines}", if text.is_empty() { "" } else { "\n" });
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text + "\n`ferule explain WORD` shows the keys of one of them.\n"
}

fn plain(section: &Section) -> String {
    let mut text = format!("{}: {}\n", section.word, section.summary);
    if !section.aliases.is_empty() {
        let _ = writeln!(text, "Also written {}.", section.aliases.join(", "));
    }
    for key in &section.keys {
        let _ = writeln!(text, "\n  {}\n      {} ({}; {})", key.name, key.doc, key.kind, default(key));
    }
    text
}

fn default(key: &KeyDoc) -> String {
    match &key.default {
        Some(default) => format!("{default} by default"),
        None if key.required => "required".to_string(),
        None => "optional".to_string(),
    }
}

/// The whole reference.
fn markdown(sections: &[Section]) -> String {
    let mut text = "# Recipe reference\n\n\
        Every key that a recipe can have. This page is written by `ferule explain --markdown` from the structs that are read; \
        do not edit it.\n"
        .to_string();
    for (group, heading) in Group::ALL {
        let _ = writeln!(text, "\n## {heading}");
        for section in sections.iter().filter(|section| section.group == group) {
            let _ = writeln!(text, "\n### `{}`\n\n{}", section.word, section.summary);
            if !section.aliases.is_empty() {
                let _ = writeln!(text, "Also written `{}`.", section.aliases.join("`, `"));
            }
            if section.keys.is_empty() {
                continue;
            }
            text += "\n| key | type | default | meaning |\n|---|---|---|---|\n";
            for key in &section.keys {
                let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
                let default = key.default.as_ref().map_or_else(|| default(key), |value| format!("`{value}`"));
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {} | {} |",
                    key.name,
                    cell(&key.kind),
                    cell(&default),
                    cell(&key.doc)
                );
            }
        }
    }
    text
}
