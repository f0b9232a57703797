//! The k most likely tokens of each row, with their log-probabilities.
//!
//! Read next: `ops/head/mod.rs`.

use super::super::split::by_rows;
use super::cpu::TopK;
use crate::check::expect;
use crate::{Queue, View, ViewMut};

/// The k largest log-probabilities of each row, largest first. If two are equal, the lower id comes first.
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
    let r = logits.rows();
    assert!(k <= logits.cols(), "top_k_rows: {k} of a vocabulary of {}", logits.cols());
    expect(queue, "top_k_rows: logits", &logits, (r, logits.cols()));
    expect(queue, "top_k_rows: ids", &ids, (r, k));
    expect(queue, "top_k_rows: logprobs", &logprobs, (r, k));
    by_rows(queue, r, logits.cols(), |rows| {
        queue.isa().run_without_pairs(TopK { logits, temperature, ids: &ids, logprobs: &logprobs, rows });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, queues, random};

    #[test]
    fn the_largest_come_first_and_ties_go_to_the_lower_id() {
        for (r, v, k) in [(0, 5, 2), (1, 1, 1), (3, 5, 5), (4, 37, 0), (9, 1000, 20), (2, 1000, 700)] {
            // Few distinct values, so that there are many ties. One row is −∞ except for its last element.
            let mut logits: Vec<f32> = random::<f32>(1, r * v).iter().map(|x| (x * 20.0).round() / 4.0).collect();
            if r == 9 {
                logits[3 * v..4 * v - 1].fill(f32::NEG_INFINITY);
            }
            for queue in queues() {
                let (mut ids, mut logprobs) = (vec![9; r * k], vec![9.0; r * k]);
                let (ids_view, view) = (ViewMut::of(&mut ids, r, k), ViewMut::of(&mut logprobs, r, k));
                top_k_rows(&queue, View::of(&logits, r, v), 0.7, k, ids_view, view);
                for i in 0..r {
                    let row = &logits[i * v..][..v];
                    let mut order: Vec<u32> = (0..v as u32).collect();
                    order.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap().then(a.cmp(&b)));
                    assert_eq!(ids[i * k..][..k], order[..k]);
                    let log = row.iter().map(|x| (f64::from(*x) / 0.7).exp()).sum::<f64>().ln();
                    let finite = order[..k].iter().take_while(|id| row[**id as usize].is_finite());
                    let wanted: Vec<f64> = finite.map(|id| f64::from(row[*id as usize]) / 0.7 - log).collect();
                    assert_close("logprobs", &logprobs[i * k..][..wanted.len()], &wanted, 1e-6);
                }
            }
        }
    }
}
