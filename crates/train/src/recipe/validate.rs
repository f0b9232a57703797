//! Whether a recipe makes sense, as far as that can be told without opening a file: sizes that cannot be, stages in an order that cannot be.
//!
//! What needs the task's cases, a tokenizer or a model's files is in [`crate::check`].

use super::{ModelSource, Optimisation, Recipe, RecipeError, Stage, StageKind};
use crate::rules::Rules;
use crate::stages::sample::Sample;
use tasks::suggest;

/// Refuses what cannot be.
pub(super) fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    let wrong = |key: &str, why: &str, hint: &str| Err(recipe.wrong(key, why, hint));
    if recipe.eval.cases == 0 {
        return wrong(
            "eval.cases",
            "is 0",
            "every row of the ladder is measured on held-out cases; 500 is the default",
        );
    }
    if recipe.eval.max_new_tokens == 0 {
        return wrong("eval.max_new_tokens", "is 0", "give an answer room; 64 is the default");
    }
    if store::names::check("run", &recipe.name).is_err() {
        let problem = format!("\"{}\" cannot be a folder's name", recipe.name);
        return wrong("name", &problem, "use letters, digits, `-`, `_` and `.`, not at the start");
    }
    tokenizer(recipe)?;
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = Place { recipe, index, stage };
        place.sizes()?;
        place.order()?;
    }
    Ok(())
}

/// Models of random weights need a tokenizer stage, once, before anything else; models from folders bring their own.
fn tokenizer(recipe: &Recipe) -> Result<(), RecipeError> {
    let makes = |stage: &Stage| matches!(stage.kind, StageKind::Tokenizer(_));
    let from_path = recipe.models.iter().find(|(_, source)| matches!(source, ModelSource::Path { .. }));
    let first = recipe.stages.iter().position(makes);
    match (first, from_path) {
        (Some(index), Some((name, _))) => {
            let problem = format!("model \"{name}\" brings its own tokenizer");
            Err(recipe.wrong(&format!("stages[{index}].kind"), problem, "leave the tokenizer stage out"))
        }
        (None, None) if recipe.models.is_empty() => {
            Err(recipe.wrong("models", "there are none", "add `[models.student]` with a shape, a `path` or `from`"))
        }
        (None, None) => Err(recipe.wrong(
            "stages[0].kind",
            "the models have random weights and no tokenizer",
            "put a stage of kind \"tokenizer\" first, or give a model a `path`",
        )),
        (Some(index), None) if index > 0 => {
            let problem = "a tokenizer made after stages that need it";
            Err(recipe.wrong(&format!("stages[{index}].kind"), problem, "put it first"))
        }
        (Some(_), None) => match recipe.stages.iter().skip(1).position(makes) {
            Some(second) => {
                let hint = "leave one of the two out: all models share one";
                Err(recipe.wrong(&format!("stages[{}].kind", second + 1), "a second tokenizer", hint))
            }
            None => Ok(()),
        },
        (None, Some(_)) => Ok(()),
    }
}

/// One stage of a recipe.
struct Place<'a> {
    recipe: &'a Recipe,
    index: usize,
    stage: &'a Stage,
}

