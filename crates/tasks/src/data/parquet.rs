//! Rows from Parquet, each cell as a JSON value.

use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatchReader};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::row::{Row, row};
use crate::refusal::Refusal;

/// # Errors
/// Bytes that are not Parquet, or a compression that was not compiled in.
pub(super) fn rows(path: &Path) -> Result<Vec<Row>, Refusal> {
    let bad = |error: String| {
        let hint = "write it with Snappy or no compression";
        Refusal::new(format!("no Parquet that can be read: {error}"), hint).in_file(path)
    };
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.build())
        .map_err(|error| bad(error.to_string()))?;
    let names: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| bad(error.to_string()))?;
        rows.extend(
            (0..batch.num_rows()).map(|at| row(&names, batch.columns().iter().map(|column| value(column, at)))),
        );
    }
    Ok(rows)
}

/// One cell. Types that no text layout uses become null.
fn value(column: &dyn Array, at: usize) -> Value {
    if column.is_null(at) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(at).into(),
        DataType::Utf8View => column.as_string_view().value(at).into(),
        DataType::Boolean => column.as_boolean().value(at).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(at).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(at).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(at).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(at).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(at).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(at).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(at).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(at).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(at).into(),
        DataType::List(_) => list(&column.as_list::<i32>().value(at)),
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(at)),
        DataType::Struct(_) => {
            let inner = column.as_struct();
            let names: Vec<String> = inner.column_names().into_iter().map(str::to_string).collect();
            Value::Object(row(&names, inner.columns().iter().map(|column| value(column, at))))
        }
        _ => Value::Null,
    }
}

fn list(values: &dyn Array) -> Value {
    Value::Array((0..values.len()).map(|at| value(values, at)).collect())
}

#[cfg(test)]
mod tests {
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
}
