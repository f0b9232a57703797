//! The matrix products of a model at its own sizes.

use kernels::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use kernels::{Buffer, Queue, Real, Scratch};
use lm::Config;
use serde::Serialize;

use super::timing::seconds;

/// One product's rate.
#[derive(Serialize)]
pub struct Row {
    /// `matmul`, or `gradient` for the gradient of weights.
    pub operation: &'static str,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub dtype: &'static str,
    /// Whether an operand was packed beforehand, as weights are.
    pub packed: bool,
    pub gflops: f64,
}

/// Rows of a training batch.
const ROWS: usize = 2048;
/// Time for one product, in seconds.
const SECONDS: f64 = 0.3;

/// Measures every product of a layer and the head with the rows of a training batch, the widest ones with those of a
/// decoding batch, and a gradient.
pub fn measure<T: Real>(queue: &Queue, config: &Config) -> Vec<Row> {
    let (hidden, inner, queries) = (config.hidden_size, config.intermediate_size, config.query_size());
    let qkv = queries + 2 * config.key_value_size();
    let sizes = [(qkv, hidden), (hidden, queries), (2 * inner, hidden), (hidden, inner), (config.vocab_size, hidden)];
    let mut rows: Vec<Row> =
        sizes.iter().map(|&(n, k)| product::<T>(queue, ROWS.min((1 << 24) / n.max(1)).max(256), n, k)).collect();
    for m in [1, 32] {
        rows.extend([2, 4].map(|at: usize| product::<T>(queue, m, sizes[at].0, sizes[at].1)));
    }
    rows.push(gradient::<T>(queue, 2 * inner, hidden));
    rows
}

fn numbers<T: Real>(queue: &Queue, len: usize) -> Buffer<T> {
    let values: Vec<T> = (0..len).map(|i| T::from_f32((i * 7 % 13) as f32 * 0.1 - 0.6)).collect();
    Buffer::from_host(queue.device(), &values)
}

fn product<T: Real>(queue: &Queue, m: usize, n: usize, k: usize) -> Row {
    let a = numbers::<T>(queue, m * k);
    let weights = numbers::<f32>(queue, n * k);
    let mut packed = Packed::<T>::zeros(queue.device(), k, n);
    packed.pack(queue, weights.matrix(n, k), 1);
    drop(weights);
    let mut out = Buffer::<f32>::zeros(queue.device(), m * n);
    let best = fastest(|| matmul(queue, a.matrix(m, k), packed.at(1), Epilogue::default(), out.matrix_mut(m, n)));
    Row { operation: "matmul", m, n, k, dtype: T::DTYPE.name(), packed: true, gflops: gflops(m, n, k, best) }
}

fn gradient<T: Real>(queue: &Queue, outputs: usize, inputs: usize) -> Row {
    let (d_out, x) = (numbers::<T>(queue, ROWS * outputs), numbers::<T>(queue, ROWS * inputs));
    let mut d_weights = Buffer::<f32>::zeros(queue.device(), outputs * inputs);
    let mut scratch = Scratch::new(queue.device());
    let best = fastest(|| {
        let out = d_weights.matrix_mut(outputs, inputs);
        matmul_transposed_a(queue, d_out.matrix(ROWS, outputs), x.matrix(ROWS, inputs), out, false, &mut scratch);
    });
    let (m, n, k) = (outputs, inputs, ROWS);
    Row { operation: "gradient", m, n, k, dtype: T::DTYPE.name(), packed: false, gflops: gflops(m, n, k, best) }
}

fn gflops(m: usize, n: usize, k: usize, seconds: f64) -> f64 {
    2.0 * m as f64 * n as f64 * k as f64 / seconds / 1e9
}

/// Seconds of the fastest of many runs. The first run is not counted.
fn fastest(mut run: impl FnMut()) -> f64 {
    run();
    let (mut best, mut spent) = (f64::INFINITY, 0.0);
    while spent < SECONDS {
        let once = seconds(&mut run);
        best = best.min(once);
        spent += once;
    }
    best
}
