//! A table in a file that people fill in: Excel, CSV or JSON lines, depending on the ending of its name.
//!
//! Excel and similar programs treat a text that begins with `=`, `+`, `-` or `@` as a formula. In a workbook every cell
//! is declared as text. CSV has no such declaration, so an apostrophe is put before such a text, and [`without_guard`]
//! removes it again.

use std::path::Path;

use anyhow::Context;
use rust_xlsxwriter::{Color, DataValidation, Format, FormatAlign, Workbook};
use serde_json::{Map, Value};

use crate::outcome::{WrongUse, failure};

/// The largest number of characters in a cell of Excel, counted in UTF-16.
const CELL: usize = 32_767;
/// Characters that make a formula of a cell if they begin it.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A column.
pub(super) struct Column {
    /// Its name, in the first row.
    pub name: &'static str,
    /// Its width in a workbook, in characters.
    pub width: f64,
    /// The words that may be filled in, if they are fixed.
    pub choices: &'static [&'static str],
}

/// Writes rows to a new file that only its owner can read. Returns the number of rows that were left out because a cell
/// of Excel cannot hold them.
///
/// # Errors
/// An ending other than .xlsx, .csv and .jsonl, a file that exists already, or one that cannot be written.
pub(super) fn write(path: &Path, columns: &[Column], rows: &[Map<String, Value>]) -> anyhow::Result<usize> {
    if path.exists() {
        let hint = "name another one: verdicts that were filled in there would be lost";
        return Err(WrongUse::error(format!("{} exists already", path.display()), hint));
    }
    let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase());
    let (bytes, left_out) = match ending.as_str() {
        "xlsx" => {
            let fits = |row: &&Map<String, Value>| {
                columns.iter().all(|column| text(&row[column.name]).encode_utf16().count() <= CELL)
            };
            let fitting: Vec<&Map<String, Value>> = rows.iter().filter(fits).collect();
            (workbook(columns, &fitting).context("the workbook cannot be made")?, rows.len() - fitting.len())
        }
        "csv" => (csv(columns, rows)?, 0),
        "jsonl" => (rows.iter().flat_map(|row| format!("{}\n", Value::Object(row.clone())).into_bytes()).collect(), 0),
        _ => {
            let hint = "end the name in .xlsx, .csv or .jsonl";
            return Err(WrongUse::error(format!("{}: unknown kind of table", path.display()), hint));
        }
    };
    store::disk::make_private(path, &bytes)
        .map_err(|error| failure(error, "name a file in a folder that you can write to"))?;
    Ok(left_out)
}

fn workbook(columns: &[Column], rows: &[&Map<String, Value>]) -> anyhow::Result<Vec<u8>> {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    // The format "@" means text. The cell stays text when somebody edits it.
    let cell = Format::new().set_num_format("@").set_text_wrap().set_align(FormatAlign::Top);
    let head = Format::new().set_num_format("@").set_bold().set_background_color(Color::RGB(0x00E8_E4DA));
    for (at, column) in (0..).zip(columns) {
        sheet.set_column_width(at, column.width)?.set_column_format(at, &cell)?;
        sheet.write_string_with_format(0, at, column.name, &head)?;
        if !column.choices.is_empty() && !rows.is_empty() {
            let list = DataValidation::new().allow_list_strings(column.choices)?;
            sheet.add_data_validation(1, at, rows.len() as u32, at, &list)?;
        }
        for (number, row) in (1..).zip(rows) {
            match printable(&text(&row[column.name])) {
                blank if blank.is_empty() => sheet.write_blank(number, at, &cell)?,
                text => sheet.write_string_with_format(number, at, text, &cell)?,
            };
        }
    }
    sheet.set_freeze_panes(1, 0)?;
    Ok(book.save_to_buffer()?)
}

fn csv(columns: &[Column], rows: &[Map<String, Value>]) -> anyhow::Result<Vec<u8>> {
    // With a byte order mark, Excel recognises UTF-8.
    let mut writer = csv::Writer::from_writer("\u{feff}".as_bytes().to_vec());
    writer.write_record(columns.iter().map(|column| column.name))?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| with_guard(printable(&text(&row[column.name])))))?;
    }
    Ok(writer.into_inner()?)
}

/// A value as a cell shows it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The text without control characters, which neither workbooks nor CSV can hold.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn is_guarded(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(FORMULA)
}

fn with_guard(text: String) -> String {
    if is_guarded(&text) { format!("'{text}") } else { text }
}

/// The text of a cell of CSV.
pub(super) fn without_guard(text: &str) -> &str {
    text.strip_prefix('\'').filter(|_| is_guarded(text)).unwrap_or(text)
}

/// Whether a text is the same after it was opened and saved in another program, which may change blanks, line ends and
/// unprintable characters.
pub(super) fn same(one: &str, other: &str) -> bool {
    let kept = |text: &str| {
        text.chars().filter(|c| !c.is_whitespace() && !c.is_control() && *c != '\u{fffd}').collect::<String>()
    };
    kept(one) == kept(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_text_comes_back_as_it_was() {
        for text in ["=1+1", "-3", "@a", "+", "'=1", "''-", "'a", "a=b", "", "'"] {
            let cell = with_guard(text.to_string());
            assert!(!cell.starts_with(FORMULA), "{cell}");
            assert_eq!(without_guard(&cell), text);
        }
    }

    #[test]
    fn an_edited_text_is_not_the_same() {
        assert!(same("a b\r\n\u{7}c", "a  b\n\u{fffd}c"));
        assert!(!same("36 months", "37 months"));
    }
}
