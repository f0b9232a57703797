//! Rows from the first sheet of a workbook; its first row names the columns. Dates and times become ISO 8601 text.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{Cursor, Read};

use bytes::Bytes;
use calamine::{CellErrorType, Data, ExcelDateTime, Reader, Sheets};
use serde_json::Value;

use super::limits;
use super::row::{Each, column_names, number, row, too_many_columns};
use crate::refusal::Refusal;

/// Gives the rows with their row numbers in the sheet.
///
/// # Errors
/// Bytes that are not a workbook; a workbook without a sheet; two columns of one name; a row that `each` refuses.
pub(super) fn rows(bytes: Bytes, each: &mut Each) -> Result<(), Refusal> {
    let bad =
        |problem: String| Refusal::new(problem, "save the sheet with the cases as the first one, as .xlsx or .csv");
    if bytes.starts_with(b"PK") {
        sound(&bytes).map_err(bad)?;
    }
    let mut book = calamine::open_workbook_auto_from_rs(Cursor::new(bytes))
        .map_err(|error| bad(format!("no workbook: {error}")))?;
    let name = book.sheet_names().first().cloned().ok_or_else(|| bad("a workbook without sheets".into()))?;
    let mut sheet = Sheet { names: None, at: None, cells: Vec::new(), each };
    // Cells of .xlsx are read one by one: a whole sheet would take memory for each place in its extent.
    if let Sheets::Xlsx(book) = &mut book {
        let wrong = |error| bad(format!("sheet {name}: {error}"));
        let mut cells = book.worksheet_cells_reader(&name).map_err(wrong)?;
        while let Some(cell) = cells.next_cell().map_err(wrong)? {
            sheet.cell(cell.get_position(), &cell.get_value().clone().into())?;
        }
    } else {
        let range = book.worksheet_range(&name).map_err(|error| bad(format!("sheet {name}: {error}")))?;
        let (row, column) = range.start().unwrap_or_default();
        for (below, right, data) in range.used_cells() {
            sheet.cell((row + below as u32, column + right as u32), data)?;
        }
    }
    sheet.end_row()
}

/// Unpacks a ZIP archive once, which compares the checksums of its parts, and checks that it has all the parts that it
/// lists. The reader of workbooks does neither: it would take a damaged cell for another, and a number for a date if
/// the part with the styles is missing.
///
/// # Errors
/// The first part that is damaged or missing; an archive that expands beyond the limit.
fn sound(bytes: &Bytes) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("no workbook: {error}"))?;
    let most = limits::expanded(bytes.len() as u64);
    let (mut names, mut contents, mut expanded) = (HashSet::new(), String::new(), 0);
    for index in 0..archive.len() {
        let damaged = |error: &dyn Display| format!("a damaged part: {error}");
        let part = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = plain(&part.name().map_err(|error| damaged(&error))?);
        let mut part = part.take(most + 1 - expanded);
        expanded += match name == CONTENTS {
            true => part.read_to_string(&mut contents).map(|length| length as u64),
            false => std::io::copy(&mut part, &mut std::io::sink()),
        }
        .map_err(|error| damaged(&error))?;
        if expanded > most {
            return Err(format!("it expands to more than {} MiB", most >> 20));
        }
        names.insert(name);
    }
    let is_office = names.iter().any(|name| name.starts_with("xl/"));
    let listed = contents.split("PartName=\"/").skip(1).filter_map(|rest| rest.split('"').next());
    let mut needed = is_office.then_some(CONTENTS).into_iter().chain(listed).map(plain);
    match needed.find(|name| !names.contains(name)) {
        Some(name) => Err(format!("its part {name} is missing")),
        None => Ok(()),
    }
}

/// The part that lists the others, as [`plain`] writes it.
const CONTENTS: &str = "[content_types].xml";

/// Names of parts do not depend on case, and some writers separate folders as Windows does.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('\\', "/")
}

/// Gathers the cells of a row.
struct Sheet<'a, 'b> {
    /// Names of the columns from the sheet's first one; none before the first row.
    names: Option<Vec<String>>,
    /// Row and column of the last cell.
    at: Option<(u32, u32)>,
    cells: Vec<(usize, Value)>,
    each: &'a mut Each<'b>,
}

