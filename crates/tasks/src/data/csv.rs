//! Rows from values separated by commas, tabs or semicolons, following RFC 4180: quoted values may contain separators,
//! line breaks and doubled quotes. The first row names the columns.

use std::io::Read;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde_json::Value;

use super::row::{Each, column_names, row};
use crate::refusal::Refusal;

/// A record that is read after the text. The parser ends a quote that is never closed at the end of the file; then this
/// record is part of the quoted value, which shows the fault.
const END: &str = "\n\u{3}\n";

/// Gives the rows with their line numbers.
///
/// # Errors
/// An empty file, two columns of one name, a quote that is never closed, and a row with more or fewer values than there
/// are columns or that `each` refuses, by its line.
pub(super) fn rows(path: &Path, text: &str, each: &mut Each) -> Result<(), Refusal> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator(text))
        .from_reader(text.as_bytes().chain(END.as_bytes()));
    let mut lines = Lines { text, at: 0, line: 1 };
    let mut names: Option<Vec<String>> = None;
    // Each record is used when the one behind it has been read: the last one is the end's.
    let (mut record, mut next) = (StringRecord::new(), StringRecord::new());
    loop {
        let more = reader
            .read_record(&mut next)
            .map_err(|error| Refusal::new(error.to_string(), "save it as UTF-8").in_file(path))?;
        if !more {
            break;
        }
        std::mem::swap(&mut record, &mut next);
        if next.iter().all(|value| value.trim().is_empty()) {
            continue;
        }
        let line = lines.of(&next);
        match &names {
            None => {
                let found = column_names(next.iter().map(str::to_string));
                names = Some(found.map_err(|refusal| refusal.in_line(path, line))?);
            }
            Some(names) if names.len() == next.len() => {
                let row = row(names.iter().zip(next.iter().map(Value::from)));
                each(line, row).map_err(|refusal| refusal.in_line(path, line))?;
            }
            Some(names) => {
                let problem = format!("{} values for {} columns", next.len(), names.len());
                return Err(Refusal::new(problem, "quote values that hold the separator").in_line(path, line));
            }
        }
    }
    if !record.iter().eq([END.trim()]) {
        let refusal = Refusal::new("a quote is opened and never closed", "double the quotes inside a quoted value");
        return Err(refusal.in_line(path, lines.of(&record)));
    }
    match names {
        Some(_) => Ok(()),
        None => Err(Refusal::new("it is empty", "the first line names the columns").in_file(path)),
    }
}

/// The separator that the line of names has most often outside quotes; the comma unless another is more frequent.
fn separator(text: &str) -> u8 {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let bare: String = line.split('"').step_by(2).collect();
    // Of equal counts, `max_by_key` takes the last.
    [b';', b'\t', b','].into_iter().max_by_key(|separator| bare.matches(char::from(*separator)).count()).unwrap_or(b',')
}

/// Counts lines up to a record.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of a record behind those that were asked for, counted from 1. The parser's position is the one before
    /// the record, blank lines included.
    fn of(&mut self, record: &StringRecord) -> usize {
        let position = record.position().map_or(0, |position| position.byte() as usize);
        let start = position + self.text[position..].bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += self.text[self.at..start].matches('\n').count();
        self.at = start;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::row::Row;

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let mut found = Vec::new();
        let mut each = |_, row| {
            found.push(row);
            Ok(())
        };
        rows(Path::new("a.csv"), text, &mut each).map_err(|refusal| refusal.to_string())?;
        Ok(found)
    }

    #[test]
    fn quotes_hold_anything() {
        let found = read("prompt,answer\r\n\"他说，\"\"好\"\"\n走\",1\r\n\nb,2").unwrap();
        assert_eq!(
            (found.len(), &found[0]["prompt"], &found[1]["answer"]),
            (2, &"他说，\"好\"\n走".into(), &"2".into())
        );
        assert_eq!(read("a,b\n1,\n").unwrap()[0].len(), 1, "an empty cell is absent");
        assert_eq!(read("a,b\n,\n \n1,2\n").unwrap().len(), 1, "a row of blanks is no row");
    }

    #[test]
    fn the_separator_is_the_one_that_divides_the_names() {
        for (text, first) in [
            ("a\tb\n1,x\t2", "1,x"),
            ("a;b\n1,5;2", "1,5"),
            ("\na,b\n1;2;3,4", "1;2;3"),
            ("a,\"x;y;z\"\n1;5,2", "1;5"),
            ("a\n1;2", "1;2"),
        ] {
            assert_eq!(read(text).unwrap()[0]["a"], first, "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_through_quotes_and_blanks() {
        for (text, expected) in [
            ("a,b\n\"1\n2\",3\n\n\n4\n", "a.csv:6: 1 values for 2 columns"),
            ("a,b\r\n1,2\r\n\r\n1,2,3\r\n", "a.csv:4: 3 values for 2 columns"),
            ("a,b\n1,2\n\n\"3,4\n5,6\n", "a.csv:4: a quote is opened and never closed"),
            ("\n\na,b,a\n", "a.csv:3: two columns are named `a`"),
            ("\n\n", "a.csv: it is empty"),
            ("", "a.csv: it is empty"),
            ("\"", "a.csv:1: a quote is opened"),
        ] {
            assert!(read(text).unwrap_err().starts_with(expected), "{text:?}: {:?}", read(text));
        }
    }
}
