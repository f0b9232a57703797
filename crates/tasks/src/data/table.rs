//! Rows of named values from a file, whatever its format and encoding.

use super::{InspectError, cells};
use calamine::{Data, Reader};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// One row: column to value. Missing cells are absent.
pub type Row = Map<String, Value>;

/// The rows of a file.
#[derive(Debug, Clone)]
pub struct Table {
    /// In the file's order.
    pub rows: Vec<Row>,
    /// Every column that any row has, in order of appearance.
    pub columns: Vec<String>,
    /// What the file is.
    pub format: Format,
    /// How its text is written; none for Excel and Parquet.
    pub encoding: Option<&'static str>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// One JSON list of objects.
    Json,
    /// Values parted by commas or tabs, the first line naming them.
    Csv,
    /// A workbook; its first sheet, the first row naming the columns.
    Excel,
    /// Parquet.
    Parquet,
}

/// Reads a file. The format follows from its first bytes and its name's ending.
///
/// # Errors
/// As [`super::inspect`].
pub fn read(path: &Path) -> Result<Table, InspectError> {
    let bytes = std::fs::read(path).map_err(|source| InspectError::Read { path: path.to_path_buf(), source })?;
    let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase());
    let (rows, format, encoding) = if bytes.starts_with(b"PAR1") {
        (cells::parquet(path)?, Format::Parquet, None)
    } else if bytes.starts_with(b"PK") || bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        (excel(path, bytes)?, Format::Excel, None)
    } else {
        let (text, encoding) = decode(path, &bytes)?;
        match (text.trim_start().chars().next(), ending.as_str()) {
            (Some('['), _) => (json_list(path, &text)?, Format::Json, Some(encoding)),
            (Some('{'), _) | (_, "jsonl" | "json" | "ndjson") => {
                let rows = json_lines(path, &text)?.into_iter().map(|(_, row)| row).collect();
                (rows, Format::Jsonl, Some(encoding))
            }
            _ => (csv(path, &text)?, Format::Csv, Some(encoding)),
        }
    };
    if rows.is_empty() {
        return Err(whole(path, "it holds no rows", "give a file with at least one case"));
    }
    let mut columns: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    Ok(Table { rows, columns, format, encoding })
}

pub(super) fn whole(path: &Path, problem: impl Into<String>, hint: &str) -> InspectError {
    InspectError::File { path: path.to_path_buf(), problem: problem.into(), hint: hint.to_string() }
}

fn at(path: &Path, line: usize, problem: impl Into<String>, hint: &str) -> InspectError {
    InspectError::Line { path: path.to_path_buf(), line, problem: problem.into(), hint: hint.to_string() }
}

/// Text in UTF-8, in UTF-16 with a byte order mark, or in GB18030.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<(String, &'static str), InspectError> {
    if let Some((encoding, mark)) = encoding_rs::Encoding::for_bom(bytes) {
        let (text, wrong) = encoding.decode_without_bom_handling(&bytes[mark..]);
        return match wrong {
            false => Ok((text.into_owned(), encoding.name())),
            true => Err(whole(path, format!("it begins like {} and is not", encoding.name()), "save it as UTF-8")),
        };
    }
    let error = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => return Ok((text.to_string(), "UTF-8")),
        Ok(text) => text.find('\0').unwrap_or(0),
        Err(error) => error.valid_up_to(),
    };
    let line = bytes[..error].iter().filter(|byte| **byte == b'\n').count() + 1;
    if bytes.contains(&0) {
        return Err(at(path, line, "a zero byte: the file is binary", "give JSONL, JSON, CSV, Excel or Parquet"));
    }
    match encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(text) => Ok((text.into_owned(), "GB18030")),
        None => Err(at(path, line, "neither UTF-8 nor GB18030", "save it as UTF-8")),
    }
}

/// The rows with the numbers of their lines.
pub(super) fn json_lines(path: &Path, text: &str) -> Result<Vec<(usize, Row)>, InspectError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| match serde_json::from_str(line) {
            Ok(Value::Object(row)) => Ok((index + 1, row)),
            Ok(_) => Err(at(path, index + 1, "not an object", "every line is one JSON object")),
            Err(error) => Err(at(path, index + 1, format!("no JSON: {error}"), "every line is one JSON object")),
        })
        .collect()
}

