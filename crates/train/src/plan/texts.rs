//! Measures the mean lengths of a task's texts on a few of them.

use std::time::Instant;

use super::lengths::Lengths;
use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::resolved::{Recipe, RecipeStage};
use crate::recipe::settings::Settings;
use crate::stages::tokenizer::TokenizerStage;
use tasks::data::texts;
use tasks::{Split, Task};

/// Texts of each kind that are measured.
const TEXTS: usize = 200;
/// One in this many of the tokenizer stage's texts is used for the estimate, or fewer, so that no more than [`TOKENIZER_TEXTS`] are drawn.
const TOKENIZER_SHARE: usize = 10;
/// About the most documents and prompts that are drawn for the estimate of the tokenizer's time.
const TOKENIZER_TEXTS: usize = 4000;

/// Encodes some of the task's texts and takes the mean of their lengths. Without a prompting it trains a tokenizer on a part of the texts
/// of the tokenizer stage.
///
/// # Errors
/// The task's or the user's texts cannot be read, or are too few for the tokenizer.
pub(super) fn measure(recipe: &Recipe, task: &dyn Task, prompting: Option<Prompting>) -> Result<Lengths, TrainError> {
    let seed = recipe.settings.seed;
    let mut tokenizer_seconds = 0.0;
    let prompting = match (prompting, recipe.find::<TokenizerStage>()) {
        (Some(prompting), _) => prompting,
        (None, Some(stage)) => {
            let is_this = |made: &RecipeStage| made.stage.as_any().is::<TokenizerStage>();
            let index = recipe.stages.iter().position(is_this).expect("just found");
            let share = TOKENIZER_SHARE.max((stage.documents as usize + stage.prompts) / TOKENIZER_TEXTS);
            let train = |share| {
                let texts = tokenizer_texts(stage, task, &recipe.settings, share)?;
                let began = Instant::now();
                let prompting = stage.prompting(&recipe.place(index), texts.iter().map(String::as_str))?;
                Ok::<_, TrainError>((prompting, began.elapsed().as_secs_f64() * share as f64))
            };
            // A part may be too small for the vocabulary although the whole is large enough.
            let (prompting, seconds) = train(share).or_else(|_| train(1))?;
            tokenizer_seconds = seconds;
            prompting
        }
        (None, None) => unreachable!("a recipe without either is refused when it is read"),
    };
    let cases = task.cases(Split::Train, TEXTS, seed)?;
    let prompts = cases.iter().map(|case| Ok(prompting.prompt(&case.prompt)?.len()));
    let prompts = prompts.collect::<Result<Vec<usize>, TrainError>>()?;
    let demonstrations = cases.iter().filter_map(|case| task.demonstration(case));
    let demonstrations: Vec<usize> = demonstrations.map(|text| prompting.completion(&text).len()).collect();
    let documents = (0..TEXTS as u64).map_while(|index| task.corpus(index, seed));
    let documents: Vec<usize> = documents.map(|text| prompting.document(&text).len()).collect();
    let characters: usize = cases.iter().map(|case| case.prompt_text().chars().count()).sum();
    Ok(Lengths {
        characters_per_token: characters as f64 / prompts.iter().sum::<usize>().max(1) as f64,
        document: mean(&documents).unwrap_or(0.0),
        prompt: mean(&prompts).unwrap_or(0.0),
        demonstration: mean(&demonstrations),
        tokenizer_seconds,
    })
}

/// One in `share` of the texts that a tokenizer stage is trained on. Unlike there, the user's texts still include those with held-out
/// cases.
fn tokenizer_texts(
    stage: &TokenizerStage,
    task: &dyn Task,
    settings: &Settings,
    share: usize,
) -> Result<Vec<String>, TrainError> {
    let documents = (0..stage.documents).step_by(share);
    let mut texts: Vec<String> = documents.map_while(|index| task.corpus(index, settings.seed)).collect();
    let paths = stage.texts.located(&settings.folder);
    if !paths.is_empty() {
        texts.extend(texts::read(&paths)?.texts.into_iter().step_by(share).map(|text| text.text));
    }
    let prompts = stage.prompts.div_ceil(share);
    texts.extend(task.cases(Split::Train, prompts, settings.seed)?.iter().map(|case| case.prompt_text()));
    Ok(texts)
}

fn mean(lengths: &[usize]) -> Option<f64> {
    (!lengths.is_empty()).then(|| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64)
}
