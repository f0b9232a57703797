//! Data files: damaged ones of each format, and the worst that a few bytes can ask for.
//!
//! `ferule init` writes the rows of a file of criminal cases as they are, so its output shows what it has read.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};

use super::harness::{Attempt, Random, class};
use super::support::command;

/// Rows of a file of criminal cases.
fn rows() -> Vec<Value> {
    let text = |i: usize| format!("第{i}段，\"引文\"; the ruler, {} mm long", i * i);
    (0..12)
        .map(|i| json!({ "fact": text(i), "charges": "盗窃", "n": i * 1000, "note": format!("note {}", i % 3) }))
        .collect()
}

/// What `ferule init` finds in a file of these bytes: its findings and the rows that it keeps; none if it refuses the file.
fn read(attempt: &Attempt, name: &str, bytes: &[u8]) -> Option<(Value, Vec<Value>)> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(name), bytes).expect("a file");
    let run = attempt.run(&init(folder.path(), name), b"");
    if run.code != 0 {
        assert_eq!(run.code, 2, "{}: {}", attempt.name, run.stderr);
        assert!(run.stderr.contains(name), "{}: no name in {}", attempt.name, run.stderr);
        return None;
    }
    let cases = fs::read_to_string(folder.path().join("out.cases.jsonl")).expect("cases");
    let cases = cases.lines().map(|line| serde_json::from_str(line).expect("a case")).collect();
    Some((serde_json::from_str(&run.stdout).expect("findings"), cases))
}

fn init(folder: &Path, name: &str) -> Command {
    let mut command = command(&["init", name, "--output", "out.toml"]);
    command.current_dir(folder);
    command
}

/// The rows that `ferule init` keeps: the first with each fact.
fn kept(rows: impl IntoIterator<Item = Map<String, Value>>) -> Vec<Value> {
    let mut seen = std::collections::HashSet::new();
    let text = |row: &Map<String, Value>| match row.get("fact") {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let rows = rows.into_iter().filter(|row| !text(row).trim().is_empty() && seen.insert(text(row)));
    rows.map(Value::Object).collect()
}

/// Oracle: the rows are those that a plain reader of the same bytes finds, as long as they still are criminal cases in UTF-8.
fn same_rows(attempt: &Attempt, format: &str, found: Option<(Value, Vec<Value>)>, expected: Option<Vec<Value>>) {
    let Some((findings, cases)) = found else { return };
    if findings["layout"] == "judgment" && findings["encoding"] == "UTF-8" && findings["format"] == format {
        assert_eq!(Some(cases), expected, "{}", attempt.name);
    }
}

#[test]
fn damaged_json_lines() {
    class("JSONL", |attempt, random| {
        let mut bytes: Vec<u8> = rows().iter().flat_map(|row| format!("{row}\n").into_bytes()).collect();
        random.damage(&mut bytes);
        let lines = String::from_utf8_lossy(&bytes).into_owned();
        let objects = lines.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect();
        let objects: Result<Vec<Map<String, Value>>, _> = objects;
        same_rows(attempt, "jsonl", read(attempt, "a.jsonl", &bytes), objects.ok().map(kept));
    });
}

#[test]
fn damaged_json_lists() {
    class("JSON", |attempt, random| {
        let mut bytes = serde_json::to_vec_pretty(&rows()).expect("JSON");
        random.damage(&mut bytes);
        let list: Option<Vec<Map<String, Value>>> = serde_json::from_slice(&bytes).ok();
        same_rows(attempt, "json", read(attempt, "a.json", &bytes), list.map(kept));
    });
}

#[test]
fn damaged_csv() {
    class("CSV", |attempt, random| {
        let mut bytes = b"fact,charges,n,note\n".to_vec();
        for row in rows() {
            let text = row["fact"].as_str().expect("text").replace('"', "\"\"");
            bytes.extend(format!("\"{text}\",盗窃,{},{}\r\n", row["n"], row["note"].as_str().expect("text")).bytes());
        }
        random.damage(&mut bytes);
        let records = String::from_utf8(bytes.clone()).ok().and_then(|text| csv(&text));
        let expected = records.map(|records| {
            let mut records = records.into_iter().filter(|record| record.iter().any(|cell| !cell.trim().is_empty()));
            let names: Vec<String> = records.next().unwrap_or_default();
            let row = |cells: Vec<String>| {
                let cells = names.iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
                cells.map(|(name, cell)| (name.trim().to_string(), Value::from(cell))).collect()
            };
            kept(records.map(row))
        });
        same_rows(attempt, "csv", read(attempt, "a.csv", &bytes), expected);
    });
}

/// The records of RFC 4180, written down once more; none if a quote is never closed.
fn csv(text: &str) -> Option<Vec<Vec<String>>> {
    let mut records = vec![vec![String::new()]];
    let (mut quoted, mut at_start) = (false, true);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let record = records.last_mut()?;
        match (c, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => record.last_mut()?.extend(chars.next()),
            ('"', true) => quoted = false,
            ('"', false) if at_start => quoted = true,
            (',', false) => record.push(String::new()),
            ('\r' | '\n', false) => records.push(vec![String::new()]),
            _ => record.last_mut()?.push(c),
        }
        at_start = !quoted && matches!(c, ',' | '\r' | '\n');
    }
    (!quoted).then_some(records)
}

