//! Loads, copies, exports and digests the weights of a pipeline's models.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kernels::rng::Key;
use kernels::{Device, Queue};
use lm::Arena;
use lm::checkpoint::huggingface::{Companions, GenerationConfig, save};
use lm::checkpoint::{Checkpoint, Storage};
use lm::config::Config;
use lm::tokenizer::Tokenizer;
use store::{ModelDigest, Run};

use crate::check::Sources;
use crate::error::TrainError;
use crate::prompting::Prompting;
use crate::recipe::outline::Outline;
use crate::recipe::resolved::Recipe;
use crate::recipe::settings::Settings;
use crate::trainer::Trainer;

/// Every model's weights by name.
type Models = BTreeMap<String, Arena>;

/// The weights and the prompting as they are before stage `first`.
///
/// # Errors
/// A model's files or a stage's export cannot be read.
pub(super) fn restore(
    queue: &Queue,
    recipe: &Recipe,
    run: &Run,
    first: usize,
) -> Result<(Models, Option<Arc<Prompting>>), TrainError> {
    let sources = Sources::open(&recipe.settings)?;
    let mut models = Models::new();
    for (name, checkpoint) in &sources.checkpoints {
        let weights = Arena::load(queue.device(), checkpoint.config(), checkpoint.tensors())?;
        models.insert(name.clone(), weights);
    }
    let mut prompting = sources.prompting.map(Arc::new);
    let mut made_tokenizer = false;
    for stage in recipe.outlines[..first].iter().filter(|stage| stage.exports()) {
        let folder = run.exported_model(&stage.name)?;
        if stage.vocab_size().is_some() {
            prompting = Some(Arc::new(Prompting::new(Tokenizer::open_folder(&folder)?, None, &[])?));
            made_tokenizer = true;
        }
        if let Some(model) = stage.trained() {
            let checkpoint = lm::checkpoint::open(&folder)?;
            let weights = Arena::load(queue.device(), checkpoint.config(), checkpoint.tensors())?;
            models.insert(model.to_string(), weights);
            copy(&recipe.settings, stage, &mut models);
        }
    }
    // Models with random weights exist as soon as their vocabulary is known.
    if let Some(prompting) = prompting.as_ref().filter(|_| made_tokenizer || !models.is_empty()) {
        add_random(queue, &recipe.settings, prompting, &mut models)?;
    }
    Ok((models, prompting))
}

/// Gives random weights to every model that needs them, once the tokenizer is trained.
pub(super) fn random(trainer: &mut Trainer) -> Result<(), TrainError> {
    let prompting = trainer.prompting()?;
    add_random(trainer.queue, trainer.settings, &prompting, trainer.models)
}

fn add_random(
    queue: &Queue,
    settings: &Settings,
    prompting: &Prompting,
    models: &mut Models,
) -> Result<(), TrainError> {
    for (name, source) in &settings.models {
        let Some(shape) = source.shape() else { continue };
        if models.contains_key(name) {
            continue;
        }
        let vocabulary = prompting.tokenizer.vocab_size();
        let mut config = Config::from_shape(shape, Some(vocabulary), Path::new(&settings.name))?;
        config.eos_token_id = prompting.end_tokens.clone();
        config.bos_token_id = prompting.tokenizer.special().bos;
        let key = Key::new(settings.seed).word("model").word(name).bits(0);
        models.insert(name.clone(), Arena::random(queue.device(), &config, key));
    }
    Ok(())
}

/// Copies the weights that a stage has trained to every model that starts from them.
pub(super) fn copy(settings: &Settings, stage: &Outline, models: &mut Models) {
    let Some(made) = stage.trained() else { return };
    for (name, source) in &settings.models {
        if source.copied_from() == Some(&stage.name) {
            models.insert(name.clone(), models[made].clone());
        }
    }
}

/// Exports a model's weights in f32 as a Hugging Face folder under the stage's name; returns their digest.
pub(super) fn export(trainer: &Trainer, model: &str) -> Result<String, TrainError> {
    let weights = trainer.weights(model);
    let prompting = trainer.prompting()?;
    let export = trainer.run.begin_export(trainer.stage)?;
    let generation =
        GenerationConfig { eos_token_id: prompting.end_tokens.clone(), ..GenerationConfig::of(weights.config()) };
    let companions = Companions {
        config: weights.config(),
        generation: &generation,
        tokenizer: Some(&prompting.tokenizer),
        template: prompting.template.as_ref().map(|template| template.source()),
    };
    save(export.folder(), companions, weights, Storage::F32)?;
    export.finish()?;
    digest(weights)
}

/// The digest of a model on disk: that of its weights in f32, as a stage's row in the ladder has it.
///
/// # Errors
/// Weights that cannot be read.
pub fn digest_of(device: Device, checkpoint: &Checkpoint) -> Result<String, TrainError> {
    digest(&Arena::load(device, checkpoint.config(), checkpoint.tensors())?)
}

/// BLAKE3 over name, dtype, shape and little-endian bytes of the tensors in name order.
pub fn digest(weights: &Arena) -> Result<String, TrainError> {
    let mut order: Vec<usize> = (0..weights.specs().len()).collect();
    order.sort_by(|&a, &b| weights.specs()[a].name.cmp(&weights.specs()[b].name));
    let mut digest = ModelDigest::new();
    for index in order {
        let spec = &weights.specs()[index];
        let shape: Vec<u64> = spec.shape.iter().map(|&n| n as u64).collect();
        let bytes: Vec<u8> = weights.tensor(index).to_host().iter().flat_map(|value| value.to_le_bytes()).collect();
        digest.tensor(&spec.name, "F32", &shape, &bytes)?;
    }
    Ok(digest.finish()?)
}
