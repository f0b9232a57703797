//! Memory of a stage at its highest: weights, moments, packed copies, activations, caches, and a checkpoint on its way to the disk.

use std::collections::BTreeMap;

use kernels::{Device, Real};
use lm::backward::BackwardBuffers;
use lm::generate::{KvCache, PAGE};
use lm::head::HeadBuffers;
use lm::{Activations, Config, Keep};

use super::PlannedModel;
use super::lengths::Lengths;
use crate::episodes::REPLY_TOKENS;
use crate::recipe::{Optimisation, Recipe, Stage, StageKind};
use crate::rollout::SEQUENCES;

/// Rows that the scheduler computes at once, at the least.
const SCHEDULER_ROWS: usize = 512;

/// Bytes of a stage. Every model's master weights stand in memory all the time.
pub(super) fn of<T: Real>(
    recipe: &Recipe,
    stage: &Stage,
    models: &BTreeMap<&str, &PlannedModel>,
    lengths: &Lengths,
) -> u64 {
    let masters: usize = models.values().map(|model| 4 * model.config.parameters()).sum();
    let config = |name: Option<&str>| name.map(|name| &models[name].config);
    let Some(model) = config(stage.kind.model()) else { return masters as u64 };
    let prompt = lengths.prompt.ceil() as usize;
    let cache = |prompts: usize, samples: usize, max_new_tokens: usize| {
        let pages = SEQUENCES.min(prompts * samples) * (prompt + max_new_tokens).div_ceil(PAGE);
        pages * KvCache::<T>::page_bytes(model) + SCHEDULER_ROWS * activations::<T>(model, Keep::Nothing)
    };
    let speaking = |prompts, samples, max_new_tokens| packed::<T>(model, 1) + cache(prompts, samples, max_new_tokens);
    let learning = |keys: &Optimisation| {
        let keep = if keys.recompute { Keep::Residuals } else { Keep::Everything };
        learner::<T>(model, keys, keep)
    };
    let reading = |name: Option<&str>, tokens: usize| {
        config(name).map_or(0, |teacher| packed::<T>(teacher, 1) + tokens * activations::<T>(teacher, Keep::Nothing))
    };
    let own = match &stage.kind {
        StageKind::Tokenizer(_) => 0,
        StageKind::Pretrain(keys) => learning(&keys.optimisation),
        StageKind::Sft(keys) => learning(&keys.optimisation),
        StageKind::Grpo(keys) => {
            let tokens = keys.optimisation.tokens_per_micro_batch;
            let reference = (keys.kl_coefficient != 0.0).then_some(keys.model.as_str());
            learning(&keys.optimisation)
                + cache(
                    keys.prompts_per_step,
                    keys.completions_per_prompt,
                    keys.turns * (keys.max_new_tokens + REPLY_TOKENS),
                )
                + reading(reference, tokens)
        }
        StageKind::Sample(keys) => {
            let reader = (keys.top_k > 0).then(|| keys.teacher.as_deref().unwrap_or(&keys.model));
            speaking(keys.cases, keys.samples, keys.max_new_tokens) + reading(reader, SCHEDULER_ROWS)
        }
        StageKind::Distill(keys) => {
            let teacher = keys.teacher.as_deref().filter(|_| keys.soft_weight != 0.0 || keys.hidden_weight != 0.0);
            learning(&keys.optimisation) + reading(teacher, keys.optimisation.tokens_per_micro_batch)
        }
        StageKind::Dialogue(keys) => {
            learning(&keys.optimisation)
                + cache(keys.prompts_per_step, keys.completions_per_prompt, keys.max_new_tokens)
                + reading(Some(&keys.teacher), keys.optimisation.tokens_per_micro_batch)
        }
        StageKind::Eval(keys) => {
            let cases = keys.cases.unwrap_or(recipe.eval.cases);
            speaking(cases, keys.samples, recipe.eval.max_new_tokens)
        }
    };
    (masters + own) as u64
}

/// A learner beside its master: gradient, moments, both packings, activations, and the copy that a checkpoint writes. Adapters have a state of their
/// own size, and one layer's sums.
fn learner<T: Real>(config: &Config, keys: &Optimisation, keep: Keep) -> usize {
    let tokens = keys.tokens_per_micro_batch;
    let backward = BackwardBuffers::<T>::new(Device::Cpu, config, 1).size_bytes() + 4 * config.hidden_size;
    let head = 2 * HeadBuffers::<T>::new(Device::Cpu, config).size_bytes();
    let (state, adapters) = match keys.adapters() {
        None => (4 * config.parameters(), 0),
        Some(lora) => {
            let (learns, embedding) = (lora.parameters(config), config.vocab_size * config.hidden_size);
            let layer = (config.parameters() - embedding) / config.num_hidden_layers;
            (4 * learns, (4 + size_of::<T>()) * learns + 4 * layer)
        }
    };
    3 * state
        + 3 * state
        + adapters
        + packed::<T>(config, 2)
        + tokens * (activations::<T>(config, keep) + backward)
        + head
}

/// The copies that products read, of one or both directions, and the embedding.
fn packed<T: Real>(config: &Config, directions: usize) -> usize {
    let embedding = config.vocab_size * config.hidden_size;
    let tables = if config.tie_word_embeddings { 1 } else { 2 };
    let layers = config.parameters() - tables * embedding;
    size_of::<T>() * (directions * (layers + embedding) + embedding)
}

/// Activations of one token.
fn activations<T: Real>(config: &Config, keep: Keep) -> usize {
    Activations::<T>::new(Device::Cpu, config, 1, keep).size_bytes()
}
