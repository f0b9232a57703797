//! Low-rank adapters (LoRA): a frozen matrix `W` acts as `W + s·B·A`, and only `A` and `B` learn.
//!
//! Every projection of every layer has a pair: `A` is `[r, in]`, `B` is `[out, r]`, `s = alpha / r`; embedding, head, norms and biases
//! stay as they are. It departs from the usual way of computing it, not from what is computed:
//!
//! 1. The model that products read is packed from the sums ([`Adapters::pack`]), so that forward, head and generation are those of any other
//!    model: the sampler is still the trainer, and a token costs no operation more than without adapters.
//! 2. Backward never makes the gradient of `W`: two products of width `r` take its place.
//! 3. `B` lies in memory as its transpose `[r, out]`, which is what every product here wants.
//!
//! # Source
//! Hu et al. 2021, arXiv 2106.09685; `A` begins as in peft, uniform within `1/√in`, and `B` at zero.
//!
//! Read next: `backward.rs`, which hands over the operands of each weight's gradient.

use kernels::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use kernels::ops::elementwise::convert;
use kernels::{Buffer, Queue, Real, Scratch, View, ViewMut};

use crate::config::{Config, Part, TensorSpec};
use crate::model::Model;
use crate::params::{Arena, LayerWeights};
use kernels::rng::Key;

/// The projections that have a pair, in the order of their tensors; those of one fused matrix stand together.
const ADAPTED: [Part; 7] = [Part::Query, Part::Key, Part::Value, Part::Output, Part::Gate, Part::Up, Part::Down];

/// How wide adapters are, and how much they weigh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Width of the pair.
    pub rank: usize,
    /// The sum enters with `alpha / rank`.
    pub alpha: f32,
}

impl LoraConfig {
    fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Weights that learn in a model of this shape.
    pub fn parameters(&self, config: &Config) -> usize {
        specs(config, self.rank).iter().map(TensorSpec::len).sum()
    }
}

/// A fused matrix of a layer, whose gradient is asked for as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matrix {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Matrix {
    const ALL: [Matrix; 4] = [Matrix::Qkv, Matrix::Output, Matrix::GateUp, Matrix::Down];

    /// The places in [`ADAPTED`] of its parts.
    fn parts(self) -> std::ops::Range<usize> {
        match self {
            Matrix::Qkv => 0..3,
            Matrix::Output => 3..4,
            Matrix::GateUp => 4..6,
            Matrix::Down => 6..7,
        }
    }

    fn of<'a>(self, weights: &LayerWeights<View<'a, f32>>) -> View<'a, f32> {
        match self {
            Matrix::Qkv => weights.qkv,
            Matrix::Output => weights.output,
            Matrix::GateUp => weights.gate_up,
            Matrix::Down => weights.down,
        }
    }

    pub(crate) fn of_mut<'m, 'a>(self, weights: &'m mut LayerWeights<ViewMut<'a, f32>>) -> &'m mut ViewMut<'a, f32> {
        match self {
            Matrix::Qkv => &mut weights.qkv,
            Matrix::Output => &mut weights.output,
            Matrix::GateUp => &mut weights.gate_up,
            Matrix::Down => &mut weights.down,
        }
    }
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
    /// `A` and `Bᵀ` of each projection, in turn.
    weights: Arena,
    pairs: Vec<[Pair<T>; ADAPTED.len()]>,
    /// `[N, r]`, the narrow side of a pair.
    inner: Buffer<T>,
    /// Where gradients of frozen vectors go.
    unread: Buffer<f32>,
    /// The sums of one layer, on their way to be packed.
    sums: [Buffer<f32>; Matrix::ALL.len()],
}

impl<T: Real> Adapters<T> {
    /// Fresh adapters, which change nothing yet.
    pub fn new(queue: &Queue, model: &Config, config: LoraConfig, key: Key) -> Self {
        let device = queue.device();
        let mut weights = Arena::laid_out(device, model, specs(model, config.rank));
        for index in (0..weights.specs().len()).step_by(2) {
            let spec = weights.specs()[index].clone();
            let (bound, mut draws) = (1.0 / (spec.shape[1] as f64).sqrt(), key.word(&spec.name).stream());
            let values: Vec<f32> = (0..spec.len()).map(|_| (bound * (2.0 * draws.unit() - 1.0)) as f32).collect();
            weights.tensor_mut(index).copy_from_host(&values);
        }
        let pair = |part: Part| {
            let [outputs, inputs] = shape(model, part);
            Pair { a: Packed::zeros(device, inputs, config.rank), b: Packed::zeros(device, outputs, config.rank) }
        };
        let pairs = (0..model.num_hidden_layers).map(|_| ADAPTED.map(pair)).collect();
        let widest = model.hidden_size.max(model.head_dim);
        Self {
            config,
            weights,
            pairs,
            inner: Buffer::zeros(device, 0),
            unread: Buffer::zeros(device, widest),
            sums: Matrix::ALL.map(|_| Buffer::zeros(device, 0)),
        }
    }

    /// How wide they are, and how much they weigh.
    pub fn config(&self) -> LoraConfig {
        self.config
    }

    /// `A` and `Bᵀ` of every projection.
    pub fn weights(&self) -> &Arena {
        &self.weights
    }

    /// The same, for an optimiser or a checkpoint; [`Adapters::pack`] makes a change felt.
    pub fn weights_mut(&mut self) -> &mut Arena {
        &mut self.weights
    }

