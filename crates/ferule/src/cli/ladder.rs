//! The ladder as plain text: baselines above, one row a stage below.

use store::{BaselineRow, StageRow};

use crate::report::figures::{count, duration, large, percent};

const HEADINGS: [&str; 10] =
    ["stage", "model", "accuracy", "95% interval", "labels", "answers", "rollouts", "tokens", "FLOPs", "time"];

/// The whole ladder.
pub fn text(baselines: &[BaselineRow], rows: &[StageRow]) -> String {
    let mut table: Vec<[String; 10]> = vec![HEADINGS.map(String::from)];
    table.extend(baselines.iter().map(baseline));
    table.extend(rows.iter().map(stage));
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in &table {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One stage in a sentence, for the log.
pub fn line(row: &StageRow) -> String {
    let accuracy = match (row.accuracy, row.low, row.high) {
        (Some(accuracy), Some(low), Some(high)) => {
            format!(": {} ({} to {}, n = {})", percent(accuracy), percent(low), percent(high), row.n)
        }
        _ => String::new(),
    };
    format!("{} done in {}{accuracy}", row.stage, duration(row.seconds))
}

fn baseline(row: &BaselineRow) -> [String; 10] {
    [
        row.name.clone(),
        "baseline".into(),
        percent(row.accuracy),
        interval(row.low, row.high),
        count(row.labels),
        count(row.answers_read),
        String::new(),
        String::new(),
        String::new(),
        duration(row.seconds),
    ]
}

fn stage(row: &StageRow) -> [String; 10] {
    [
        row.stage.clone(),
        row.model.clone(),
        row.accuracy.map(percent).unwrap_or_default(),
        row.low.zip(row.high).map(|(low, high)| interval(low, high)).unwrap_or_default(),
        count(row.labels),
        count(row.answers_read),
        count(row.rollouts),
        count(row.train_tokens + row.teacher_tokens),
        large(row.flops),
        duration(row.seconds),
    ]
}

fn interval(low: f64, high: f64) -> String {
    format!("{} – {}", percent(low), percent(high))
}
