//! Sampling: from logits to a token.
//!
//! A token's log-probability is that under log-softmax(logits / temperature), **before** top-k, top-p, min-p and
//! penalties. It comes from the same kernel as the trainer's, and has the same bits. At temperature 0 the most likely
//! token is taken; if several are equally likely, the one with the lowest id. Log-probabilities are then those at
//! temperature 1.
//!
//! A draw inverts the cumulative distribution at one uniform random number. The key of this number is the request, the
//! sample and the position, so the draw depends neither on the batch nor on preemption.

use kernels::ops::sample::draw_rows;
use kernels::{Buffer, Queue, View};

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; dimensionless. 0 takes the most likely token.
    pub temperature: f32,
    /// Draws only from the `top_k` most likely tokens; 0 for all tokens.
    pub top_k: usize,
    /// Draws only from the most likely tokens that together reach this probability; 1 for all tokens.
    pub top_p: f32,
    /// Draws only from tokens that have at least this fraction of the most likely token's probability; 0 for all
    /// tokens.
    pub min_p: f32,
    /// For tokens that are already in the sequence, positive logits are divided by this and negative ones multiplied by
    /// it (Keskar et al. 2019, arXiv 1909.05858); 1 for no penalty.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl Sampling {
    /// Greedy decoding: temperature 0, no filters.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether tokens are drawn from the whole distribution, which reinforcement learning needs.
    pub fn is_plain(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0 && self.repetition_penalty == 1.0
    }

    /// The temperature at which log-probabilities are reported.
    pub fn logprob_temperature(&self) -> f32 {
        if self.temperature > 0.0 { self.temperature } else { 1.0 }
    }
}

/// What one row needs to draw its token.
pub(crate) struct Draw<'a> {
    pub sampling: &'a Sampling,
    /// The random number, in [0, 1).
    pub uniform: f64,
    /// The sequence so far, for the repetition penalty.
    pub tokens: &'a [u32],
}

/// Draws one token for each row of `logits` (`[R, V]`).
pub(crate) fn sample(queue: &Queue, logits: View<f32>, draws: &[Draw]) -> Vec<u32> {
    let uniforms: Vec<f32> = draws.iter().map(|draw| draw.uniform as f32).collect();
    let temperatures: Vec<f32> =
        draws.iter().map(|draw| if draw.sampling.is_plain() { draw.sampling.temperature } else { 0.0 }).collect();
    let (temperatures, uniforms) = (queue.upload(&temperatures), queue.upload(&uniforms));
    let mut ids = Buffer::zeros(queue.device(), draws.len());
    draw_rows(queue, logits, temperatures.view(), uniforms.view(), ids.view_mut());
    let mut ids = ids.to_host();
    for (row, draw) in draws.iter().enumerate().filter(|(_, draw)| !draw.sampling.is_plain()) {
        ids[row] = draw_filtered(logits.row_range(row..row + 1).to_host(), draw);
    }
    ids
}

/// A draw with penalties or filters, on the host, which is slower. It sorts the candidates by probability, cuts the
/// list, and draws from the renormalised rest.
fn draw_filtered(mut logits: Vec<f32>, draw: &Draw) -> u32 {
    let sampling = draw.sampling;
    if sampling.repetition_penalty != 1.0 {
        let mut seen = draw.tokens.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let logit = &mut logits[id as usize];
            *logit =
                if *logit > 0.0 { *logit / sampling.repetition_penalty } else { *logit * sampling.repetition_penalty };
        }
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if sampling.temperature <= 0.0 {
        return order.into_iter().min_by(by_logit).expect("a vocabulary has a token");
    }
    let keep = if sampling.top_k == 0 { order.len() } else { sampling.top_k.min(order.len()) };
    if keep < order.len() {
        order.select_nth_unstable_by(keep, by_logit);
        order.truncate(keep);
    }
    order.sort_unstable_by(by_logit);
    let top = f64::from(logits[order[0] as usize]);
    let weight = |id: u32| ((f64::from(logits[id as usize]) - top) / f64::from(sampling.temperature)).exp();
    let weights: Vec<f64> = order.iter().map(|&id| weight(id)).collect();
    let total: f64 = weights.iter().sum();
    let (mut kept, mut mass) = (0, 0.0);
    for &weight in &weights {
        // The first token is always kept. Top-p also keeps the token that crosses the threshold.
        if kept > 0 && (weight < f64::from(sampling.min_p) || mass >= f64::from(sampling.top_p) * total) {
            break;
        }
        kept += 1;
        mass += weight;
    }
    let mut rest = draw.uniform * mass;
    for (i, &weight) in weights[..kept].iter().enumerate() {
        rest -= weight;
        if rest < 0.0 {
            return order[i];
        }
    }
    order[kept - 1]
}
