//! Draws a token from each row of logits.
//!
//! A token's weight is `exp((logit − max) / temperature)`. Let `u` be uniform in [0, 1). In order of ids, the first
//! token at which the running sum of weights exceeds `u` times the total is drawn. This inverts the cumulative
//! distribution. A draw depends only on its row and on `u`.

mod cpu;

use crate::check::expect;
use crate::{Queue, View, ViewMut};

/// Draws one token id for each row.
///
/// # Shapes and units
/// * `logits`: `[R, V]`. `temperature`, `uniform`: `[1, R]`. `ids`: `[1, R]`, overwritten.
/// * Temperature 0 takes the greatest logit; if several are equal, the one with the lowest id. Uniform numbers lie in
///   [0, 1).
///
/// # Panics
/// When shapes disagree or V is 0.
pub fn draw_rows(queue: &Queue, logits: View<f32>, temperature: View<f32>, uniform: View<f32>, ids: ViewMut<u32>) {
    let rows = logits.rows();
    expect(queue, "draw_rows: logits", &logits, (rows, logits.cols()));
    expect(queue, "draw_rows: temperature", &temperature, (1, rows));
    expect(queue, "draw_rows: uniform", &uniform, (1, rows));
    expect(queue, "draw_rows: ids", &ids, (1, rows));
    assert!(logits.cols() > 0, "draw_rows: an empty vocabulary");
    cpu::draw_rows(queue, logits, temperature.row(0), uniform.row(0), ids);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn draw(isa: Isa, logits: &[f32], rows: usize, temperature: f32, uniform: &[f32]) -> Vec<u32> {
        let mut ids = vec![0; rows];
        draw_rows(
            &Queue::cpu(2, isa),
            View::of(logits, rows, logits.len() / rows),
            View::of(&vec![temperature; rows], 1, rows),
            View::of(uniform, 1, rows),
            ViewMut::of(&mut ids, 1, rows),
        );
        ids
    }

    #[test]
    fn inverts_the_cumulative_distribution() {
        for vocabulary in [1, 5, 64, 700] {
            let logits: Vec<f32> = (0..vocabulary).map(|i| ((i * 7919 + 3) % 23) as f32 * 0.2 - 2.0).collect();
            for temperature in [0.5f64, 1.0, 2.0] {
                let weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
                let total: f64 = weights.iter().sum();
                for step in 0..200 {
                    let u = (f64::from(step) + 0.37) / 200.0;
                    let mut below = 0.0;
                    let expected = weights.iter().position(|w| {
                        below += w;
                        below > u * total
                    });
                    // Very close to a boundary, both tokens are accepted.
                    let slack = |shift: f64| {
                        let mut below = 0.0;
                        weights.iter().position(|w| {
                            below += w;
                            below > (u + shift) * total
                        })
                    };
                    if slack(1e-5) != slack(-1e-5) {
                        continue;
                    }
                    for isa in Isa::available() {
                        let id = draw(isa, &logits, 1, temperature as f32, &[u as f32])[0];
                        assert_eq!(Some(id as usize), expected, "{isa:?}, {vocabulary} tokens, u = {u}");
                    }
                }
            }
        }
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_greatest() {
        let mut logits = vec![0.0; 2 * 100];
        (logits[37], logits[81], logits[199]) = (4.0, 4.0, 1.0);
        for isa in Isa::available() {
            assert_eq!(draw(isa, &logits, 2, 0.0, &[0.9, 0.1]), [37, 99], "{isa:?}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let logits: Vec<f32> = (0..9 * 333).map(|i| ((i * 31) % 17) as f32 * 0.3).collect();
        let uniform: Vec<f32> = (0..9).map(|i| i as f32 / 9.0).collect();
        for isa in Isa::available() {
            let together = draw(isa, &logits, 9, 0.7, &uniform);
            for row in 0..9 {
                let alone = draw(isa, &logits[row * 333..][..333], 1, 0.7, &uniform[row..=row]);
                assert_eq!(alone[0], together[row]);
            }
        }
    }
}
