//! How much each stage does, counted as its meters will count it.

use lm::Config;

use super::lengths::Lengths;
use crate::episodes::REPLY_TOKENS;
use crate::recipe::{Optimisation, Recipe, Stage, StageKind};

/// What one stage does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Packed tokens that are trained on.
    pub train_tokens: f64,
    /// Completions sampled, validation included.
    pub rollouts: f64,
    /// Tokens sampled.
    pub sampled_tokens: f64,
    /// Tokens that a teacher reads.
    pub teacher_tokens: f64,
    /// Operations of forward, backward and a model that is read at its own prefixes.
    pub training_flops: f64,
    /// Operations of sampling.
    pub sampling_flops: f64,
    /// Operations of a teacher's or a reference's forwards.
    pub reading_flops: f64,
}

impl Work {
    /// All of them.
    pub fn flops(&self) -> f64 {
        self.training_flops + self.sampling_flops + self.reading_flops
    }

    fn sample(&mut self, config: &Config, prompts: f64, samples: usize, prompt: f64, completion: f64) {
        self.rollouts += prompts * samples as f64;
        self.sampled_tokens += prompts * samples as f64 * completion;
        self.sampling_flops += prompts * sampling(config, 1, samples, prompt, completion);
    }
}

/// Operations of sampling `samples` completions of each of `prompts` prompts, a prompt computed once.
pub(super) fn sampling(config: &Config, prompts: usize, samples: usize, prompt: f64, completion: f64) -> f64 {
    let made = samples as f64 * completion;
    let pairs = prompt * prompt / 2.0 + made * (prompt + completion / 2.0);
    prompts as f64 * config.forward_flops((prompt + made) as usize, made as usize, pairs as usize)
}

/// A group as it is packed: its prompt once, its completions each with the prompt's last token before it.
fn packed(samples: usize, prompt: f64, completion: f64) -> (f64, f64) {
    let tokens = prompt + samples as f64 * (completion + 1.0);
    let pairs = prompt * prompt / 2.0 + samples as f64 * completion * (prompt + completion / 2.0);
    (tokens, pairs)
}

