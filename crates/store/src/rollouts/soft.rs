//! Soft labels in a rollout file: a teacher's most likely tokens at each token of a completion, and the probability of
//! the rest.
//!
//! | column             | type                              | what                                         |
//! |--------------------|-----------------------------------|----------------------------------------------|
//! | `soft_temperature` | float32, nullable                 | the temperature that divided the logits      |
//! | `top_ids`          | list of lists of uint32, nullable | most likely tokens at each token, best first |
//! | `top_logprobs`     | list of lists of float32, nullable| their log-probabilities, in nats             |
//! | `tail`             | list of float32, nullable         | probability of all other tokens together     |
//!
//! Older files do not have these columns; they are read as files without soft labels.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, Float32Array, Float32Builder, ListArray, ListBuilder, RecordBatch,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Float32Type, UInt32Type};

use super::row::{Rollout, SoftLabels};

pub(super) fn fields() -> [Field; 4] {
    let rows = |name: &str, item| Field::new(name, DataType::List(row_of(item)), true);
    [
        Field::new("soft_temperature", DataType::Float32, true),
        rows("top_ids", DataType::UInt32),
        rows("top_logprobs", DataType::Float32),
        Field::new("tail", DataType::List(element(DataType::Float32)), true),
    ]
}

/// "element" is the name that Parquet's specification gives to the items of a list.
pub(super) fn element(item: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", item, false))
}

fn row_of(item: DataType) -> Arc<Field> {
    element(DataType::List(element(item)))
}

/// # Panics
/// When a row has another number of soft labels than of tokens.
pub(super) fn columns(rows: &[Rollout]) -> [ArrayRef; 4] {
    let mut tail = ListBuilder::new(Float32Builder::new()).with_field(element(DataType::Float32));
    for row in rows {
        if let Some(soft) = &row.soft {
            let (n, k) = (row.tokens.len(), soft.k as usize);
            let found = (soft.ids.len(), soft.logprobs.len(), soft.tail.len());
            assert_eq!(found, (n * k, n * k, n), "soft labels of case {} sample {}", row.case_id, row.sample);
            tail.values().append_slice(&soft.tail);
        }
        tail.append(row.soft.is_some());
    }
    let temperature = rows.iter().map(|row| row.soft.as_ref().map(|soft| soft.temperature));
    [
        Arc::new(Float32Array::from_iter(temperature)),
        lists(rows, UInt32Builder::new(), DataType::UInt32, |soft, row, to| to.append_slice(&soft.ids[row])),
        lists(rows, Float32Builder::new(), DataType::Float32, |soft, row, to| to.append_slice(&soft.logprobs[row])),
        Arc::new(tail.finish()),
    ]
}

/// One list of rows of `k` numbers per completion.
fn lists<B: ArrayBuilder>(
    rows: &[Rollout],
    values: B,
    item: DataType,
    append: impl Fn(&SoftLabels, Range<usize>, &mut B),
) -> ArrayRef {
    let inner = ListBuilder::new(values).with_field(element(item.clone()));
    let mut list = ListBuilder::new(inner).with_field(row_of(item));
    for soft in rows.iter().map(|row| row.soft.as_ref()) {
        if let Some(soft) = soft {
            let k = soft.k as usize;
            for token in 0..soft.tail.len() {
                append(soft, token * k..(token + 1) * k, list.values().values());
                list.values().append(true);
            }
        }
        list.append(soft.is_some());
    }
    Arc::new(list.finish())
}

/// The columns of a file that has them.
pub(super) struct Columns<'a> {
    temperature: &'a Float32Array,
    ids: &'a ListArray,
    logprobs: &'a ListArray,
    tail: &'a ListArray,
}

impl<'a> Columns<'a> {
    /// `None` for a file from before these columns; the error is a reason in words.
    pub fn of(batch: &'a RecordBatch) -> Result<Option<Self>, String> {
        let Some(temperature) = batch.column_by_name("soft_temperature") else { return Ok(None) };
        let wrong = |name: &str| format!("column `{name}` is not of our type");
        let list = |name: &str| {
            batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>()).ok_or_else(|| wrong(name))
        };
        let columns = Columns {
            temperature: temperature.as_primitive_opt().ok_or_else(|| wrong("soft_temperature"))?,
            ids: list("top_ids")?,
            logprobs: list("top_logprobs")?,
            tail: list("tail")?,
        };
        let inner = |lists: &ListArray| lists.values().as_list_opt::<i32>().map(|rows| rows.value_type());
        let types = (inner(columns.ids), inner(columns.logprobs), columns.tail.value_type());
        match types {
            (Some(DataType::UInt32), Some(DataType::Float32), DataType::Float32) => Ok(Some(columns)),
            _ => Err(wrong("top_ids")),
        }
    }

    /// The labels of completion `i`, whose types [`Columns::of`] has checked.
    pub fn row(&self, i: usize) -> Option<SoftLabels> {
        if self.temperature.is_null(i) {
            return None;
        }
        let flat = |lists: &ListArray| {
            let rows = lists.value(i);
            let rows = rows.as_list::<i32>();
            let (first, last) = (rows.value_offsets()[0], rows.value_offsets()[rows.len()]);
            rows.values().slice(first as usize, (last - first) as usize)
        };
        let ids = flat(self.ids).as_primitive::<UInt32Type>().values().to_vec();
        let tail = self.tail.value(i).as_primitive::<Float32Type>().values().to_vec();
        Some(SoftLabels {
            temperature: self.temperature.value(i),
            k: (ids.len() / tail.len().max(1)) as u32,
            logprobs: flat(self.logprobs).as_primitive::<Float32Type>().values().to_vec(),
            ids,
            tail,
        })
    }
}
