//! Low-rank adapters (LoRA): a frozen matrix `W` acts as `W + s·B·A`, and only `A` and `B` learn.
//!
//! Every matrix of every layer has a pair: `A` is `[r, in]`, `B` is `[out, r]`, and `s = alpha / r`. Embedding, head, norms
//! and biases stay as they are. What is computed is as usual; how it is computed departs in three points:
//!
//! 1. The model that products read is packed from the sums ([`Adapters::pack`]). Forward, head and generation are those
//!    of any other model, so that the sampler is still the trainer, and a token costs no more than without adapters.
//! 2. Backward never makes the gradient of `W`: two products of width `r` take its place.
//! 3. `B` lies in memory as its transpose `[r, out]`, which is what every product here reads.
//!
//! # Source
//! Hu et al. 2021, arXiv 2106.09685. As in peft, `A` starts uniform within `1/√in`, and `B` at zero.
//!
//! Read next: `backward.rs`, which hands over the operands of each weight's gradient.

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

/// How wide adapters are, and how much they weigh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Width r of the pair.
    pub rank: usize,
    /// The product `B·A` is added with the factor `alpha / rank`.
    pub alpha: f32,
}

impl LoraConfig {
    fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Weights that learn in a model of this shape.
    pub fn parameters(&self, config: &Config) -> usize {
        let weights = |spec: &TensorSpec| self.rank * (spec.shape[0] + spec.shape[1]);
        config.tensors().iter().filter(|spec| spec.is_layer_matrix()).map(weights).sum()
    }
}

/// Elements of the largest matrix that adapters are added to. [`Adapters`] hold one such sum at a time.
pub fn largest_sum(config: &Config) -> usize {
    let table = Layout::of(config).table;
    let adapted = table.groups().filter(|(_, group)| table.tensors_of(group)[0].is_layer_matrix());
    adapted.map(|(_, group)| group.rows * group.cols).max().unwrap_or(0)
}

/// A pair as products read it.
struct Pair<T: Real> {
    /// `s·A`, packed to multiply by its transpose: rows `[N, in]` become `[N, r]`.
    a: Packed<T>,
    /// `s·Bᵀ`, packed likewise: a gradient `[N, out]` becomes one of `[N, r]`.
    b: Packed<T>,
}

/// The adapters of a model in training: the weights that learn, and their copies that backward reads.
pub struct Adapters<T: Real> {
    config: LoraConfig,
    /// Of each adapted matrix in turn `A` `[r, in]`, then `Bᵀ` `[r, out]`: pair `i` is tensors `2i` and `2i + 1`.
    weights: Arena,
    pairs: Vec<Pair<T>>,
    /// By the model's [`GroupId`]: the pairs of a group's matrices, none for a group that is not adapted.
    pairs_of: Vec<Range<usize>>,
    /// `[N, r]`, the narrow side of a pair.
    inner: Buffer<T>,
    /// Where gradients of frozen vectors go.
    unread: Buffer<f32>,
    /// A frozen matrix plus its adapters, on its way to be packed.
    sum: Buffer<f32>,
}

impl<T: Real> Adapters<T> {
    /// Fresh adapters, which change nothing yet.
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

    /// How wide they are, and how much they weigh.
    pub fn config(&self) -> LoraConfig {
        self.config
    }

    /// `A` and `Bᵀ` of every adapted matrix.
    pub fn weights(&self) -> &Arena {
        &self.weights
    }

    /// The same, for an optimiser or a checkpoint. The model computes with a change after [`Adapters::pack`].
    pub fn weights_mut(&mut self) -> &mut Arena {
        &mut self.weights
    }

    /// Packs `base + s·B·A` into `model`, and the pairs for backward.
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

    /// Adds `s·B·A` to the weights that the adapters were trained on.
    pub fn merge_into(&self, queue: &Queue, base: &mut Arena, scratch: &mut Scratch) {
        let mut weights = base.weights_mut();
        for id in (0..self.pairs_of.len()).map(GroupId) {
            self.add(queue, id, weights.get_mut(id).reborrow(), scratch);
        }
    }

    /// Adds `s·B·A` of the matrices of a group to it.
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

    /// Accumulates what a gradient `d_outᵀ · x` of a frozen group means for its pairs.
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
            // d_B = d_out · (s·A·x)ᵀ, of B as it lies in memory.
            matmul(queue, x, pair.a.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_b = gradients.tensor_mut(2 * index + 1);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), d_out, d_b, true, scratch);
            // d_A = (s·Bᵀ·d_out) · xᵀ
            matmul(queue, d_out, pair.b.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_a = gradients.tensor_mut(2 * index);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), x, d_a, true, scratch);
        }
    }

    /// Where the gradient of a frozen vector of `len` elements may go.
    pub(crate) fn unread(&mut self, len: usize) -> ViewMut<'_, f32> {
        self.unread.view_mut().col_range(0..len)
    }

    /// Bytes of memory, the weights included.
    pub fn size_bytes(&self) -> usize {
        let pairs: usize = self.pairs.iter().map(|pair| pair.a.size_bytes() + pair.b.size_bytes()).sum();
        let buffers = self.inner.size_bytes() + self.unread.size_bytes() + self.sum.size_bytes();
        self.weights.values().size_bytes() + pairs + buffers
    }
}