/// Steps and work of a stage.
pub(super) fn of(
    recipe: &Recipe,
    stage: &Stage,
    model: Option<&Config>,
    teacher: Option<&Config>,
    lengths: &Lengths,
) -> (u64, Work) {
    let mut work = Work::default();
    let Some(config) = model else { return (0, work) };
    let prompt = lengths.prompt;
    let count = |x: f64| x.round() as usize;
    let training = |keys: &Optimisation, tokens: f64, targets: f64, pairs: f64| {
        config.training_flops(keys.adapters(), count(tokens), count(targets), count(pairs))
    };
    let validate = |work: &mut Work, steps: u64, every: u64, cases: usize, max_new_tokens: usize| {
        let times = if every == 0 { 0 } else { steps.div_ceil(every) };
        work.sample(config, (times * cases as u64) as f64, 1, prompt, lengths.completion(max_new_tokens));
    };
    let steps = match &stage.kind {
        StageKind::Tokenizer(_) => 0,
        StageKind::Pretrain(keys) => {
            // Texts of the user are cut behind a line, near the context's end.
            let whole = if keys.texts.located(&recipe.folder).is_empty() { lengths.document } else { f64::INFINITY };
            let segment = whole.clamp(1.0, keys.context as f64);
            let tokens = keys.tokens as f64;
            work.train_tokens = tokens;
            work.training_flops = training(&keys.optimisation, tokens, tokens, tokens * segment / 2.0);
            keys.tokens.div_ceil(keys.tokens_per_step as u64)
        }
        StageKind::Sft(keys) => {
            let seen = keys.demonstrations as f64 * keys.epochs as f64;
            let completion = if keys.bare_answers { 0.0 } else { lengths.completion(usize::MAX) };
            let length = prompt + if completion.is_finite() { completion } else { 0.0 };
            work.train_tokens = seen * length;
            let pairs = seen * length * length / 2.0;
            work.training_flops = training(&keys.optimisation, seen * length, seen * (length - prompt), pairs);
            (keys.demonstrations.div_ceil(keys.demonstrations_per_step) as u64) * keys.epochs
        }
        StageKind::Grpo(keys) => {
            let groups = (keys.steps as usize * keys.prompts_per_step) as f64;
            let completion = lengths.completion(keys.max_new_tokens);
            work.sample(config, groups, keys.completions_per_prompt, prompt, completion);
            // Every further turn of a game reads all before it again.
            for turn in 1..keys.turns {
                let before = prompt + turn as f64 * (completion + REPLY_TOKENS as f64);
                let games = groups * keys.completions_per_prompt as f64;
                work.sampled_tokens += games * completion;
                work.sampling_flops += games * sampling(config, 1, 1, before, completion);
            }
            let completion = keys.turns as f64 * completion + (keys.turns - 1) as f64 * REPLY_TOKENS as f64;
            let (tokens, pairs) = packed(keys.completions_per_prompt, prompt, completion);
            let targets = keys.completions_per_prompt as f64 * completion;
            let updates = groups * keys.updates_per_batch as f64;
            work.train_tokens = updates * tokens;
            work.training_flops = updates * training(&keys.optimisation, tokens, targets, pairs);
            if keys.kl_coefficient != 0.0 {
                work.reading_flops = groups * config.forward_flops(count(tokens), count(targets), count(pairs));
            }
            validate(&mut work, keys.steps, keys.validate_every_steps, keys.validation_cases, keys.max_new_tokens);
            keys.steps
        }
        StageKind::Sample(keys) => {
            let completion = lengths.completion(keys.max_new_tokens);
            work.sample(config, keys.cases as f64, keys.samples, prompt, completion);
            work.teacher_tokens = if keys.teacher.is_none() { work.sampled_tokens } else { 0.0 };
            if keys.top_k > 0 {
                let length = prompt + completion;
                let read = teacher.unwrap_or(config).forward_flops(
                    count(length),
                    count(completion),
                    count(length * length / 2.0),
                );
                work.reading_flops = work.rollouts * read;
                work.teacher_tokens += if keys.teacher.is_some() { work.rollouts * length } else { 0.0 };
            }
            keys.cases.div_ceil(crate::stages::sample::CASES_PER_STEP) as u64
        }
        StageKind::Distill(keys) => {
            let data = recipe.stages.iter().find_map(|stage| match &stage.kind {
                StageKind::Sample(sample) if stage.name == keys.data => Some(sample),
                _ => None,
            });
            let (kept, completion) =
                data.map_or((0, 0.0), |data| (data.cases * data.samples, lengths.completion(data.max_new_tokens)));
            let (seen, length) = ((kept as u64 * keys.epochs) as f64, prompt + completion);
            let sizes = (seen * length, seen * completion, seen * length * length / 2.0);
            work.train_tokens = seen * length;
            work.training_flops = training(&keys.optimisation, sizes.0, sizes.1, sizes.2);
            if let Some(teacher) = teacher.filter(|_| keys.soft_weight != 0.0 || keys.hidden_weight != 0.0) {
                work.teacher_tokens = seen * length;
                work.reading_flops = teacher.forward_flops(count(sizes.0), count(sizes.1), count(sizes.2));
            }
            kept.div_ceil(keys.completions_per_step) as u64 * keys.epochs
        }
        StageKind::Dialogue(keys) => {
            let groups = (keys.steps as usize * keys.prompts_per_step) as f64;
            let completion = lengths.completion(keys.max_new_tokens);
            work.sample(config, groups, keys.completions_per_prompt, prompt, completion);
            let (tokens, pairs) = packed(keys.completions_per_prompt, prompt, completion);
            let targets = groups * keys.completions_per_prompt as f64 * completion;
            let sizes = (groups * tokens, targets, groups * pairs);
            work.train_tokens = groups * tokens;
            work.teacher_tokens = groups * tokens;
            work.training_flops = training(&keys.optimisation, sizes.0, sizes.1, sizes.2);
            work.reading_flops =
                teacher.unwrap_or(config).forward_flops(count(sizes.0), count(sizes.1), count(sizes.2));
            validate(&mut work, keys.steps, keys.validate_every_steps, keys.validation_cases, keys.max_new_tokens);
            keys.steps
        }
        StageKind::Eval(keys) => {
            let cases = keys.cases.unwrap_or(recipe.eval.cases) as f64;
            work.sample(config, cases, keys.samples, prompt, lengths.completion(recipe.eval.max_new_tokens));
            0
        }
    };
    (steps, work)
}
