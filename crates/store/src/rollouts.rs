//! Rollouts: one Parquet file per step, with every completion of the step and its verdicts.
//!
//! | column             | type                                                        | what                                        |
//! |--------------------|-------------------------------------------------------------|---------------------------------------------|
//! | `stage`, `step`    | string, int64                                               | where                                       |
//! | `case_id`, `sample`| string, uint32                                              | which case, which completion of its group   |
//! | `prompt`           | string                                                      | as rendered                                 |
//! | `answer`           | string, nullable                                            | the known answer, if the case has one       |
//! | `completion`       | string                                                      | decoded once, for people; the tokens count  |
//! | `tokens`           | list of uint32                                              | the completion's token ids                  |
//! | `logprobs`         | list of float32                                             | the sampler's, of each token, in nats       |
//! | `given`            | list of bool, nullable                                      | whether an environment wrote the token; none if the model wrote all |
//! | `logprobs_teacher` | list of float32, nullable                                   | a teacher's, if one scored the tokens       |
//! | `reward`           | float64, nullable                                           | none if the rules gave none                 |
//! | `advantage`        | float32, nullable                                           | none if no policy was trained               |
//! | `finished`         | bool                                                        | ended by its end token, not cut short       |
//! | `verdicts`         | list of {rule, outcome: score \| abstain \| failed \| timed_out, value, reason} | every rule's, in the rule set's order |
//! | `soft_temperature`, `top_ids`, `top_logprobs`, `tail` | see [`soft`]             | a teacher's soft labels, where some were kept |
//!
//! DuckDB, pandas, `datasets`, DataFusion and Spark can read it. Equal rows give equal bytes: the file holds no time,
//! machine or run.
//!
//! Nothing is filtered: a step's file holds every completion that was sampled, including those that were not trained
//! on.
//!
//! Read next: [`soft`].

pub mod row;
pub mod soft;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Float32Array, Float32Builder, Float64Array, Float64Builder,
    Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, StructBuilder, UInt32Array,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Schema, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

pub use row::{Rollout, SoftLabels};
use soft::element;

use crate::error::StoreError;
use crate::ledger::rows::{Verdict, VerdictOutcome};

/// The file's bytes for the completions of one step.
///
/// # Errors
/// [`StoreError::Parquet`]; `path` is for the message.
///
/// # Panics
/// When a row has another number of log-probabilities than of tokens.
pub fn encode(path: &Path, stage: &str, step: u64, rows: &[Rollout]) -> Result<Vec<u8>, StoreError> {
    let write = || -> Result<Vec<u8>, ParquetError> {
        let batch = to_batch(stage, step, rows)?;
        let properties = WriterProperties::builder()
            .set_created_by("ferule".to_owned())
            .set_compression(Compression::SNAPPY)
            .build();
        // Arrow's own copy of the schema would add nothing, and it would make the bytes depend on one more library.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options)?;
        writer.write(&batch)?;
        writer.into_inner()
    };
    write().map_err(|e| StoreError::parquet(path, e))
}

/// Reads a step's completions, in the order in which they were written.
///
/// # Errors
/// [`StoreError::Parquet`] for a file that is not Parquet, [`StoreError::Damaged`] for other columns than these.
pub fn read(path: &Path) -> Result<Vec<Rollout>, StoreError> {
    let file = File::open(path).map_err(|e| StoreError::io("read", path, e))?;
    let fail = |e| StoreError::parquet(path, e);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(fail)?.build().map_err(fail)?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| fail(e.into()))?;
        from_batch(&batch, &mut rows).map_err(|reason| StoreError::Damaged {
            path: path.to_path_buf(),
            reason,
            hint: "only files that Ferule wrote can be read here",
        })?;
    }
    Ok(rows)
}

fn list_of(item: DataType, nullable_list: bool, name: &str) -> Field {
    Field::new(name, DataType::List(element(item)), nullable_list)
}