#[test]
fn damaged_workbooks() {
    // Oracle: the rows of the undamaged file, or a refusal: the parts of a workbook have checksums.
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    let date = rust_xlsxwriter::Format::new().set_num_format("yyyy-mm-dd");
    for (column, name) in ["fact", "n", "charges", "day"].into_iter().enumerate() {
        sheet.write(0, column as u16, name).expect("a cell");
    }
    let rows = rows();
    for (at, row) in (1..).zip(&rows) {
        sheet.write(at, 0, row["fact"].as_str().expect("text")).expect("a cell");
        sheet.write(at, 1, row["n"].as_f64().expect("a number")).expect("a cell");
        sheet.write(at, 2, row["charges"].as_str().expect("text")).expect("a cell");
        sheet.write_with_format(at, 3, 45_292.0 + f64::from(at), &date).expect("a cell");
    }
    let sound = book.save_to_buffer().expect("a workbook");
    damaged_container("Excel", "a.xlsx", &sound, |attempt, cases, undamaged| {
        assert_eq!(cases, undamaged, "{}", attempt.name);
    });
}

#[test]
fn damaged_parquet() {
    // Oracle: the number of rows and the names of columns, or a refusal: Parquet's pages have no checksums unless their
    // writer adds them.
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let sound = parquet(&rows(), compression);
        damaged_container(&format!("Parquet, {compression}"), "a.parquet", &sound, |attempt, cases, undamaged| {
            assert!(cases.len() <= undamaged.len(), "{}: {cases:?}", attempt.name);
        });
    }
}

/// Damages a file again and again and compares the rows that are read of it.
fn damaged_container(name: &str, file: &str, sound: &[u8], compare: impl Fn(&Attempt, Vec<Value>, &[Value])) {
    let mut undamaged = Vec::new();
    class(name, |attempt, random: &mut Random| {
        if undamaged.is_empty() {
            let (findings, cases) = read(attempt, file, sound).expect("a sound file");
            assert_eq!((findings["layout"].as_str(), cases.len()), (Some("judgment"), 12));
            undamaged = cases;
        }
        let mut bytes = sound.to_vec();
        random.damage(&mut bytes);
        if let Some((findings, cases)) = read(attempt, file, &bytes) {
            assert_eq!(findings["rows"], undamaged.len(), "{}", attempt.name);
            compare(attempt, cases, &undamaged);
        }
    });
}

fn parquet(rows: &[Value], compression: Compression) -> Vec<u8> {
    let text =
        |name: &str| -> ArrayRef { Arc::new(rows.iter().map(|row| row[name].as_str()).collect::<StringArray>()) };
    let numbers: Int64Array = rows.iter().map(|row| row["n"].as_i64()).collect();
    let shares: Float32Array = rows.iter().map(|row| row["n"].as_f64().map(|n| (n / 7.0) as f32)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("fact", text("fact")),
        ("charges", text("charges")),
        ("n", Arc::new(numbers)),
        ("note", text("note")),
        ("share", Arc::new(shares)),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    bytes
}
