//! Embedding: a row of the table for every token. The backward pass adds the gradients of each row.
//!
//! It panics for a token id that the table does not have. Gradients are added in token order, so they do not depend on
//! the number of threads.
//!
//! Read next: `ops/rmsnorm/mod.rs`.

mod cpu;

use super::split::{by_columns, by_rows};
use crate::check::{expect, expect_below};
use crate::{Queue, Real, View, ViewMut};
use cpu::{Backward, Forward};

/// Looks up the rows of `table`: `out[i] = table[tokens[i]]`.
///
/// # Shapes
/// * `tokens`: `[1, N]`; `table`: `[V, C]`; `out`: `[N, C]`, overwritten, widened to f32.
///
/// # Panics
/// When shapes disagree or a token is not below V.
pub fn embedding_forward<T: Real>(queue: &Queue, tokens: View<u32>, table: View<T>, out: ViewMut<f32>) {
    let (n, vocabulary, c) = (out.rows(), table.rows(), table.cols());
    expect(queue, "embedding_forward: tokens", &tokens, (1, n));
    expect(queue, "embedding_forward: table", &table, (vocabulary, c));
    expect(queue, "embedding_forward: out", &out, (n, c));
    expect_below("embedding_forward: token", tokens.row(0), vocabulary);
    by_rows(queue, out.rows(), out.cols(), |rows| {
        queue.isa().run_without_pairs(Forward { tokens: tokens.row(0), table, out: &out, rows });
    });
}

/// Gradient of [`embedding_forward`]: `d_table[tokens[i]] += d_out[i]`.
///
/// # Shapes
/// * `tokens`: `[1, N]`; `d_out`: `[N, C]`; `d_table`: `[V, C]`, accumulated in token order.
///
/// # Panics
/// When shapes disagree or a token is not below V.
pub fn embedding_backward(queue: &Queue, tokens: View<u32>, d_out: View<f32>, d_table: ViewMut<f32>) {
    let (n, vocabulary, c) = (d_out.rows(), d_table.rows(), d_table.cols());
    expect(queue, "embedding_backward: tokens", &tokens, (1, n));
    expect(queue, "embedding_backward: d_out", &d_out, (n, c));
    expect(queue, "embedding_backward: d_table", &d_table, (vocabulary, c));
    expect_below("embedding_backward: token", tokens.row(0), vocabulary);
    by_columns(queue, d_out.cols(), |cols| {
        queue.isa().run_without_pairs(Backward { tokens: tokens.row(0), d_out, d_table: &d_table, cols });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, assert_same_bits, queues, random, wide};

    fn check_against_reference<T: Real>(n: usize, vocabulary: usize, c: usize) {
        let tokens: Vec<u32> = (0..n).map(|i| ((i * 7 + i / 3) % vocabulary) as u32).collect();
        let (table, d_out) = (random::<T>(1, vocabulary * c), random::<f32>(2, n * c));
        let mut sums = wide(&random::<f32>(3, vocabulary * c));
        for (i, &token) in tokens.iter().enumerate() {
            (0..c).for_each(|j| sums[token as usize * c + j] += f64::from(d_out[i * c + j]));
        }
        for queue in queues() {
            let (mut out, mut d_table) = (vec![7.0; n * c], random::<f32>(3, vocabulary * c));
            let tokens_view = View::of(&tokens, 1, n);
            embedding_forward(&queue, tokens_view, View::of(&table, vocabulary, c), ViewMut::of(&mut out, n, c));
            for (i, &token) in tokens.iter().enumerate() {
                let wanted: Vec<f32> = table[token as usize * c..][..c].iter().map(|x| x.to_f32()).collect();
                assert_same_bits("row", &out[i * c..][..c], &wanted);
            }
            let view = ViewMut::of(&mut d_table, vocabulary, c);
            embedding_backward(&queue, tokens_view, View::of(&d_out, n, c), view);
            assert_close("d_table", &d_table, &sums, 1e-6);
        }
    }

    #[test]
    fn rows_are_looked_up_and_gradients_added() {
        for (n, vocabulary, c) in [(0, 5, 8), (1, 1, 1), (37, 5, 20), (300, 11, 131)] {
            check_against_reference::<f32>(n, vocabulary, c);
            check_against_reference::<bf16>(n, vocabulary, c);
        }
    }

    #[test]
    #[should_panic(expected = "token 5 is not below 5")]
    fn a_token_beyond_the_table_panics() {
        let (mut out, queue) = ([0.0; 4], &queues()[0]);
        embedding_forward(queue, View::of(&[5], 1, 1), View::of(&[0f32; 20], 5, 4), ViewMut::of(&mut out, 1, 4));
    }
}
