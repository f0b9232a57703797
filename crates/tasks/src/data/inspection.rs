//! Inspects a file: its statistics, and its cases in the layout of [`crate::jsonl`].

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::findings::{Columns, Findings};
use super::layout::{self, Layout};
use super::table::{self, Table};
use crate::refusal::Refusal;
use crate::suggest;

/// A file's statistics and cases.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The statistics.
    pub findings: Findings,
    /// For a file that [`crate::extract`] wrote, the number of documents without a case; they are left out.
    pub without_case: usize,
    /// One object per case, in the layout of [`crate::jsonl`]. For documents and judgments, the unchanged rows.
    pub cases: Vec<Value>,
}

/// Inspects a file.
///
/// # Errors
/// A file that cannot be read, holds no rows, or has columns of no known layout; the line where its text cannot be
/// decoded.
pub fn inspect(path: &Path) -> Result<Inspection, Refusal> {
    let (table, without_case) = unwrapped(table::read(path)?);
    let layout = Layout::of(&table.columns).ok_or_else(|| {
        let columns = suggest::listed(table.columns.iter().map(String::as_str));
        let problem = format!("no known layout has the columns {columns}");
        let hint = "rename them to `prompt` and `answer`, or `messages`, or `text`";
        Refusal::new(problem, hint).in_file(path)
    })?;
    let short = layout.outputs_are_answers(&table.rows);
    let columns = Columns::of(&table, layout);
    // Rows become cases one by one, so that a large file is in memory once.
    let cases: Vec<Value> = table.rows.into_iter().map(|row| layout.case(row, short)).collect();
    let findings = Findings::of(table.format, table.encoding, layout, columns, &cases);
    Ok(Inspection { findings, without_case, cases })
}

/// For a file that [`crate::extract`] wrote, its cases and the number of documents without one. Any other file is
/// returned unchanged.
fn unwrapped(mut table: Table) -> (Table, usize) {
    let has = |name: &str| table.columns.iter().any(|column| column == name);
    if !(has("status") && has("defendants") && has("case")) {
        return (table, 0);
    }
    let documents = table.rows.len();
    let rows = table.rows.into_iter().zip(table.places);
    let cases = rows.filter_map(|(mut row, place)| match row.remove("case") {
        Some(Value::Object(case)) => Some((case, place)),
        _ => None,
    });
    (table.rows, table.places) = cases.unzip();
    table.columns = table.rows.first().map(|row| row.keys().cloned().collect()).unwrap_or_default();
    let without_case = documents - table.rows.len();
    (table, without_case)
}

impl Inspection {
    /// The cases as JSON lines. Cases without a prompt, or with the prompt of an earlier case, are left out.
    pub fn case_lines(&self) -> String {
        let mut seen = HashSet::new();
        let kept = self.cases.iter().filter(|case| {
            let prompt = layout::prompt_of(case);
            !prompt.trim().is_empty() && seen.insert(prompt)
        });
        kept.map(|case| format!("{case}\n")).collect()
    }
}
