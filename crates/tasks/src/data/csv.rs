//! Rows from values separated by commas or tabs, following RFC 4180: quoted values may contain separators, line breaks
//! and doubled quotes. The first row names the columns.

use std::path::Path;

use csv::{Position, ReaderBuilder, StringRecord};
use serde_json::Value;

use super::row::{Row, row};
use crate::refusal::Refusal;

/// A record that is appended to the text. The parser ends a quote that is never closed at the end of the file; then
/// this record is part of the quoted value, which shows the fault.
const END: &str = "\n\u{3}\n";

/// The rows with their line numbers. The separator is the tab if the first line has more tabs than commas.
///
/// # Errors
/// An empty file, a quote that is never closed, and a row with more or fewer values than there are columns, by its line.
pub(super) fn rows(path: &Path, text: &str) -> Result<Vec<(usize, Row)>, Refusal> {
    let first = text.lines().next().unwrap_or_default();
    let separator = if first.matches('\t').count() > first.matches(',').count() { b'\t' } else { b',' };
    let whole = format!("{text}{END}");
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).delimiter(separator).from_reader(whole.as_bytes());
    let records: Result<Vec<StringRecord>, csv::Error> = reader.records().collect();
    let mut records = records.map_err(|error| Refusal::new(error.to_string(), "save it as UTF-8").in_file(path))?;
    if let Some(open) = records.pop().filter(|last| !last.iter().eq([END.trim()])) {
        let hint = "double the quotes inside a quoted value";
        let refusal = Refusal::new("a quote is opened and never closed", hint);
        return Err(refusal.in_line(path, line(&whole, open.position())));
    }
    let mut filled = records.iter().filter(|record| record.iter().any(|value| !value.trim().is_empty()));
    let names =
        filled.next().ok_or_else(|| Refusal::new("it is empty", "the first line names the columns").in_file(path))?;
    let names: Vec<String> = names.iter().map(str::to_string).collect();
    filled
        .map(|record| match record.len() == names.len() {
            true => Ok((line(&whole, record.position()), row(&names, record.iter().map(Value::from)))),
            false => {
                let problem = format!("{} values for {} columns", record.len(), names.len());
                let refusal = Refusal::new(problem, "quote values that hold the separator");
                Err(refusal.in_line(path, line(&whole, record.position())))
            }
        })
        .collect()
}

/// The line of a record, counted from 1. The parser's position is the one before the record, blank lines included.
fn line(text: &str, position: Option<&Position>) -> usize {
    let start = position.map_or(0, |position| position.byte() as usize);
    let blank = text[start..].len() - text[start..].trim_start_matches(['\r', '\n']).len();
    text[..start + blank].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let numbered = rows(Path::new("a.csv"), text).map_err(|refusal| refusal.to_string())?;
        Ok(numbered.into_iter().map(|(_, row)| row).collect())
    }

    #[test]
    fn quotes_hold_anything() {
        let found = read("prompt,answer\r\n\"他说，\"\"好\"\"\n走\",1\r\n\nb,2").unwrap();
        assert_eq!(
            (found.len(), &found[0]["prompt"], &found[1]["answer"]),
            (2, &"他说，\"好\"\n走".into(), &"2".into())
        );
        assert_eq!(read("a\tb\n1,x\t2").unwrap()[0]["a"], "1,x");
        assert_eq!(read("a,b\n1,\n").unwrap()[0].len(), 1, "an empty cell is absent");
        assert_eq!(read("a,b\n,\n \n1,2\n").unwrap().len(), 1, "a row of blanks is no row");
    }

    #[test]
    fn lines_are_counted_through_quotes_and_blanks() {
        for (text, expected) in [
            ("a,b\n\"1\n2\",3\n\n\n4\n", "a.csv:6: 1 values for 2 columns"),
            ("a,b\r\n1,2\r\n\r\n1,2,3\r\n", "a.csv:4: 3 values for 2 columns"),
            ("a,b\n1,2\n\n\"3,4\n5,6\n", "a.csv:4: a quote is opened and never closed"),
            ("\n\n", "a.csv: it is empty"),
            ("", "a.csv: it is empty"),
        ] {
            assert!(read(text).unwrap_err().starts_with(expected), "{text:?}: {:?}", read(text));
        }
    }
}
