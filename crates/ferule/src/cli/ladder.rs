//! The ladder as plain text: the baselines, then one row for each stage.

use store::{BaselineRow, StageRow};

use super::table::aligned;
use crate::report::figures::{count, duration, large, money, percent};
use crate::report::paired::{Difference, difference};

const HEADINGS: [&str; 12] = [
    "stage",
    "model",
    "accuracy",
    "95% interval",
    "change",
    "labels",
    "answers",
    "rollouts",
    "tokens",
    "FLOPs",
    "time",
    "cost",
];

/// The whole ladder. It has a column of costs only if a cost is known.
pub fn text(baselines: &[BaselineRow], rows: &[StageRow]) -> String {
    let mut table: Vec<Vec<String>> = vec![HEADINGS.map(String::from).to_vec()];
    table.extend(baselines.iter().map(baseline));
    let differences: Vec<Option<Difference>> = (0..rows.len()).map(|index| difference(rows, index)).collect();
    table.extend(rows.iter().zip(&differences).map(|(row, difference)| stage(row, difference.as_ref())));
    if rows.iter().all(|row| row.cost.is_none()) {
        table.iter_mut().for_each(|row| row.truncate(HEADINGS.len() - 1));
    }
    let mut text = aligned(&table, &[0, 1]);
    if differences.iter().flatten().any(|difference| difference.within_noise) {
        text += "≈ within the noise: the paired 95% interval of the change from the previous row of the same model includes zero\n";
    }
    rows.iter().filter_map(sampled).for_each(|line| text += &format!("{line}\n"));
    text
}

/// The result of several samples of each case.
fn sampled(row: &StageRow) -> Option<String> {
    let evaluation = row.extra.get("evaluation")?;
    let k = evaluation["k"].as_u64().filter(|&k| k > 1)?;
    let share = |name: &str| {
        let ends = &evaluation[format!("{name}_interval")];
        let of = |value: &serde_json::Value| value.as_f64().map(percent).unwrap_or_default();
        format!("{} ({} to {})", of(&evaluation[name]), of(&ends[0]), of(&ends[1]))
    };
    let (pass, majority) = (share("pass_at_k"), share("majority_at_k"));
    Some(format!("{}: pass@{k} {pass}, maj@{k} {majority}", row.stage))
}

/// One stage as a line of the log.
pub fn line(row: &StageRow) -> String {
    let accuracy = match (row.accuracy, row.low, row.high) {
        (Some(accuracy), Some(low), Some(high)) => {
            format!(": {} ({} to {}, n = {})", percent(accuracy), percent(low), percent(high), row.n)
        }
        _ => String::new(),
    };
    let sampled = sampled(row).map(|line| format!("\n{line}")).unwrap_or_default();
    format!("{} done in {}{accuracy}{sampled}", row.stage, duration(row.seconds))
}

fn baseline(row: &BaselineRow) -> Vec<String> {
    let blank = String::new;
    vec![
        row.name.clone(),
        "baseline".into(),
        percent(row.accuracy),
        interval(row.low, row.high),
        blank(),
        count(row.labels),
        count(row.answers_read),
        blank(),
        blank(),
        blank(),
        duration(row.seconds),
        blank(),
    ]
}

fn stage(row: &StageRow, difference: Option<&Difference>) -> Vec<String> {
    let change = |d: &Difference| format!("{}{:+.1}", if d.within_noise { "≈ " } else { "" }, 100.0 * d.value);
    vec![
        row.stage.clone(),
        row.model.clone(),
        row.accuracy.map(percent).unwrap_or_default(),
        row.low.zip(row.high).map(|(low, high)| interval(low, high)).unwrap_or_default(),
        difference.map(change).unwrap_or_default(),
        count(row.labels),
        count(row.answers_read),
        count(row.rollouts),
        count(row.train_tokens + row.teacher_tokens),
        large(row.flops),
        duration(row.seconds),
        money(row.cost),
    ]
}

fn interval(low: f64, high: f64) -> String {
    format!("{} – {}", percent(low), percent(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_samples_are_told_in_a_line_of_their_own() {
        let mut row = StageRow { stage: "eval-policy".into(), seconds: 3.0, ..StageRow::default() };
        let evaluation = serde_json::json!({
            "k": 8, "pass_at_k": 0.5, "pass_at_k_interval": [0.4, 0.6],
            "majority_at_k": 0.25, "majority_at_k_interval": [0.2, 0.3],
        });
        row.extra.insert("evaluation".into(), evaluation);
        let told = "eval-policy: pass@8 50.0 (40.0 to 60.0), maj@8 25.0 (20.0 to 30.0)";
        assert_eq!(line(&row), format!("eval-policy done in 3.0 s\n{told}"));
        assert!(text(&[], std::slice::from_ref(&row)).ends_with(&format!("{told}\n")));
        row.extra["evaluation"]["k"] = 1.into();
        assert_eq!(line(&row), "eval-policy done in 3.0 s");
    }
}
