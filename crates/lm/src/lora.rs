//! Low-rank adapters (LoRA): a frozen matrix `W` acts as `W + s·B·A`, and only `A` and `B` are trained.
//!
//! Every matrix of every layer has a pair: `A` is `[r, in]`, `B` is `[out, r]`, and `s = alpha / r`. Embedding, head,
//! norms and biases are frozen. The results are those of the paper, but the computation differs in three points:
//!
//! 1. The model's packed weights are made from the sums `W + s·B·A` ([`Adapters::pack`]). So forward, head and text
//!    generation are the same as for any other model. The sampler still equals the trainer, and a token costs no more
//!    than without adapters.
//! 2. Backward never computes the gradient of `W`. It computes two products of width `r` instead.
//! 3. `B` is stored as its transpose `[r, out]`, which is the form that every product here reads.
//!
//! # Source
//! Hu et al. 2021, arXiv 2106.09685. As in peft, `A` starts uniform between `−1/√in` and `1/√in`, and `B` starts at
//! zero.
//!
//! Read next: `backward.rs`, which passes the operands of each weight's gradient.

use std::ops::Range;

use kernels::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use kernels::ops::elementwise::convert;
use kernels::rng::Key;
use kernels::{Buffer, Queue, Real, Scratch, View, ViewMut};

use crate::config::Config;
use crate::layer::Pass;
use crate::layout::Layout;
use crate::model::Model;
use crate::params::Arena;

use crate::table::{GroupId, Table, TensorRole, TensorSpec};

/// Width and scale of the adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r: the width of the pair.
    pub rank: usize,
    /// The product `B·A` is added with the factor `alpha / rank`.
    pub alpha: f32,
}

impl LoraConfig {
    fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Number of trained weights in a model of this shape.
    pub fn parameters(&self, config: &Config) -> usize {
        let weights = |spec: &TensorSpec| self.rank * (spec.shape[0] + spec.shape[1]);
        config.tensors().iter().filter(|spec| spec.is_layer_matrix()).map(weights).sum()
    }
}

/// Number of elements of the largest matrix to which adapters are added. [`Adapters`] hold one such sum at a time.
pub fn largest_sum(config: &Config) -> usize {
    let table = Layout::of(config).table;
    let adapted = table.groups().filter(|(_, group)| table.tensors_of(group)[0].is_layer_matrix());
    adapted.map(|(_, group)| group.rows * group.cols).max().unwrap_or(0)
}

/// A pair in the form that products read.
struct Pair<T: Real> {
    /// `s·A`, packed for the product with its transpose: rows `[N, in]` become rows `[N, r]`.
    a: Packed<T>,
    /// `s·Bᵀ`, packed in the same way: a gradient `[N, out]` becomes a gradient `[N, r]`.
    b: Packed<T>,
}

/// The adapters of a model in training: the trained weights, and the packed copies of them that backward reads.
pub struct Adapters<T: Real> {
    config: LoraConfig,
    /// For each adapted matrix in turn, `A` `[r, in]` and then `Bᵀ` `[r, out]`: pair `i` is tensors `2i` and `2i + 1`.
    weights: Arena,
    pairs: Vec<Pair<T>>,
    /// For each [`GroupId`] of the model, the pairs of the group's matrices; empty if the group is not adapted.
    pairs_of: Vec<Range<usize>>,
    /// `[N, r]`, the narrow side of a pair.
    inner: Buffer<T>,
    /// Memory for gradients of frozen vectors. Nobody reads them.
    unread: Buffer<f32>,
    /// A frozen matrix plus its adapters, before it is packed.
    sum: Buffer<f32>,
}

impl<T: Real> Adapters<T> {
    /// New adapters. `B` is zero, so they change nothing yet.
    pub fn new(queue: &Queue, model: &Config, config: LoraConfig, key: Key) -> Self {
        let (device, base) = (queue.device(), Layout::of(model).table);
        let (mut table, mut pairs, mut pairs_of) = (Table::default(), Vec::new(), Vec::new());
        for (_, group) in base.groups() {
            let first = pairs.len();
            for spec in base.tensors_of(group).iter().filter(|spec| spec.is_layer_matrix()) {
                let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
                for (letter, width) in [("A", inputs), ("B", outputs)] {
                    let name = spec.name.replace(".weight", &format!(".lora_{letter}"));
                    table.group(None, [TensorSpec::new(TensorRole::Matrix, &name, "", &[config.rank, width])]);
                }
                let packed = |width| Packed::zeros(device, width, config.rank);
                pairs.push(Pair { a: packed(inputs), b: packed(outputs) });
            }
            pairs_of.push(first..pairs.len());
        }
        let mut weights = Arena::laid_out(device, model, table);
        for index in (0..weights.specs().len()).step_by(2) {
            let spec = &weights.specs()[index];
            let (bound, mut draws) = (1.0 / (spec.shape[1] as f64).sqrt(), key.word(&spec.name).stream());
            let values: Vec<f32> = (0..spec.len()).map(|_| (bound * (2.0 * draws.unit() - 1.0)) as f32).collect();
            weights.tensor_mut(index).copy_from_host(&values);
        }
        let widest = model.hidden_size.max(model.head_dim);
        let (inner, sum) = (Buffer::zeros(device, 0), Buffer::zeros(device, 0));
        Self { config, weights, pairs, pairs_of, inner, unread: Buffer::zeros(device, widest), sum }
    }

