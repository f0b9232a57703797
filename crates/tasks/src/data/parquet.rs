//! Rows from Parquet, each cell as a JSON value. Dates, times and decimals become text.

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time64MicrosecondType, Time64NanosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};

use super::limits;
use super::row::{Each, column_names, number, row};
use crate::refusal::Refusal;

/// Rows that are decoded at a time.
const BATCH: usize = 256;

/// Gives the rows with their index, counted from 1.
///
/// # Errors
/// Bytes that are not Parquet; a compression that is not supported; another number of rows than the file says; a column
/// that cannot be read, by its name; a row that `each` refuses.
pub(super) fn rows(bytes: Bytes, each: &mut Each) -> Result<(), Refusal> {
    let hint = "write the file again";
    let bad = |problem: String| Refusal::new(problem, hint);
    let wrong = |error: &dyn std::fmt::Display| bad(format!("no Parquet that can be read: {error}"));
    // Without Arrow's own schema each column has the type that it has in Parquet, whoever wrote the file.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
        .map_err(|error: ParquetError| wrong(&error))?;
    let claimed = builder.metadata().file_metadata().num_rows();
    if usize::try_from(claimed).is_ok_and(|rows| rows > limits::ROWS) {
        let problem = format!("its footer says {claimed} rows, more than {}", limits::ROWS);
        return Err(Refusal::new(problem, "split the file into several"));
    }
    compressions(builder.metadata())?;
    let names = column_names(builder.schema().fields().iter().map(|field| field.name().clone()))?;
    let mut index = 0;
    for batch in builder.with_batch_size(BATCH).build().map_err(|error| wrong(&error))? {
        let batch = batch.map_err(|error| wrong(&error))?;
        for at in 0..batch.num_rows() {
            index += 1;
            let cells = names.iter().zip(batch.columns()).map(|(name, column)| {
                value(column, at).map(|value| (name, value)).map_err(|problem| {
                    let hint = "leave out the column, or write it as text or as numbers";
                    Refusal::new(problem, hint).in_key(name)
                })
            });
            let cells: Vec<(&String, Value)> = cells.collect::<Result<_, Refusal>>()?;
            each(index, row(cells.into_iter())).map_err(|refusal| refusal.in_key(format!("row {index}")))?;
        }
    }
    match i64::try_from(index) == Ok(claimed) {
        true => Ok(()),
        false => Err(bad(format!("its footer says {claimed} rows, and its pages hold {index}"))),
    }
}

/// # Errors
/// The first column whose compression is not supported.
fn compressions(metadata: &ParquetMetaData) -> Result<(), Refusal> {
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let compression = column.compression();
        if !matches!(compression, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_)) {
            let problem = format!("it is compressed with {compression}");
            let hint = "write the file with Snappy, for example `df.to_parquet(path, compression=\"snappy\")`";
            return Err(Refusal::new(problem, hint).in_key(column.column_path().string()));
        }
    }
    Ok(())
}

/// One cell.
///
/// # Errors
/// A type or a value that has no text.
fn value(column: &dyn Array, at: usize) -> Result<Value, String> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Utf8 => column.as_string::<i32>().value(at).into(),
        DataType::Binary => text(column.as_binary::<i32>().value(at))?,
        DataType::FixedSizeBinary(_) => text(column.as_fixed_size_binary().value(at))?,
        DataType::Boolean => column.as_boolean().value(at).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(at).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(at).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(at).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(at).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(at).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(at).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(at).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Float16 => float16(column.as_primitive::<Float16Type>().value(at)),
        DataType::Float32 => float32(column.as_primitive::<Float32Type>().value(at)),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(at).into(),
        DataType::Decimal256(..) => column.as_primitive::<Decimal256Type>().value_as_string(at).into(),
        DataType::Date32 => iso(column.as_primitive::<Date32Type>().value_as_date(at))?.into(),
        DataType::Time32(TimeUnit::Millisecond) => {
            iso(column.as_primitive::<Time32MillisecondType>().value_as_time(at))?.into()
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            iso(column.as_primitive::<Time64MicrosecondType>().value_as_time(at))?.into()
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            iso(column.as_primitive::<Time64NanosecondType>().value_as_time(at))?.into()
        }
        DataType::Timestamp(unit, zone) => {
            let time = match unit {
                TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value_as_datetime(at),
                TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value_as_datetime(at),
                TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value_as_datetime(at),
                TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value_as_datetime(at),
            };
            // A time with a zone is stored in UTC.
            Value::String(iso(time)? + if zone.is_some() { "Z" } else { "" })
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(at))?,
        DataType::Map(..) => map(&column.as_map().value(at))?,
        DataType::Struct(_) => {
            let inner = column.as_struct();
            let names: Vec<String> = inner.column_names().into_iter().map(str::to_string).collect();
            let cells: Vec<Value> = inner.columns().iter().map(|column| value(column, at)).collect::<Result<_, _>>()?;
            Value::Object(row(names.iter().zip(cells)))
        }
        other => return Err(format!("columns of type {other} are not read")),
    })
}

