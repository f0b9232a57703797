//! Refuses recipes that cannot be run, as far as that shows without opening a file.
//!
//! This file has the checks that concern several stages: names, the tokenizer, the order of stages. Checks of a single stage are
//! in its own `validate`. Checks that need the task's cases, a tokenizer or a model's files are in [`crate::check`].

use tasks::suggest;

use super::outline::Outline;
use super::resolved::Recipe;
use crate::stage::Place;
use tasks::refusal::Refusal;

/// Refuses a recipe that cannot be run.
pub(super) fn check(recipe: &Recipe) -> Result<(), Refusal> {
    let settings = &recipe.settings;
    if !["f32", "bf16"].contains(&settings.dtype.as_str()) {
        let problem = format!("\"{}\" is not a dtype", settings.dtype);
        return Err(settings.refuse("dtype", problem, "write \"f32\" or \"bf16\""));
    }
    if store::names::check("run", &settings.name).is_err() {
        let problem = format!("\"{}\" cannot be a folder's name", settings.name);
        return Err(settings.refuse("name", problem, "use letters, digits, `-`, `_` and `.`, not at the start"));
    }
    for index in 0..recipe.stages.len() {
        models(&recipe.place(index))?;
    }
    tokenizer(recipe)?;
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = recipe.place(index);
        if store::names::check("stage", &stage.name).is_err() {
            let problem = format!("\"{}\" cannot be a folder's name", stage.name);
            return Err(place.refuse("name", problem, "use letters, digits, `-`, `_` and `.`, not at the start"));
        }
        stage.stage.validate(&place)?;
        learned_before(&place, stage.stage.optimisation().is_some_and(|keys| keys.lora_rank > 0))?;
        data_made_before(&place)?;
    }
    Ok(())
}

/// Refuses a model that the recipe does not have, and a copy of weights that no earlier stage has trained.
fn models(place: &Place) -> Result<(), Refusal> {
    let models = &place.settings.models;
    for (key, model) in [("model", place.own().model()), ("teacher", place.own().teacher())] {
        let Some(model) = model else { continue };
        let Some(source) = models.get(model) else {
            let hint = match models.is_empty() {
                true => format!("add `[models.{model}]` with a shape, a `path` or `from`"),
                false => suggest::hint(model, models.keys().map(String::as_str)),
            };
            return Err(place.refuse(key, format!("there is no model \"{model}\""), hint));
        };
        let Some(from) = source.copied_from() else { continue };
        let makers =
            || place.before().iter().filter(|stage| stage.trained().is_some()).map(|stage| stage.name.as_str());
        if !makers().any(|maker| maker == from) {
            let problem = format!(
                "model \"{model}\" is a copy of what \"{from}\" makes, and no earlier training stage has that name"
            );
            return Err(place.refuse(key, problem, suggest::hint(from, makers())));
        }
    }
    Ok(())
}

/// Refuses a missing, superfluous or late tokenizer stage. Models with random weights need one, as the first stage; models from files
/// have a tokenizer already.
fn tokenizer(recipe: &Recipe) -> Result<(), Refusal> {
    let settings = &recipe.settings;
    let makes = |stage: &Outline| stage.vocab_size().is_some();
    let from_path = settings.models.iter().find(|(_, source)| source.path().is_some());
    let first = recipe.outlines.iter().position(makes);
    match (first, from_path) {
        (Some(index), Some((name, _))) => {
            let problem = format!("model \"{name}\" brings its own tokenizer");
            Err(recipe.place(index).refuse("kind", problem, "leave the tokenizer stage out"))
        }
        (None, None) if settings.models.is_empty() => {
            Err(settings.refuse("models", "there are none", "add `[models.student]` with a shape, a `path` or `from`"))
        }
        (None, None) => {
            let hint = "put a stage of kind \"tokenizer\" first, or give a model a `path`";
            Err(recipe.place(0).refuse("kind", "the models have random weights and no tokenizer", hint))
        }
        (Some(index), None) if index > 0 => {
            let problem = "a tokenizer made after stages that need it";
            Err(recipe.place(index).refuse("kind", problem, "put it first"))
        }
        (Some(_), None) => match recipe.outlines.iter().skip(1).position(makes) {
            Some(second) => {
                let hint = "leave one of the two out: all models share one";
                Err(recipe.place(second + 1).refuse("kind", "a second tokenizer", hint))
            }
            None => Ok(()),
        },
        (None, Some(_)) => Ok(()),
    }
}

/// Refuses to sample from, to measure or to learn from a model that still has random weights. It also refuses to train adapters on one,
/// since they leave embedding, head and norms as they are.
fn learned_before(place: &Place, by_adapters: bool) -> Result<(), Refusal> {
    let roles = &place.own().roles;
    let samples = roles.samples.as_ref().or(roles.measures.as_ref()).map(|model| ("model", model));
    let adapted = roles.trains.as_ref().filter(|_| by_adapters).map(|model| ("lora_rank", model));
    let teacher = roles.teacher.as_ref().map(|teacher| ("teacher", teacher));
    for (key, model) in samples.into_iter().chain(adapted).chain(teacher) {
        let random = place.settings.models.get(model).is_some_and(|source| source.shape().is_some());
        let trains = |stage: &&Outline| stage.trained() == Some(model);
        if random && !place.before().iter().any(|stage| trains(&stage)) {
            let own = &place.own().name;
            let hint = match place.stages.iter().find(|stage| trains(stage) && stage.name != *own) {
                Some(later) => format!("put \"{}\", which trains it, before \"{own}\"", later.name),
                None => "train it in an earlier stage, or give it a `path`".to_string(),
            };
            return Err(place.refuse(key, format!("\"{model}\" still has random weights here"), hint));
        }
    }
    Ok(())
}

/// Refuses a data set that no earlier stage makes.
fn data_made_before(place: &Place) -> Result<(), Refusal> {
    let Some(data) = &place.own().roles.data else { return Ok(()) };
    let names = |stages: &[Outline]| -> Vec<String> {
        stages.iter().filter(|stage| stage.makes_data()).map(|stage| stage.name.clone()).collect()
    };
    if names(place.before()).contains(data) {
        return Ok(());
    }
    let all = names(place.stages);
    if all.contains(data) {
        let problem = format!("the data set \"{data}\" is made by a later stage");
        return Err(place.refuse("data", problem, "put the sample stage before this one"));
    }
    let hint = match all.is_empty() {
        true => "add a stage of kind \"sample\" before this one".to_string(),
        false => suggest::hint(data, all.iter().map(String::as_str)),
    };
    Err(place.refuse("data", format!("there is no sample stage \"{data}\""), hint))
}
