//! Rows of named values from a file, whatever its format and encoding.

use std::path::Path;

use serde::Serialize;

use super::encoding::decode;
use super::row::Row;
use super::{csv, excel, json, parquet};
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
/// A file that cannot be read or holds no rows; the line where its text cannot be decoded.
pub fn read(path: &Path) -> Result<Table, Refusal> {
    let bytes = std::fs::read(path).map_err(|error| {
        Refusal::new(error.to_string(), "give the path of a JSONL, JSON, CSV, Excel or Parquet file").in_file(path)
    })?;
    let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase());
    let numbered = |rows: Vec<Row>| (1..).zip(rows).collect::<Vec<(usize, Row)>>();
    let (rows, format, encoding) = if bytes.starts_with(b"PAR1") {
        (numbered(parquet::rows(path)?), Format::Parquet, None)
    } else if bytes.starts_with(b"PK") || bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        (excel::rows(path, bytes)?, Format::Excel, None)
    } else {
        let (text, encoding) = decode(path, &bytes)?;
        match (text.trim_start().chars().next(), ending.as_str()) {
            (Some('['), _) => (numbered(json::list(path, &text)?), Format::Json, Some(encoding)),
            (Some('{'), _) | (_, "jsonl" | "json" | "ndjson") => {
                (json::lines(path, &text)?, Format::Jsonl, Some(encoding))
            }
            _ => (csv::rows(path, &text)?, Format::Csv, Some(encoding)),
        }
    };
    if rows.is_empty() {
        return Err(Refusal::new("it holds no rows", "give a file with at least one case").in_file(path));
    }
    let (places, rows): (Vec<usize>, Vec<Row>) = rows.into_iter().unzip();
    let mut columns: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    Ok(Table { rows, places, columns, format, encoding })
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