    /// Width and scale of the adapters.
    pub fn config(&self) -> LoraConfig {
        self.config
    }

    /// `A` and `Bᵀ` of every adapted matrix.
    pub fn weights(&self) -> &Arena {
        &self.weights
    }

    /// The same, for an optimiser or a checkpoint. The model uses a change only after [`Adapters::pack`].
    pub fn weights_mut(&mut self) -> &mut Arena {
        &mut self.weights
    }

    /// Packs the weights `base + s·B·A` into `model`, and the pairs for backward.
    pub fn pack(&mut self, queue: &Queue, base: &Arena, model: &mut Model<T>, scratch: &mut Scratch) {
        let mut sum = std::mem::replace(&mut self.sum, Buffer::zeros(queue.device(), 0));
        model.update_changed(base, |weights, id, frozen| {
            if self.pairs_of[id.0].is_empty() {
                return weights.take(queue, id, frozen);
            }
            let (rows, cols) = (frozen.rows(), frozen.cols());
            if sum.len() < rows * cols {
                sum = Buffer::zeros(queue.device(), rows * cols);
            }
            convert(queue, frozen, sum.matrix_mut(rows, cols));
            self.add(queue, id, sum.matrix_mut(rows, cols), scratch);
            weights.take(queue, id, sum.matrix(rows, cols));
        });
        self.sum = sum;
        let (rank, generation) = (self.config.rank, model.generation());
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            for (at, packed) in [(2 * index, &mut pair.a), (2 * index + 1, &mut pair.b)] {
                let scaled = self.weights.scaled(at, self.config.scale());
                packed.pack(queue, queue.upload(&scaled).matrix(rank, scaled.len() / rank), generation);
            }
        }
    }

    /// Adds `s·B·A` to the weights on which the adapters were trained.
    pub fn merge_into(&self, queue: &Queue, base: &mut Arena, scratch: &mut Scratch) {
        let mut weights = base.weights_mut();
        for id in (0..self.pairs_of.len()).map(GroupId) {
            self.add(queue, id, weights.get_mut(id).reborrow(), scratch);
        }
    }

    /// Adds `s·B·A` to each matrix of a group.
    fn add(&self, queue: &Queue, id: GroupId, mut into: ViewMut<f32>, scratch: &mut Scratch) {
        let (rank, mut start) = (self.config.rank, 0);
        for pair in self.pairs_of[id.0].clone() {
            let (a, b) = (self.weights.tensor(2 * pair), self.weights.scaled(2 * pair + 1, self.config.scale()));
            let rows = b.len() / rank;
            let own = into.reborrow().row_range(start..start + rows);
            matmul_transposed_a(queue, queue.upload(&b).matrix(rank, rows), a, own, true, scratch);
            start += rows;
        }
    }

    /// Accumulates the gradients of a group's pairs, instead of the gradient `d_outᵀ · x` of the frozen group.
    ///
    /// * `d_out`: `[N, out]` of the group; `x`: `[N, in]`; `gradients`: laid out as [`Adapters::weights`].
    pub(crate) fn accumulate(
        &mut self,
        pass: &Pass<T>,
        id: GroupId,
        d_out: View<T>,
        x: View<T>,
        gradients: &mut Arena,
        scratch: &mut Scratch,
    ) {
        let (queue, generation, none) = (pass.queue, pass.weights.generation(), Epilogue::default());
        let (rank, rows, mut start) = (self.config.rank, x.rows(), 0);
        if self.inner.len() < rows * rank {
            self.inner = Buffer::zeros(queue.device(), rows * rank);
        }
        for index in self.pairs_of[id.0].clone() {
            let pair = &self.pairs[index];
            let d_out = d_out.col_range(start..start + pair.b.k());
            start += pair.b.k();
            // d_B = d_outᵀ · (s·x·Aᵀ), stored as its transpose.
            matmul(queue, x, pair.a.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_b = gradients.tensor_mut(2 * index + 1);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), d_out, d_b, true, scratch);
            // d_A = (s·d_out·B)ᵀ · x
            matmul(queue, d_out, pair.b.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_a = gradients.tensor_mut(2 * index);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), x, d_a, true, scratch);
        }
    }

    /// Memory for the gradient of a frozen vector of `len` elements. Nobody reads it.
    pub(crate) fn unread(&mut self, len: usize) -> ViewMut<'_, f32> {
        self.unread.view_mut().col_range(0..len)
    }

    /// Size in bytes, including the weights.
    pub fn size_bytes(&self) -> usize {
        let pairs: usize = self.pairs.iter().map(|pair| pair.a.size_bytes() + pair.b.size_bytes()).sum();
        let buffers = self.inner.size_bytes() + self.unread.size_bytes() + self.sum.size_bytes();
        self.weights.values().size_bytes() + pairs + buffers
    }
}
