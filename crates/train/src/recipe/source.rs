//! A recipe's file as it was read. It finds the line of a key, for messages.

use std::path::PathBuf;

use tasks::refusal::Refusal;

/// The file and its text.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file's path.
    pub path: PathBuf,
    /// The file's content.
    pub text: String,
}

impl Source {
    /// A refusal at a key such as `stages[2].epochs` or `eval.cases`.
    pub(super) fn refuse(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
        self.at(key, Refusal::new(problem, hint))
    }

    /// A refusal found inside the value of a key, such as a rule's.
    pub(super) fn at(&self, key: &str, refusal: Refusal) -> Refusal {
        self.located(refusal.in_key(key))
    }

    /// A refusal with the line of its key or, if that is not written, of the table around it.
    pub(super) fn located(&self, refusal: Refusal) -> Refusal {
        let key = refusal.place.key();
        let around = std::iter::successors(Some(key.as_str()), |key| key.rsplit_once('.').map(|(outer, _)| outer));
        let line = around.into_iter().find_map(|key| self.line_of(key));
        refusal.in_line(&self.path, line)
    }

    /// The refusal of a file that is not TOML.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> Refusal {
        let before = error.span().map_or("", |span| self.text.get(..span.start).unwrap_or(""));
        let line = before.matches('\n').count() + 1;
        let hint = "strings stand in quotes, a table is `[name]`, a stage `[[stages]]`";
        Refusal::new(error.message().trim().replace('\n', ", "), hint).in_line(&self.path, line)
    }

    /// The line of a key, counted from 1; the line of its table if the key itself is not written.
    fn line_of(&self, key: &str) -> Option<usize> {
        let lines = || self.text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let header = |name: &str| lines().find(|(_, line)| *line == format!("[{name}]")).map(|(line, _)| line);
        let below = |start: usize, name: &str| {
            let own = lines().skip(start).take_while(|(_, line)| !line.starts_with('['));
            let writes = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
            own.map(|(at, line)| (at, writes(line))).find_map(|(at, writes)| writes.then_some(at))
        };
        if let Some(line) = header(key) {
            return Some(line);
        }
        let (place, last) = key.rsplit_once('.').unwrap_or((key, ""));
        if let Some(index) = place.strip_prefix("stages[").and_then(|rest| rest.strip_suffix(']')) {
            let stage = lines().filter(|(_, line)| *line == "[[stages]]").nth(index.parse().ok()?)?.0;
            return below(stage, last).or(Some(stage));
        }
        match header(place) {
            Some(table) => below(table, last).or(Some(table)),
            // An inline table is on the line of its own name.
            None => below(0, place.split('.').next()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_table_and_a_missing_one_at_its_head() {
        let text = "seed = 1\ntask = { name = \"x\" }\n[eval]\ncases = 2\n[models.a]\npath = \"p\"\n\n[[stages]]\nkind = \"sft\"\n[[stages]]\n  epochs = 3\n";
        let source = Source { path: PathBuf::new(), text: text.into() };
        let cases = [
            ("seed", Some(1)),
            ("task.path", Some(2)),
            ("eval.cases", Some(4)),
            ("eval.seed", Some(3)),
            ("models.a", Some(5)),
            ("models.a.path", Some(6)),
            ("stages[0].epochs", Some(8)),
            ("stages[1]", Some(10)),
            ("stages[1].epochs", Some(11)),
            ("stages[2].epochs", None),
            ("dtype", None),
        ];
        cases.iter().for_each(|(key, line)| assert_eq!(source.line_of(key), *line, "{key}"));
    }
}
