//! `ferule run --seeds N`: runs a recipe once with each of several seeds (its *draws*), and shows the runs together.
//!
//! A seed's run is called NAME-seedS and differs from that of `ferule run --name NAME-seedS --set seed=S` in nothing, so the one resumes the
//! other. Draws are done one after the other; those that are finished are left as they are.

use std::path::Path;

use serde_json::{Value, json};
use store::Runs;
use tasks::Task;
use train::pipeline::Extent;
use train::recipe::Recipe;

use super::table::aligned;
use crate::outcome::WrongUse;
use crate::report::figures::percent;
use crate::report::pooled::{self, Draw, Row};
use crate::report::summary;

/// The recipe with its own seed and with the `count - 1` seeds after it.
///
/// # Errors
/// The errors of reading a recipe; wrong use if `sets` sets a seed or a seed would be too large.
pub fn recipes(path: &Path, sets: &[String], count: u64) -> anyhow::Result<Vec<Recipe>> {
    let key = |set: &String| set.split('=').next().unwrap_or("").trim().trim_matches(['"', '\'']).to_string();
    if sets.iter().any(|set| key(set) == "seed") {
        let hint = "the first seed is the recipe's: leave out --set seed, or run that seed alone without --seeds";
        return Err(WrongUse::error("--seeds and --set seed=… name the seeds twice", hint));
    }
    let recipe = Recipe::read(path, sets)?;
    // The largest integer of TOML.
    let last = recipe.settings.seed.checked_add(count - 1).filter(|&last| i64::try_from(last).is_ok());
    let Some(last) = last else {
        let problem = format!("{count} seeds from {} exceed the largest, {}", recipe.settings.seed, i64::MAX);
        return Err(WrongUse::error(problem, "begin with a smaller seed in the recipe"));
    };
    let draw = |seed: u64| {
        let name = toml::Value::String(format!("{}-seed{seed}", recipe.settings.name));
        Recipe::read(path, &[sets, &[format!("name={name}"), format!("seed={seed}")]].concat())
    };
    Ok((recipe.settings.seed..=last).map(draw).collect::<Result<_, _>>()?)
}

/// Takes every draw back to the stage at which `from` begins.
///
/// # Errors
/// Wrong use, before anything is changed, if a draw has not begun; otherwise as [`Extent::rewind`].
pub fn rewind(runs: &Runs, recipes: &[Recipe], task: &dyn Task, extent: &Extent) -> anyhow::Result<()> {
    let names = runs.names()?;
    if let Some(missing) = recipes.iter().find(|recipe| !names.contains(&recipe.settings.name)) {
        let begun = recipes.iter().take_while(|recipe| names.contains(&recipe.settings.name)).count();
        let hint = match begun {
            0 => "leave out --from to run every seed from its beginning".to_string(),
            begun => format!("run without --from first, or ask for --seeds {begun}"),
        };
        return Err(WrongUse::error(format!("--from: the run {} has not begun", missing.settings.name), hint));
    }
    for recipe in recipes {
        extent.rewind(recipe, task, runs)?;
    }
    Ok(())
}

fn draws(runs: &Runs, recipes: &[Recipe], task: &dyn Task) -> anyhow::Result<Vec<Draw>> {
    recipes.iter().map(|recipe| Draw::read(&runs.view(&recipe.settings.name)?, recipe.settings.seed, task)).collect()
}

/// The draws as one object: pooled rows, and each run's ladder.
pub fn json(runs: &Runs, recipes: &[Recipe], task: &dyn Task) -> anyhow::Result<Value> {
    let draws = draws(runs, recipes, task)?;
    let (baselines, stages) = pooled::rows(&draws);
    let ladders = recipes.iter().map(|recipe| Ok(summary(&runs.view(&recipe.settings.name)?)?));
    Ok(json!({
        "seeds": draws.iter().map(|draw| draw.seed).collect::<Vec<u64>>(),
        "baselines": baselines,
        "stages": stages,
        "runs": ladders.collect::<anyhow::Result<Vec<Value>>>()?,
    }))
}

/// The draws side by side.
pub fn text(runs: &Runs, recipes: &[Recipe], task: &dyn Task) -> anyhow::Result<String> {
    let draws = draws(runs, recipes, task)?;
    let (baselines, stages) = pooled::rows(&draws);
    let seeds: Vec<u64> = draws.iter().map(|draw| draw.seed).collect();
    Ok(table(&seeds, baselines.iter().chain(&stages)))
}

fn table<'a>(seeds: &[u64], rows: impl Iterator<Item = &'a Row>) -> String {
    let share = |share: Option<f64>| share.map(percent).unwrap_or_default();
    let mut head = vec!["accuracy, %".to_string(), "model".to_string()];
    head.extend(seeds.iter().map(|seed| format!("seed {seed}")));
    head.extend(["pooled", "95% interval", "spread", "cases"].map(String::from));
    let mut table = vec![head];
    for row in rows {
        let interval = row.low.zip(row.high).map(|(low, high)| format!("{} – {}", percent(low), percent(high)));
        let mut cells = vec![row.stage.clone(), row.model.clone().unwrap_or("baseline".into())];
        cells.extend(row.accuracies.iter().map(|&accuracy| share(accuracy)));
        cells.extend([share(row.accuracy), interval.unwrap_or_default(), share(row.spread), row.n.to_string()]);
        table.push(cells);
    }
    let note = match seeds.len() {
        1 => "One seed says nothing about others: nothing is pooled.".to_string(),
        n => format!(
            "Pooled over {n} seeds and their cases; the interval includes both. Spread: the best seed minus the worst, in points."
        ),
    };
    format!("{}{note}\n", aligned(&table, &[0, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stand_side_by_side() {
        let row = Row {
            stage: "sft-m".into(),
            model: Some("m".into()),
            accuracies: vec![Some(0.5), None, Some(0.75)],
            n: 20,
            accuracy: Some(0.625),
            low: Some(0.0),
            high: Some(1.0),
            spread: Some(0.25),
        };
        let shown = table(&[1, 2, 3], [&row].into_iter());
        let expected = "\
accuracy, %  model  seed 1  seed 2  seed 3  pooled  95% interval  spread  cases
sft-m        m        50.0            75.0    62.5   0.0 – 100.0    25.0     20
Pooled over 3 seeds and their cases; the interval includes both. Spread: the best seed minus the worst, in points.
";
        assert_eq!(shown, expected);
        let alone = Row { accuracies: vec![Some(0.5)], accuracy: None, low: None, high: None, spread: None, ..row };
        assert!(table(&[7], [&alone].into_iter()).contains("nothing is pooled"));
    }
}