impl Place<'_> {
    fn wrong<T>(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) -> Result<T, RecipeError> {
        Err(self.recipe.wrong(&format!("stages[{}].{key}", self.index), problem, hint))
    }

    fn sizes(&self) -> Result<(), RecipeError> {
        if store::names::check("stage", &self.stage.name).is_err() {
            let problem = format!("\"{}\" cannot be a folder's name", self.stage.name);
            return self.wrong("name", problem, "use letters, digits, `-`, `_` and `.`, not at the start");
        }
        match &self.stage.kind {
            StageKind::Tokenizer(keys) => self.positive(&[("vocab_size", keys.vocab_size)])?,
            StageKind::Pretrain(keys) => {
                let tokens = usize::try_from(keys.tokens).unwrap_or(usize::MAX);
                self.positive(&[("tokens", tokens), ("tokens_per_step", keys.tokens_per_step)])?;
                if keys.context < 2 {
                    return self.wrong("context", "is below 2", "a token is predicted from those before it");
                }
                self.optimisation(&keys.optimisation)?;
            }
            StageKind::Sft(keys) => {
                let sizes = [
                    ("demonstrations", keys.demonstrations),
                    ("epochs", keys.epochs as usize),
                    ("demonstrations_per_step", keys.demonstrations_per_step),
                ];
                self.positive(&sizes)?;
                self.optimisation(&keys.optimisation)?;
            }
            StageKind::Grpo(keys) => {
                let sizes = [
                    ("steps", keys.steps as usize),
                    ("cases", keys.cases),
                    ("prompts_per_step", keys.prompts_per_step),
                    ("max_new_tokens", keys.max_new_tokens),
                    ("updates_per_batch", keys.updates_per_batch as usize),
                    ("turns", keys.turns),
                ];
                self.positive(&sizes)?;
                if keys.turns > 1 && keys.rules != Rules::default() {
                    let problem = "in a game the task's environment says what it was worth, and no rule is asked";
                    return self.wrong("rules", problem, "leave them out, or set `turns = 1`");
                }
                if keys.turns > 1 && keys.overlong_margin_tokens > 0 {
                    let problem = "it counts the tokens of one completion, and a game has several";
                    return self.wrong("overlong_margin_tokens", problem, "leave it out, or set `turns = 1`");
                }
                if keys.completions_per_prompt < 2 {
                    let hint = "a reward is relative to its group; set it to 4 or more";
                    return self.wrong("completions_per_prompt", "a group of fewer than 2", hint);
                }
                self.temperature("temperature", keys.temperature)?;
                self.optimisation(&keys.optimisation)?;
            }
            StageKind::Sample(keys) => self.sample(keys)?,
            StageKind::Distill(keys) => {
                let sizes = [("epochs", keys.epochs as usize), ("completions_per_step", keys.completions_per_step)];
                self.positive(&sizes)?;
                self.temperature("temperature", keys.temperature)?;
                let weights = [keys.hard_weight, keys.soft_weight, keys.hidden_weight];
                if weights.iter().all(|&weight| weight == 0.0) {
                    let hint = "set `hard_weight = 1` for the teacher's text, `soft_weight = 1` for its distribution";
                    return self.wrong("soft_weight", "neither hard nor soft nor hidden labels have a weight", hint);
                }
                if keys.hidden_weight != 0.0 && keys.teacher.is_none() {
                    return self.wrong("teacher", "hidden states need a teacher", "name it with `teacher = \"…\"`");
                }
                if keys.hidden_weight != 0.0 && keys.optimisation.lora_rank > 0 {
                    let problem =
                        "adapters learn alone, and hidden states need a projection that learns beside the model";
                    return self.wrong("lora_rank", problem, "leave one of `hidden_weight` and `lora_rank` out");
                }
                self.optimisation(&keys.optimisation)?;
            }
            StageKind::Dialogue(keys) => {
                let sizes = [
                    ("steps", keys.steps as usize),
                    ("cases", keys.cases),
                    ("prompts_per_step", keys.prompts_per_step),
                    ("completions_per_prompt", keys.completions_per_prompt),
                    ("max_new_tokens", keys.max_new_tokens),
                ];
                self.positive(&sizes)?;
                self.temperature("temperature", keys.temperature)?;
                self.optimisation(&keys.optimisation)?;
            }
            StageKind::Eval(keys) => {
                self.positive(&[("cases", keys.cases.unwrap_or(1)), ("samples", keys.samples)])?;
            }
        }
        Ok(())
    }

    fn sample(&self, keys: &Sample) -> Result<(), RecipeError> {
        let sizes = [("cases", keys.cases), ("samples", keys.samples), ("max_new_tokens", keys.max_new_tokens)];
        self.positive(&sizes)?;
        if !(keys.temperature.is_finite() && keys.temperature >= 0.0) {
            let problem = format!("{} is no temperature", keys.temperature);
            return self.wrong("temperature", problem, "0 takes the most likely token, 1 samples");
        }
        if keys.teacher.is_some() && keys.top_k == 0 {
            let problem = "a teacher listens, and none of its tokens are kept";
            return self.wrong("teacher", problem, "set `top_k = 16`, or leave the teacher out");
        }
        self.temperature("soft_temperature", keys.soft_temperature)
    }

    fn optimisation(&self, keys: &Optimisation) -> Result<(), RecipeError> {
        if !(keys.learning_rate.is_finite() && keys.learning_rate >= 0.0) {
            let problem = format!("{} is no learning rate", keys.learning_rate);
            return self.wrong("learning_rate", problem, "1e-3 is the default");
        }
        if keys.max_grad_norm.is_nan() || keys.max_grad_norm <= 0.0 {
            return self.wrong("max_grad_norm", format!("{} is not above 0", keys.max_grad_norm), "1.0 is the default");
        }
        if !(keys.lora_alpha.is_finite() && keys.lora_alpha > 0.0) {
            return self.wrong("lora_alpha", format!("{} is not above 0", keys.lora_alpha), "16 is the default");
        }
        let sizes = [
            ("tokens_per_micro_batch", keys.tokens_per_micro_batch),
            ("checkpoint_every_steps", keys.checkpoint_every_steps as usize),
        ];
        self.positive(&sizes)
    }

    fn positive(&self, sizes: &[(&str, usize)]) -> Result<(), RecipeError> {
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some((key, _)) => self.wrong(key, "is 0", "it counts from 1; leave it out for the default"),
            None => Ok(()),
        }
    }

    /// The logits are divided by it in training too.
    fn temperature(&self, key: &str, value: f32) -> Result<(), RecipeError> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        self.wrong(key, format!("{value} is not above 0"), "1 leaves the logits as they are")
    }

    /// Whoever speaks or is listened to must have learned something before, and a data set must have been made.
    fn order(&self) -> Result<(), RecipeError> {
        let before = &self.recipe.stages[..self.index];
        let speaker = match &self.stage.kind {
            StageKind::Sample(keys) => Some(("model", keys.model.as_str())),
            StageKind::Eval(keys) => Some(("model", keys.model.as_str())),
            // Adapters leave embedding, head and norms as they are: those must have learned something too.
            kind if kind.optimisation().is_some_and(|keys| keys.lora_rank > 0) => {
                kind.model().map(|m| ("lora_rank", m))
            }
            _ => None,
        };
        for (key, model) in speaker.into_iter().chain(self.stage.kind.teacher().map(|teacher| ("teacher", teacher))) {
            let random = matches!(self.recipe.models.get(model), Some(ModelSource::Random(_)));
            let trains = |stage: &&Stage| stage.kind.trained() == Some(model);
            if random && !before.iter().any(|stage| trains(&stage)) {
                let hint = match self.recipe.stages.iter().find(|stage| trains(stage) && stage.name != self.stage.name)
                {
                    Some(later) => format!("put \"{}\", which trains it, before \"{}\"", later.name, self.stage.name),
                    None => "train it in an earlier stage, or give it a `path`".to_string(),
                };
                return self.wrong(key, format!("\"{model}\" still has random weights here"), hint);
            }
        }
        let StageKind::Distill(keys) = &self.stage.kind else { return Ok(()) };
        let samples = |stage: &&Stage| matches!(stage.kind, StageKind::Sample(_));
        if before.iter().filter(samples).any(|stage| stage.name == keys.data) {
            return Ok(());
        }
        let all: Vec<&str> = self.recipe.stages.iter().filter(samples).map(|stage| stage.name.as_str()).collect();
        if all.contains(&keys.data.as_str()) {
            let problem = format!("the data set \"{}\" is made by a later stage", keys.data);
            return self.wrong("data", problem, "put the sample stage before this one");
        }
        let hint = match all.is_empty() {
            true => "add a stage of kind \"sample\" before this one".to_string(),
            false => suggest::hint(&keys.data, all),
        };
        self.wrong("data", format!("there is no sample stage \"{}\"", keys.data), hint)
    }
}
