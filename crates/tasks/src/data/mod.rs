//! The user's own data: what a file holds, and a recipe that fits it.
//!
//! [`inspect`] reads JSON lines, JSON, CSV, Excel or Parquet in UTF-8, UTF-16 or GB18030, recognises the usual layouts, counts what can
//! spoil training (empty prompts, duplicates, contradictions, a label that outweighs all others), and gives cases in the
//! layout of [`crate::jsonl`] with a commented recipe. It never changes the file, never guesses an answer, and trains nothing.
//!
//! Plain documents, to be pretrained on, are read by [`texts`], and searched for held-out cases by [`held_out`].
//!
//! Read next: [`table`] (reading), [`layout`] (whose columns mean what), [`findings`] (what is counted).

pub mod findings;
pub mod held_out;
pub mod layout;
pub mod table;
pub mod texts;

mod cells;

use std::path::{Path, PathBuf};

use findings::Findings;
use layout::Layout;
use serde_json::Value;

/// What a file holds, and its cases.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What was counted.
    pub findings: Findings,
    /// One object a case, as [`crate::jsonl`] reads them; for documents and judgments the rows as they are.
    pub cases: Vec<Value>,
}

/// Looks at a file.
///
/// # Errors
/// A file that cannot be read, holds no rows, or has columns of no known layout; the line where a text breaks.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let table = table::read(path)?;
    let layout = Layout::of(&table.columns)
        .ok_or_else(|| InspectError::Layout { path: path.to_path_buf(), columns: table.columns.join(", ") })?;
    let short = layout.outputs_are_answers(&table.rows);
    let cases: Vec<Value> = table.rows.iter().map(|row| layout.case(row, short)).collect();
    Ok(Inspection { findings: Findings::of(&table, layout, &cases), cases })
}

impl Inspection {
    /// The cases as JSON lines; those without a prompt and those that stood further up are left out.
    pub fn case_lines(&self) -> String {
        let mut seen = std::collections::HashSet::new();
        let kept = self.cases.iter().filter(|case| {
            let prompt = layout::prompt_of(case);
            !prompt.trim().is_empty() && seen.insert(prompt)
        });
        kept.map(|case| format!("{case}\n")).collect()
    }
}

/// Why a file cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The system could not read it.
    #[error("{path}: {source}\nhint: give the path of a JSONL, JSON, CSV, Excel or Parquet file")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line breaks.
    #[error("{path}:{line}: {problem}\nhint: {hint}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
        /// The mend.
        hint: String,
    },
    /// The file as a whole is not what it should be.
    #[error("{path}: {problem}\nhint: {hint}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The mend.
        hint: String,
    },
    /// The file holds documents, and no recipe follows from documents alone.
    #[error("documents ask nothing, so no task follows from them\nhint: add cases with `prompt` and `answer`")]
    Documents,
    /// No known layout has these columns.
    #[error(
        "{path}: no known layout has the columns {columns}\nhint: rename them to `prompt` and `answer`, or `messages`, or `text`"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its columns.
        columns: String,
    },
}