impl Sheet<'_, '_> {
    fn cell(&mut self, at: (u32, u32), data: &Data) -> Result<(), Refusal> {
        if self.at >= Some(at) {
            let problem = format!("row {}: cells that are not in order", at.0 + 1);
            return Err(Refusal::new(problem, "open it in a spreadsheet program and save it again"));
        }
        if at.1 as usize >= limits::COLUMNS {
            return Err(too_many_columns());
        }
        if self.at.is_some_and(|(row, _)| row != at.0) {
            self.end_row()?;
        }
        self.at = Some(at);
        match value(data) {
            Value::Null => {}
            value => self.cells.push((at.1 as usize, value)),
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<(), Refusal> {
        let cells = std::mem::take(&mut self.cells);
        let (Some((index, _)), Some((last, _))) = (self.at, cells.last()) else { return Ok(()) };
        // Row numbers of a sheet count from 1.
        let number = index as usize + 1;
        let Some(names) = &mut self.names else {
            let mut names = vec![String::new(); last + 1];
            for (column, value) in &cells {
                names[*column] = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            }
            self.names = Some(column_names(names.into_iter()).map_err(|refusal| in_row(number, refusal))?);
            return Ok(());
        };
        names.extend((names.len()..=*last).map(|column| format!("column {}", column + 1)));
        let row = row(cells.into_iter().map(|(column, value)| (&names[column], value)));
        match row.is_empty() {
            true => Ok(()),
            false => (self.each)(number, row).map_err(|refusal| in_row(number, refusal)),
        }
    }
}

fn in_row(number: usize, refusal: Refusal) -> Refusal {
    refusal.in_key(format!("row {number}"))
}

fn value(data: &Data) -> Value {
    match data {
        // What a lookup has not found is missing; any other fault of a formula is shown as the sheet shows it.
        Data::Empty | Data::Error(CellErrorType::NA) => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Int(value) => Value::from(*value),
        // Excel stores whole numbers as floats.
        Data::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Value::from(*value as i64),
        Data::Float(value) => number(*value),
        Data::DateTime(value) => Value::String(iso(value)),
        other => Value::String(other.to_string()),
    }
}

/// A date, a time, both, or a duration, in ISO 8601. Excel counts days, and a time is a part of a day.
fn iso(stored: &ExcelDateTime) -> String {
    let (year, month, day, hour, minute, second, milli) = stored.to_ymd_hms_milli();
    let fraction = if milli == 0 { String::new() } else { format!(".{milli:03}") };
    let days = stored.as_f64();
    let time = format!("{hour:02}:{minute:02}:{second:02}{fraction}");
    match () {
        () if stored.is_duration() => {
            let milliseconds = (days * 86_400_000.0).round();
            let sign = if milliseconds < 0.0 { "-" } else { "" };
            let seconds = (milliseconds.abs() / 1000.0).trunc();
            let fraction = milliseconds.abs() % 1000.0;
            let fraction = if fraction == 0.0 { String::new() } else { format!(".{fraction:03}") };
            format!(
                "{sign}PT{}H{}M{}{fraction}S",
                (seconds / 3600.0).trunc(),
                (seconds / 60.0).trunc() % 60.0,
                seconds % 60.0
            )
        }
        () if days < 1.0 => time,
        () if (hour, minute, second, milli) == (0, 0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
        () => format!("{year:04}-{month:02}-{day:02}T{time}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamine::ExcelDateTimeType;

    #[test]
    fn numbers_are_whole_where_they_are() {
        assert_eq!(value(&Data::Float(36.0)), Value::from(36));
        assert_eq!(value(&Data::Float(0.5)), Value::from(0.5));
        assert_eq!(value(&Data::Empty), Value::Null);
        assert_eq!(value(&Data::Error(CellErrorType::Div0)), Value::from("#DIV/0!"));
    }

    #[test]
    fn dates_and_times_are_text() {
        let date = |days, kind| value(&Data::DateTime(ExcelDateTime::new(days, kind, false)));
        for (days, expected) in [
            (45292.0, "2024-01-01"),
            (45292.5, "2024-01-01T12:00:00"),
            (1.0 / 3.0, "08:00:00"),
            (45943.541, "2025-10-13T12:59:02.400"),
        ] {
            assert_eq!(date(days, ExcelDateTimeType::DateTime), Value::from(expected));
        }
        assert_eq!(date(1.0 + 2.5 / 24.0, ExcelDateTimeType::TimeDelta), Value::from("PT26H30M0S"));
    }

    #[test]
    fn rows_keep_their_numbers_and_columns() {
        let mut found = Vec::new();
        let mut each = |number, row| {
            found.push((number, Value::Object(row)));
            Ok(())
        };
        let mut sheet = Sheet { names: None, at: None, cells: Vec::new(), each: &mut each };
        let text = |text: &str| Data::String(text.to_string());
        for (at, data) in [
            ((1, 1), text("a")),
            ((1, 3), text("c")),
            ((2, 1), text("")),
            ((4, 1), text("x")),
            ((1_048_575, 16_383), Data::Int(7)),
        ] {
            sheet.cell(at, &data).unwrap();
        }
        sheet.end_row().unwrap();
        let error = sheet.cell((3, 0), &Data::Int(1)).unwrap_err();
        assert_eq!(error.problem, "row 4: cells that are not in order");
        let expected = [(5, serde_json::json!({ "a": "x" })), (1_048_576, serde_json::json!({ "column 16384": 7 }))];
        assert_eq!(found, expected);
    }
}