fn json_list(path: &Path, text: &str) -> Result<Vec<Row>, InspectError> {
    serde_json::from_str(text).map_err(|error| {
        at(path, error.line(), format!("no list of JSON objects: {error}"), "mend the line, or write one object a line")
    })
}

/// RFC 4180: quotes may hold separators, line breaks and doubled quotes. Commas, or tabs if the first line has more of them.
fn csv(path: &Path, text: &str) -> Result<Vec<Row>, InspectError> {
    let first = text.lines().next().unwrap_or_default();
    let separator = if first.matches('\t').count() > first.matches(',').count() { '\t' } else { ',' };
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut line, mut opened) = (false, 1, 1);
    let mut begun = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => (quoted, opened) = (true, line),
            _ if quoted => field.push(c),
            _ if c == separator => record.push(std::mem::take(&mut field)),
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push((begun, std::mem::take(&mut record)));
                begun = line;
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(at(path, opened, "a quote is opened and never closed", "double the quotes inside a quoted value"));
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push((begun, record));
    }
    let mut records = records.into_iter().filter(|(_, record)| record.iter().any(|field| !field.trim().is_empty()));
    let (_, names) = records.next().ok_or_else(|| whole(path, "it is empty", "the first line names the columns"))?;
    records
        .map(|(line, record)| match record.len() == names.len() {
            true => Ok(row(&names, record.into_iter().map(Value::String))),
            false => {
                let problem = format!("{} values for {} columns", record.len(), names.len());
                Err(at(path, line, problem, "quote values that hold the separator"))
            }
        })
        .collect()
}

/// Pairs names with values; empty cells are left out.
pub(super) fn row(names: &[String], values: impl Iterator<Item = Value>) -> Row {
    let filled = |value: &Value| !value.is_null() && value.as_str() != Some("");
    names.iter().map(|name| name.trim().to_string()).zip(values).filter(|(_, value)| filled(value)).collect()
}

fn excel(path: &Path, bytes: Vec<u8>) -> Result<Vec<Row>, InspectError> {
    let hint = "save the sheet with the cases as the first one, as .xlsx or .csv";
    let mut book = calamine::open_workbook_auto_from_rs(std::io::Cursor::new(bytes))
        .map_err(|error| whole(path, format!("no workbook: {error}"), hint))?;
    let name = book.sheet_names().first().cloned().ok_or_else(|| whole(path, "a workbook without sheets", hint))?;
    let sheet = book.worksheet_range(&name).map_err(|error| whole(path, format!("sheet {name}: {error}"), hint))?;
    let mut rows = sheet.rows();
    let names: Vec<String> = rows.next().unwrap_or_default().iter().map(|cell| cell.to_string()).collect();
    Ok(rows.map(|cells| row(&names, cells.iter().map(cell))).filter(|row| !row.is_empty()).collect())
}

fn cell(data: &Data) -> Value {
    match data {
        Data::Empty | Data::Error(_) => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Int(value) => Value::from(*value),
        // Excel keeps whole numbers as floats.
        Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Value::from(*value as i64),
        Data::Float(value) => Value::from(*value),
        other => Value::String(other.to_string()),
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
        let table = file("a.csv", "prompt,answer\r\n\"他说，\"\"好\"\"\n走\",1\r\n\nb,2".as_bytes()).unwrap();
        assert_eq!((table.format, table.rows.len(), table.encoding), (Format::Csv, 2, Some("UTF-8")));
        assert_eq!(table.rows[0]["prompt"], "他说，\"好\"\n走");
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

    #[test]
    fn excel_numbers_are_whole_where_they_are() {
        assert_eq!(cell(&Data::Float(36.0)), Value::from(36));
        assert_eq!(cell(&Data::Float(0.5)), Value::from(0.5));
        assert_eq!(cell(&Data::Empty), Value::Null);
    }
}
