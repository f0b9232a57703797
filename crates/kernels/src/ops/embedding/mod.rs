//! Embedding: a row of the table for every token, and the sum of gradients for every row of the table.
//!
//! It never checks that a token is in the vocabulary more than once: an id beyond the table panics. Gradients are
//! added in token order, so they do not depend on the number of threads.
//!
//! Read next: `ops/rmsnorm/mod.rs`.

use crate::{Queue, Real, View, ViewMut};

/// Looks up the rows of `table`: `out[i] = table[tokens[i]]`.
///
/// # Shapes
/// * `tokens`: `[1, N]`; `table`: `[V, C]`; `out`: `[N, C]`, overwritten, widened to f32.
///
/// # Panics
/// When shapes disagree or a token is not below V.
pub fn embedding_forward<T: Real>(queue: &Queue, tokens: View<u32>, table: View<T>, out: ViewMut<f32>) {
    let mut out = out;
    let _ = queue;
    check(tokens, out.rows(), table.rows(), table.cols(), out.cols());
    for (i, &token) in tokens.row(0).iter().enumerate() {
        for (out, x) in out.row_mut(i).iter_mut().zip(table.row(token as usize)) {
            *out = x.to_f32();
        }
    }
}

/// Gradient of [`embedding_forward`]: `d_table[tokens[i]] += d_out[i]`.
///
/// # Shapes
/// * `tokens`: `[1, N]`; `d_out`: `[N, C]`; `d_table`: `[V, C]`, accumulated in token order.
///
/// # Panics
/// When shapes disagree or a token is not below V.
pub fn embedding_backward(queue: &Queue, tokens: View<u32>, d_out: View<f32>, d_table: ViewMut<f32>) {
    let mut d_table = d_table;
    let _ = queue;
    check(tokens, d_out.rows(), d_table.rows(), d_table.cols(), d_out.cols());
    for (i, &token) in tokens.row(0).iter().enumerate() {
        for (sum, d) in d_table.row_mut(token as usize).iter_mut().zip(d_out.row(i)) {
            *sum += d;
        }
    }
}

fn check(tokens: View<u32>, rows: usize, vocabulary: usize, width: usize, cols: usize) {
    assert_eq!((tokens.cols(), width), (rows, cols), "embedding: tokens and table width against rows and columns");
    if rows > 0 {
        let largest = tokens.row(0).iter().copied().max().unwrap_or(0);
        assert!((largest as usize) < vocabulary, "embedding: token {largest} of a table of {vocabulary} rows");
    }
}