    /// Packs `base + s·B·A` into `model`, and the pairs for backward.
    pub fn pack(&mut self, queue: &Queue, base: &Arena, model: &mut Model<T>, scratch: &mut Scratch) {
        let mut sums = std::mem::replace(&mut self.sums, Matrix::ALL.map(|_| Buffer::zeros(queue.device(), 0)));
        model.update_changed(queue, base, |layer, frozen, pack| {
            let mut sum_of = Matrix::ALL.into_iter().zip(&mut sums).map(|(matrix, sum)| {
                let from = matrix.of(frozen);
                if sum.is_empty() {
                    *sum = Buffer::zeros(queue.device(), from.rows() * from.cols());
                }
                convert(queue, from, sum.matrix_mut(from.rows(), from.cols()));
                self.add(queue, (layer, matrix), sum.matrix_mut(from.rows(), from.cols()), scratch);
                sum.matrix(from.rows(), from.cols())
            });
            let mut next = || sum_of.next().expect("one for each matrix");
            let (qkv, output, gate_up, down) = (next(), next(), next(), next());
            pack(&LayerWeights { qkv, output, gate_up, down, ..*frozen });
        });
        self.sums = sums;
        let (rank, generation) = (self.config.rank, model.generation());
        for (index, pair) in self.pairs.iter_mut().flatten().enumerate() {
            for (at, packed) in [(2 * index, &mut pair.a), (2 * index + 1, &mut pair.b)] {
                let scaled = self.weights.scaled(at, self.config.scale());
                packed.pack(queue, queue.upload(&scaled).matrix(rank, scaled.len() / rank), generation);
            }
        }
    }

    /// Adds `s·B·A` to the weights that the adapters were trained on.
    pub fn merge_into(&self, queue: &Queue, base: &mut Arena, scratch: &mut Scratch) {
        for (layer, into) in base.weights_mut().layers.iter_mut().enumerate() {
            for matrix in Matrix::ALL {
                self.add(queue, (layer, matrix), matrix.of_mut(into).reborrow(), scratch);
            }
        }
    }

    /// Adds `s·B·A` of a fused matrix's parts to it.
    fn add(&self, queue: &Queue, (layer, matrix): (usize, Matrix), mut into: ViewMut<f32>, scratch: &mut Scratch) {
        let (rank, mut start) = (self.config.rank, 0);
        for part in matrix.parts() {
            let index = 2 * (layer * ADAPTED.len() + part);
            let (a, b) = (self.weights.tensor(index), self.weights.scaled(index + 1, self.config.scale()));
            let rows = b.len() / rank;
            let own = into.reborrow().row_range(start..start + rows);
            matmul_transposed_a(queue, queue.upload(&b).matrix(rank, rows), a, own, true, scratch);
            start += rows;
        }
    }

    /// Accumulates what a gradient `d_out · xᵀ` of a frozen matrix means for its pairs.
    ///
    /// * `generation`: of the model's weights; the pairs must be of the same.
    /// * `d_out`: `[N, out]` of the fused matrix; `x`: `[N, in]`; `gradients`: laid out as [`Adapters::weights`].
    pub(crate) fn accumulate(
        &mut self,
        (queue, generation): (&Queue, u64),
        (layer, matrix): (usize, Matrix),
        (d_out, x): (View<T>, View<T>),
        gradients: &mut Arena,
        scratch: &mut Scratch,
    ) {
        let (rank, rows, mut start) = (self.config.rank, x.rows(), 0);
        let none = Epilogue::default();
        if self.inner.len() < rows * rank {
            self.inner = Buffer::zeros(queue.device(), rows * rank);
        }
        for part in matrix.parts() {
            let pair = &self.pairs[layer][part];
            let d_out = d_out.col_range(start..start + pair.b.k());
            start += pair.b.k();
            let at = 2 * (layer * ADAPTED.len() + part);
            // d_B = d_out · (s·A·x)ᵀ, of B as it lies in memory.
            matmul(queue, x, pair.a.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_b = gradients.tensor_mut(at + 1);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), d_out, d_b, true, scratch);
            // d_A = (s·Bᵀ·d_out) · xᵀ
            matmul(queue, d_out, pair.b.at(generation), none, self.inner.matrix_mut(rows, rank));
            let d_a = gradients.tensor_mut(at);
            matmul_transposed_a(queue, self.inner.matrix(rows, rank), x, d_a, true, scratch);
        }
    }

    /// Where the gradient of a frozen vector of `len` elements may go.
    pub(crate) fn unread(&mut self, len: usize) -> ViewMut<'_, f32> {
        self.unread.view_mut().col_range(0..len)
    }

    /// Bytes of memory, the weights included.
    pub fn size_bytes(&self) -> usize {
        let pairs = self.pairs.iter().flatten().map(|pair| pair.a.size_bytes() + pair.b.size_bytes());
        self.weights.values().size_bytes()
            + pairs.sum::<usize>()
            + self.inner.size_bytes()
            + self.unread.size_bytes()
            + self.sums.iter().map(Buffer::size_bytes).sum::<usize>()
    }
}

/// `[out, in]` of a projection.
fn shape(config: &Config, part: Part) -> [usize; 2] {
    let spec = config.tensor(part, Some(0));
    [spec.shape[0], spec.shape[1]]
}

/// The adapters' own table: for each layer and projection `A` `[r, in]`, then `Bᵀ` `[r, out]`.
fn specs(config: &Config, rank: usize) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in 0..config.num_hidden_layers {
        for part in ADAPTED {
            let of = config.tensor(part, Some(layer));
            for (letter, width) in [("A", of.shape[1]), ("B", of.shape[0])] {
                let name = of.name.replace(".weight", &format!(".lora_{letter}"));
                specs.push(TensorSpec { name, shape: vec![rank, width], part, layer: Some(layer) });
            }
        }
    }
    specs
}
