//! Rows of named values from a file, whatever its format and encoding.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;

use super::container::{self, Container};
use super::encoding::decode;
use super::limits::{self, Budget};
use super::row::{Each, Row, too_many_columns};
use super::{csv, file, json};
use crate::refusal::Refusal;

/// The rows of a file.
#[derive(Debug, Clone)]
pub struct Table {
    /// The rows in the file's order.
    pub rows: Vec<Row>,
    /// Where each row begins, counted from 1: its line; for Excel its row in the sheet; for a JSON list and Parquet its
    /// index.
    pub places: Vec<usize>,
    /// Every column that any row has, in order of appearance.
    pub columns: Vec<String>,
    /// The file's format.
    pub format: Format,
    /// The text's encoding; none for Excel and Parquet.
    pub encoding: Option<&'static str>,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// One JSON list of objects.
    Json,
    /// Values separated by commas or tabs; the first line names them.
    Csv,
    /// The first sheet of a workbook; its first row names the columns.
    Excel,
    /// Parquet.
    Parquet,
}

/// Reads a file. Its first bytes and the ending of its name determine the format.
///
/// # Errors
/// A file that cannot be read, is above the [limits] or holds no rows; the line where its text cannot be decoded.
pub fn read(path: &Path) -> Result<Table, Refusal> {
    let bytes = file::read(path).map_err(|error| {
        Refusal::new(error.to_string(), "give the path of a JSONL, JSON, CSV, Excel or Parquet file").in_file(path)
    })?;
    from_bytes(path, bytes)
}

/// As [`read`], for a file of these bytes.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Table, Refusal> {
    let mut rows = Rows::new(Budget::new(bytes.len() as u64));
    let each: &mut Each = &mut |place, row| rows.push(place, row);
    let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase());
    let (format, encoding) = if let Some(container) = Container::of(&bytes) {
        container::rows(container, bytes, each).map_err(|refusal| refusal.in_file(path))?;
        match container {
            Container::Excel => (Format::Excel, None),
            Container::Parquet => (Format::Parquet, None),
        }
    } else {
        let (text, encoding) = decode(path, bytes)?;
        let format = match (text.trim_start().chars().next(), ending.as_str()) {
            (Some('['), _) => Format::Json,
            (Some('{'), _) | (_, "jsonl" | "json" | "ndjson") => Format::Jsonl,
            _ => Format::Csv,
        };
        match format {
            Format::Json => json::list(path, &text, each)?,
            Format::Jsonl => json::lines(path, &text, each)?,
            _ => csv::rows(path, &text, each)?,
        }
        (format, Some(encoding))
    };
    if rows.rows.is_empty() {
        return Err(Refusal::new("it holds no rows", "give a file with at least one case").in_file(path));
    }
    let Rows { rows, places, columns, .. } = rows;
    Ok(Table { rows, places, columns, format, encoding })
}

/// The rows found so far.
struct Rows {
    budget: Budget,
    rows: Vec<Row>,
    places: Vec<usize>,
    columns: Vec<String>,
    known: HashSet<String>,
}

impl Rows {
    fn new(budget: Budget) -> Rows {
        Rows { budget, rows: Vec::new(), places: Vec::new(), columns: Vec::new(), known: HashSet::new() }
    }

    fn push(&mut self, place: usize, row: Row) -> Result<(), Refusal> {
        self.budget.take(&row)?;
        for name in row.keys() {
            if !self.known.contains(name) {
                self.known.insert(name.clone());
                self.columns.push(name.clone());
            }
        }
        if self.columns.len() > limits::COLUMNS {
            return Err(too_many_columns());
        }
        self.rows.push(row);
        self.places.push(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn text_formats_and_encodings_are_told_apart() {
        let table = file("a.csv", "prompt,answer\r\n他说,1\r\nb,2".as_bytes()).unwrap();
        assert_eq!((table.format, table.rows.len(), table.encoding), (Format::Csv, 2, Some("UTF-8")));
        let (gb, _, _) =
            encoding_rs::GB18030.encode("{\"prompt\": \"成语\"}\n{\"prompt\": \"接龙\", \"answer\": \"x\"}");
        let table = file("a.jsonl", &gb).unwrap();
        assert_eq!((table.encoding, table.columns.join(" ")), (Some("GB18030"), "prompt answer".to_string()));
        assert_eq!(table.rows[1]["prompt"], "接龙");
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("a\tb\n1\t2".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let table = file("a.txt", &utf16).unwrap();
        assert_eq!((table.encoding, table.rows[0]["b"].as_str()), (Some("UTF-16LE"), Some("2")));
        assert_eq!(file("a.json", b"[{\"prompt\": \"a\"}]").unwrap().format, Format::Json);
    }

    #[test]
    fn what_breaks_is_named_by_line() {
        let check = |name: &str, bytes: &[u8], part: &str| {
            let error = file(name, bytes).unwrap_err();
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        };
        check("a.jsonl", b"{\"a\": 1}\n{\"a\": ", "a.jsonl:2: no JSON");
        check("a.csv", b"a,b\n1,2\n3\n", "a.csv:3: 1 values for 2 columns");
        check("a.csv", b"a,b\n1,2\n\"3,4\n", "a.csv:3: a quote is opened");
        check("a.jsonl", b"{}\n\x00\x01\x02", "a.jsonl:2: a zero byte");
        check("a.csv", b"a,b\n\xff\xff,2\n", "a.csv:2: neither UTF-8 nor GB18030");
        check("a.jsonl", b"", "no rows");
        check("a.xlsx", b"PK\x03\x04 nothing", "no workbook");
        check("a.parquet", b"PAR1 nothing", "no Parquet");
    }
}