fn verdict_fields() -> Fields {
    Fields::from(vec![
        Field::new("rule", DataType::Utf8, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
        Field::new("reason", DataType::Utf8, false),
    ])
}

fn schema() -> Schema {
    let mut fields = vec![
        Field::new("stage", DataType::Utf8, false),
        Field::new("step", DataType::Int64, false),
        Field::new("case_id", DataType::Utf8, false),
        Field::new("sample", DataType::UInt32, false),
        Field::new("prompt", DataType::Utf8, false),
        Field::new("answer", DataType::Utf8, true),
        Field::new("completion", DataType::Utf8, false),
        list_of(DataType::UInt32, false, "tokens"),
        list_of(DataType::Float32, false, "logprobs"),
        list_of(DataType::Boolean, true, "given"),
        list_of(DataType::Float32, true, "logprobs_teacher"),
        Field::new("reward", DataType::Float64, true),
        Field::new("advantage", DataType::Float32, true),
        Field::new("finished", DataType::Boolean, false),
        list_of(DataType::Struct(verdict_fields()), false, "verdicts"),
    ];
    fields.extend(soft::fields());
    Schema::new(fields)
}

fn to_batch(stage: &str, step: u64, rows: &[Rollout]) -> Result<RecordBatch, ParquetError> {
    let strings = |get: fn(&Rollout) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(get))) as ArrayRef;
    let mut tokens = ListBuilder::new(UInt32Builder::new()).with_field(element(DataType::UInt32));
    let mut logprobs = ListBuilder::new(Float32Builder::new()).with_field(element(DataType::Float32));
    let mut given = ListBuilder::new(BooleanBuilder::new()).with_field(element(DataType::Boolean));
    let mut logprobs_teacher = ListBuilder::new(Float32Builder::new()).with_field(element(DataType::Float32));
    for row in rows {
        let n = row.tokens.len();
        assert_eq!(n, row.logprobs.len(), "tokens and logprobs of case {} sample {}", row.case_id, row.sample);
        tokens.values().append_slice(&row.tokens);
        tokens.append(true);
        logprobs.values().append_slice(&row.logprobs);
        logprobs.append(true);
        if let Some(by_environment) = &row.given {
            assert_eq!(n, by_environment.len(), "tokens and given of case {} sample {}", row.case_id, row.sample);
            given.values().append_slice(by_environment);
        }
        given.append(row.given.is_some());
        if let Some(teacher) = &row.logprobs_teacher {
            assert_eq!(n, teacher.len(), "tokens and logprobs_teacher of case {} sample {}", row.case_id, row.sample);
            logprobs_teacher.values().append_slice(teacher);
        }
        logprobs_teacher.append(row.logprobs_teacher.is_some());
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| stage))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| step as i64))),
        strings(|r| &r.case_id),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| r.sample))),
        strings(|r| &r.prompt),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.answer.as_deref()))),
        strings(|r| &r.completion),
        Arc::new(tokens.finish()),
        Arc::new(logprobs.finish()),
        Arc::new(given.finish()),
        Arc::new(logprobs_teacher.finish()),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.reward))),
        Arc::new(Float32Array::from_iter(rows.iter().map(|r| r.advantage))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.finished)))),
        verdict_column(rows),
    ];
    columns.extend(soft::columns(rows));
    Ok(RecordBatch::try_new(Arc::new(schema()), columns)?)
}

