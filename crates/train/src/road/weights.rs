//! Where weights come from and where they go: sources, exports, digests.

use std::path::Path;
use std::sync::Arc;

use kernels::Queue;
use lm::Arena;
use lm::checkpoint::Storage;
use lm::checkpoint::huggingface::{Companions, GenerationConfig, save};
use lm::config::Config;
use lm::rng::Key;
use lm::tokenizer::Tokenizer;
use store::{ModelDigest, Run};

use super::Models;
use crate::check::Sources;
use crate::codec::Codec;
use crate::error::TrainError;
use crate::recipe::{ModelSource, Recipe, Stage, StageKind};
use crate::walk::Walk;

/// The weights and the codec as they stand before stage `first`.
pub(super) fn restore(
    queue: &Queue,
    recipe: &Recipe,
    run: &Run,
    first: usize,
) -> Result<(Models, Option<Arc<Codec>>), TrainError> {
    let sources = Sources::open(recipe)?;
    let mut models = Models::new();
    for (name, checkpoint) in &sources.checkpoints {
        let weights = Arena::load(queue.device(), checkpoint.config(), checkpoint.tensors())?;
        models.insert(name.clone(), weights);
    }
    let mut codec = sources.codec.map(Arc::new);
    let mut made_tokenizer = false;
    for stage in &recipe.stages[..first] {
        let folder = run.model_folder(&stage.name);
        match &stage.kind {
            StageKind::Tokenizer(_) => {
                codec = Some(Arc::new(Codec::new(Tokenizer::open_folder(&folder)?, None, &[])?));
                made_tokenizer = true;
            }
            StageKind::Sample(_) | StageKind::Eval(_) => {}
            kind => {
                let checkpoint = lm::checkpoint::open(&folder)?;
                let weights = Arena::load(queue.device(), checkpoint.config(), checkpoint.tensors())?;
                models.insert(kind.model().expect("a training stage has a model").to_string(), weights);
                copy(recipe, stage, &mut models);
            }
        }
    }
    // Models of random weights exist from the moment their vocabulary is known.
    if let Some(codec) = codec.as_ref().filter(|_| made_tokenizer || !models.is_empty()) {
        add_random(queue, recipe, codec, &mut models)?;
    }
    Ok((models, codec))
}

/// Gives random weights to every model whose vocabulary has just become known.
pub(super) fn random(recipe: &Recipe, walk: &mut Walk) -> Result<(), TrainError> {
    let codec = walk.codec()?;
    add_random(walk.queue, recipe, &codec, walk.models)
}

fn add_random(queue: &Queue, recipe: &Recipe, codec: &Codec, models: &mut Models) -> Result<(), TrainError> {
    for (name, source) in &recipe.models {
        let ModelSource::Random(shape) = source else { continue };
        if models.contains_key(name) {
            continue;
        }
        let vocabulary = codec.tokenizer.vocab_size();
        let mut config = Config::from_shape(shape, Some(vocabulary), Path::new(&recipe.name))?;
        config.eos_token_id = codec.end_tokens.clone();
        config.bos_token_id = codec.tokenizer.special().bos;
        let key = Key::new(recipe.seed).word("model").word(name).bits(0);
        models.insert(name.clone(), Arena::random(queue.device(), &config, key));
    }
    Ok(())
}

/// Gives the stage's weights to every model that starts as a copy of them.
pub(super) fn copy(recipe: &Recipe, stage: &Stage, models: &mut Models) {
    let Some(made) = stage.kind.trained() else { return };
    for (name, source) in &recipe.models {
        if matches!(source, ModelSource::Stage { from } if *from == stage.name) {
            models.insert(name.clone(), models[made].clone());
        }
    }
}

/// Exports a model's weights in f32 as a Hugging Face folder under the stage's name; returns their digest.
pub(super) fn export(walk: &Walk, model: &str) -> Result<String, TrainError> {
    let weights = walk.weights(model);
    let codec = walk.codec()?;
    let export = walk.run.begin_export(walk.stage)?;
    let generation =
        GenerationConfig { eos_token_id: codec.end_tokens.clone(), ..GenerationConfig::of(weights.config()) };
    let companions = Companions {
        config: weights.config(),
        generation: &generation,
        tokenizer: Some(&codec.tokenizer),
        template: codec.template.as_ref().map(|template| template.source()),
    };
    save(export.folder(), companions, weights, Storage::F32)?;
    export.finish()?;
    digest(weights)
}

/// BLAKE3 over name, dtype, shape and little-endian bytes of the tensors in name order.
pub fn digest(weights: &Arena) -> Result<String, TrainError> {
    let mut order: Vec<usize> = (0..weights.specs().len()).collect();
    order.sort_by(|&a, &b| weights.specs()[a].name.cmp(&weights.specs()[b].name));
    let mut digest = ModelDigest::new();
    for index in order {
        let spec = &weights.specs()[index];
        let shape: Vec<u64> = spec.shape.iter().map(|&n| n as u64).collect();
        let bytes: Vec<u8> = weights.tensor(index).iter().flat_map(|value| value.to_le_bytes()).collect();
        digest.tensor(&spec.name, "F32", &shape, &bytes)?;
    }
    Ok(digest.finish()?)
}