/// Bytes that are text, though the file does not say so.
fn text(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_| "it holds bytes that are no UTF-8 text".to_string())
}

/// The shortest decimal number that is stored as this one: 0.1, and not 0.10000000149011612. Whole numbers are exact.
fn float32(value: f32) -> Value {
    let wide = f64::from(value);
    number(if is_whole(wide) { wide } else { value.to_string().parse().unwrap_or(wide) })
}

/// As [`float32`]. Five digits tell any two apart.
fn float16(value: <Float16Type as ArrowPrimitiveType>::Native) -> Value {
    let wide = value.to_f64();
    let mut shorter = (0..5).filter(|_| !is_whole(wide)).filter_map(|digits| format!("{wide:.digits$e}").parse().ok());
    number(shorter.find(|short| value == <Float16Type as ArrowPrimitiveType>::Native::from_f64(*short)).unwrap_or(wide))
}

fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < 1e15
}

/// A date, a time or both in ISO 8601, which is chrono's `Debug`.
fn iso(value: Option<impl std::fmt::Debug>) -> Result<String, String> {
    value
        .map(|value| format!("{value:?}"))
        .ok_or_else(|| "it holds a time beyond the years of the calendar".to_string())
}

fn list(values: &dyn Array) -> Result<Value, String> {
    (0..values.len()).map(|at| value(values, at)).collect()
}

/// Pairs of name and value.
fn map(entries: &StructArray) -> Result<Value, String> {
    let mut object = Map::new();
    for at in 0..entries.len() {
        let name = match value(entries.column(0), at)? {
            Value::String(name) => name,
            other => other.to_string(),
        };
        object.insert(name, value(entries.column(1), at)?);
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::inspect;
    use crate::data::table::Format;
    use arrow::array::{ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder};
    use arrow::datatypes::{DataType, Field, Fields};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    #[test]
    fn parquet_with_messages_is_read() {
        let fields =
            Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]);
        let mut turns = ListBuilder::new(StructBuilder::from_fields(fields, 4));
        for (role, content) in [("user", "问"), ("assistant", "答")] {
            let turn = turns.values();
            for (place, text) in [role, content].into_iter().enumerate() {
                turn.field_builder::<StringBuilder>(place).unwrap().append_value(text);
            }
            turn.append(true);
        }
        turns.append(true);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("messages", Arc::new(turns.finish())),
            ("source", Arc::new(StringArray::from(vec![None::<&str>]))),
            ("score", Arc::new(Int64Array::from(vec![7]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let inspection = inspect(&path).unwrap();
        assert_eq!(inspection.findings.format, Format::Parquet);
        assert_eq!(inspection.cases[0]["messages"][1]["content"], "答");
        assert_eq!(inspection.findings.demonstrations, 1);
        let names: Vec<&str> = inspection.findings.columns.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["messages", "score"], "a column that is never filled does not appear");
    }

    #[test]
    fn floats_are_as_they_were_written() {
        for (stored, expected) in [(0.1, 0.1), (123_456_792.0, 123_456_792.0), (3.4e38, 3.4e38), (1e-45, 1e-45)] {
            assert_eq!(float32(stored), Value::from(expected));
        }
        for (stored, expected) in [(0.1, 0.1), (65504.0, 65504.0), (1.5, 1.5)] {
            assert_eq!(float16(<Float16Type as ArrowPrimitiveType>::Native::from_f64(stored)), Value::from(expected));
        }
        assert_eq!((float32(f32::NAN), float32(f32::INFINITY)), (Value::Null, Value::from("inf")));
    }

    #[test]
    fn bytes_that_are_text_are_read_and_others_refused() {
        let file = |cell: &[u8]| {
            let columns: Vec<(&str, ArrayRef)> = vec![("a", Arc::new(arrow::array::BinaryArray::from(vec![cell])))];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let mut found = Vec::new();
            let mut each = |_, row| {
                found.push(Value::Object(row));
                Ok(())
            };
            rows(bytes.into(), &mut each).map(|()| found)
        };
        assert_eq!(file("卷宗".as_bytes()).unwrap(), [serde_json::json!({ "a": "卷宗" })]);
        let error = file(b"\xff").unwrap_err().to_string();
        assert!(error.starts_with("a: it holds bytes that are no UTF-8 text\nhint: "), "{error}");
    }
}