fn verdict_column(rows: &[Rollout]) -> ArrayRef {
    let fields = verdict_fields();
    let mut list =
        ListBuilder::new(StructBuilder::from_fields(fields.clone(), 0)).with_field(element(DataType::Struct(fields)));
    for row in rows {
        for verdict in &row.verdicts {
            let one = list.values();
            let mut text = |i, value: &str| {
                one.field_builder::<StringBuilder>(i).expect("a string column").append_value(value);
            };
            text(0, &verdict.rule);
            text(1, outcome_word(verdict.outcome));
            text(3, &verdict.reason);
            one.field_builder::<Float64Builder>(2).expect("a float column").append_option(verdict.value);
            one.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

fn outcome_word(outcome: VerdictOutcome) -> &'static str {
    match outcome {
        VerdictOutcome::Score => "score",
        VerdictOutcome::Abstain => "abstain",
        VerdictOutcome::Failed => "failed",
        VerdictOutcome::TimedOut => "timed_out",
    }
}

fn outcome_from(word: &str) -> Result<VerdictOutcome, String> {
    match word {
        "score" => Ok(VerdictOutcome::Score),
        "abstain" => Ok(VerdictOutcome::Abstain),
        "failed" => Ok(VerdictOutcome::Failed),
        "timed_out" => Ok(VerdictOutcome::TimedOut),
        other => Err(format!("a verdict's outcome is `{other}`")),
    }
}

/// The columns of one batch, found by name and checked for type; the error is a reason in words.
fn from_batch(batch: &RecordBatch, rows: &mut Vec<Rollout>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"));
    let wrong = |name: &str| format!("column `{name}` is not of our type");
    let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
    let list = |name: &str| column(name)?.as_list_opt::<i32>().ok_or_else(|| wrong(name));
    let f32s = |name: &str, values: &dyn Array| {
        values.as_primitive_opt::<Float32Type>().map(|v| v.values().to_vec()).ok_or_else(|| wrong(name))
    };
    let (case_id, prompt, answer, completion) =
        (text("case_id")?, text("prompt")?, text("answer")?, text("completion")?);
    let sample = column("sample")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong("sample"))?;
    let reward = column("reward")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("reward"))?;
    let advantage = column("advantage")?.as_primitive_opt::<Float32Type>().ok_or_else(|| wrong("advantage"))?;
    let finished = column("finished")?.as_boolean_opt().ok_or_else(|| wrong("finished"))?;
    let (tokens, logprobs) = (list("tokens")?, list("logprobs")?);
    let (given, logprobs_teacher, verdicts) = (list("given")?, list("logprobs_teacher")?, list("verdicts")?);
    let flags = |values: &dyn Array| {
        values.as_boolean_opt().map(|v| v.values().iter().collect::<Vec<bool>>()).ok_or_else(|| wrong("given"))
    };
    let soft = soft::Columns::of(batch)?;
    for i in 0..batch.num_rows() {
        let ids = tokens.value(i);
        let judged = verdicts.value(i);
        let judged = judged.as_struct_opt().ok_or_else(|| wrong("verdicts"))?;
        rows.push(Rollout {
            case_id: case_id.value(i).to_owned(),
            sample: sample.value(i),
            prompt: prompt.value(i).to_owned(),
            answer: answer.is_valid(i).then(|| answer.value(i).to_owned()),
            completion: completion.value(i).to_owned(),
            tokens: ids.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong("tokens"))?.values().to_vec(),
            logprobs: f32s("logprobs", &logprobs.value(i))?,
            given: given.is_valid(i).then(|| flags(&given.value(i))).transpose()?,
            logprobs_teacher: logprobs_teacher
                .is_valid(i)
                .then(|| f32s("logprobs_teacher", &logprobs_teacher.value(i)))
                .transpose()?,
            soft: soft.as_ref().and_then(|soft| soft.row(i)),
            reward: reward.is_valid(i).then(|| reward.value(i)),
            advantage: advantage.is_valid(i).then(|| advantage.value(i)),
            finished: finished.value(i),
            verdicts: verdicts_of(judged)?,
        });
    }
    Ok(())
}

fn verdicts_of(judged: &StructArray) -> Result<Vec<Verdict>, String> {
    let wrong = |name: &str| format!("field `{name}` of `verdicts` is not of our type");
    let text =
        |name: &str| judged.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(|| wrong(name));
    let (rule, outcome, reason) = (text("rule")?, text("outcome")?, text("reason")?);
    let value = judged
        .column_by_name("value")
        .and_then(|c| c.as_primitive_opt::<Float64Type>())
        .ok_or_else(|| wrong("value"))?;
    let one = |i| {
        Ok(Verdict {
            rule: rule.value(i).to_owned(),
            outcome: outcome_from(outcome.value(i))?,
            value: value.is_valid(i).then(|| value.value(i)),
            reason: reason.value(i).to_owned(),
        })
    };
    (0..judged.len()).map(one).collect()
}
