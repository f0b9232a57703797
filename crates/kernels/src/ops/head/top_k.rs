//! The k most likely tokens of each row, with their log-probabilities.
//!
//! Read next: `ops/head/mod.rs`.

use crate::{Queue, View, ViewMut};

/// The k largest log-probabilities of each row, largest first, ties to the lower id.
///
/// # Shapes and units
/// * `logits`: `[R, V]`; `temperature` > 0 divides them; `k` ≤ V.
/// * `ids`, `logprobs` (nats): `[R, k]`, overwritten.
///
/// # Panics
/// When shapes disagree or k exceeds V.
pub fn top_k_rows(
    queue: &Queue,
    logits: View<f32>,
    temperature: f32,
    k: usize,
    ids: ViewMut<u32>,
    logprobs: ViewMut<f32>,
) {
    let (mut ids, mut logprobs) = (ids, logprobs);
    let _ = queue;
    let r = logits.rows();
    assert!(k <= logits.cols(), "top_k_rows: {k} of a vocabulary of {}", logits.cols());
    assert_eq!((ids.rows(), ids.cols()), (r, k), "top_k_rows: ids against rows and k");
    assert_eq!((logprobs.rows(), logprobs.cols()), (r, k), "top_k_rows: logprobs against rows and k");
    for i in 0..r {
        let row = logits.row(i);
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log = row.iter().map(|x| ((x - max) / temperature).exp()).sum::<f32>().ln();
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
        for (slot, &id) in order[..k].iter().enumerate() {
            ids.row_mut(i)[slot] = id;
            logprobs.row_mut(i)[slot] = (row[id as usize] - max) / temperature - log;
        }
    }
}
