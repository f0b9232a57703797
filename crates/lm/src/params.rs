//! Arenas laid out by the one table: master weights, gradients and moments are the same shape of memory.
//!
//! [`Arena`] is one f32 buffer in the order of [`Config::tensors`]. [`Weights`] is an arena split once into disjoint views,
//! with query, key and value (and gate and up) as the one fused matrix that they are in memory. Nothing here is a
//! second list of tensors: offsets come from the table's lengths, and the split walks the table's order.
//!
//! Read next: `model.rs`, the packed copies that products read.

use std::ops::Range;

use kernels::{Buffer, Device, View, ViewMut};

use crate::checkpoint::{self, TensorSource};
use crate::config::{Config, Part, TensorSpec};
use crate::error::FormatError;
use kernels::rng::Key;

/// One f32 buffer that holds every tensor of a model.
#[derive(Clone)]
pub struct Arena {
    config: Config,
    specs: Vec<TensorSpec>,
    offsets: Vec<usize>,
    values: Buffer<f32>,
}

impl Arena {
    /// Zeros for every tensor of `config`.
    pub fn zeros(device: Device, config: &Config) -> Arena {
        Arena::laid_out(device, config, config.tensors())
    }

    /// Zeros for every tensor of another table: what is trained beside a model's own weights.
    pub(crate) fn laid_out(device: Device, config: &Config, specs: Vec<TensorSpec>) -> Arena {
        let mut end = 0;
        let offsets = specs
            .iter()
            .map(|spec| {
                end += spec.len();
                end - spec.len()
            })
            .collect();
        Arena { config: config.clone(), specs, offsets, values: Buffer::zeros(device, end) }
    }

    /// Zeros of the same layout, a projection included.
    pub fn zeros_like(&self) -> Arena {
        let values = Buffer::zeros(self.values.device(), self.values.len());
        Arena { config: self.config.clone(), specs: self.specs.clone(), offsets: self.offsets.clone(), values }
    }

    /// These weights and, behind them, a random projection of the residual stream to one of `width` dimensions: a parameter that is
    /// trained, clipped and checkpointed as all others are, and belongs to no model.
    ///
    /// # Panics
    /// When there is one already.
    pub fn with_projection(self, width: usize, key: Key) -> Arena {
        assert!(self.projection_index().is_none(), "one projection at a time");
        let Arena { config, mut specs, mut offsets, values } = self;
        let (hidden, end) = (config.hidden_size, values.len());
        let name = Part::Projection.suffix().to_string();
        specs.push(TensorSpec { name, shape: vec![width, hidden], part: Part::Projection, layer: None });
        offsets.push(end);
        let (std, mut draws) = (1.0 / (hidden as f64).sqrt(), key.stream());
        let projection = (0..width * hidden).map(|_| (std * draws.normal()) as f32);
        let longer: Vec<f32> = values.to_host().into_iter().chain(projection).collect();
        Arena { config, specs, offsets, values: Buffer::from_host(values.device(), &longer) }
    }

    /// The model's own weights, which are what is exported.
    pub fn without_projection(self) -> Arena {
        let Some(index) = self.projection_index() else { return self };
        let Arena { config, mut specs, mut offsets, values } = self;
        specs.truncate(index);
        let own = Buffer::from_host(values.device(), &values.view().col_range(0..offsets[index]).to_host());
        offsets.truncate(index);
        Arena { config, specs, offsets, values: own }
    }

    fn projection_index(&self) -> Option<usize> {
        self.specs.iter().position(|spec| spec.part == Part::Projection)
    }

    /// Random initial weights: norms one, biases zero, matrices normal with `initializer_range` as standard deviation, the two
    /// projections that end in the residual stream narrowed by `1 / sqrt(2 · layers)` (Radford et al. 2019, GPT-2).
    pub fn random(device: Device, config: &Config, seed: u64) -> Arena {
        let mut arena = Arena::zeros(device, config);
        let narrow = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        for index in 0..arena.specs.len() {
            let spec = arena.specs[index].clone();
            let values = if spec.part.is_norm() {
                vec![1.0; spec.len()]
            } else if spec.part.is_matrix() {
                let std = config.initializer_range
                    * if matches!(spec.part, Part::Output | Part::Down) { narrow } else { 1.0 };
                let mut draws = Key::new(seed).word("initial weights").word(&spec.name).stream();
                (0..spec.len()).map(|_| (std * draws.normal()) as f32).collect()
            } else {
                vec![0.0; spec.len()]
            };
            arena.tensor_mut(index).copy_from_host(&values);
        }
        arena
    }

    /// The weights of a checkpoint.
    ///
    /// # Errors
    /// What [`checkpoint::check`] refuses, and what [`TensorSource::read_f32`] does.
    pub fn load(device: Device, config: &Config, source: &dyn TensorSource) -> Result<Arena, FormatError> {
        checkpoint::check(config, source)?;
        let mut arena = Arena::zeros(device, config);
        let mut values = Vec::new();
        for index in 0..arena.specs.len() {
            values.resize(arena.specs[index].len(), 0.0);
            source.read_f32(&arena.specs[index].name, &mut values)?;
            arena.tensor_mut(index).copy_from_host(&values);
        }
        Ok(arena)
    }

    /// The configuration whose table lays it out.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The table.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Tensor `index` of the table: `[rows, cols]`, or `[1, n]`.
    pub fn tensor(&self, index: usize) -> View<'_, f32> {
        let (range, (rows, cols)) = self.place(index);
        self.values.view().col_range(range).reshape(rows, cols)
    }

    /// Tensor `index` of the table, for writing.
    pub fn tensor_mut(&mut self, index: usize) -> ViewMut<'_, f32> {
        let (range, (rows, cols)) = self.place(index);
        self.values.view_mut().col_range(range).reshape(rows, cols)
    }

    /// Where tensor `index` lies in [`Arena::values`], and its shape.
    fn place(&self, index: usize) -> (Range<usize>, (usize, usize)) {
        let (offset, spec) = (self.offsets[index], &self.specs[index]);
        let cols = spec.shape.last().copied().unwrap_or(1);
        (offset..offset + spec.len(), (spec.len() / cols, cols))
    }

    /// A multiple of tensor `index`.
    pub(crate) fn scaled(&self, index: usize, scale: f32) -> Vec<f32> {
        self.tensor(index).to_host().iter().map(|value| scale * value).collect()
    }

    /// Where tensor `index` begins in [`Arena::values`].
    pub fn offset(&self, index: usize) -> usize {
        self.offsets[index]
    }

    /// Every element, in the table's order.
    pub fn values(&self) -> &Buffer<f32> {
        &self.values
    }

    /// Every element, in the table's order, for writing.
    pub fn values_mut(&mut self) -> &mut Buffer<f32> {
        &mut self.values
    }

    /// The arena as views.
    pub fn weights(&self) -> Weights<View<'_, f32>> {
        Weights::split(&self.config, self.projection_width(), self.values.view())
    }

    /// The arena as disjoint views, for writing.
    pub fn weights_mut(&mut self) -> Weights<ViewMut<'_, f32>> {
        Weights::split(&self.config, self.projection_width(), self.values.view_mut())
    }

    fn projection_width(&self) -> Option<usize> {
        self.projection_index().map(|index| self.specs[index].shape[0])
    }
}

/// A view that can be cut in two disjoint ones; [`View`] and [`ViewMut`].
pub trait Split: Sized {
    /// The first `at` columns of a one-row view, and the rest.
    fn split(self, at: usize) -> (Self, Self);
    /// The same elements as a matrix.
    fn shaped(self, rows: usize, cols: usize) -> Self;
}

impl Split for View<'_, f32> {
    fn split(self, at: usize) -> (Self, Self) {
        (self.col_range(0..at), self.col_range(at..self.cols()))
    }
    fn shaped(self, rows: usize, cols: usize) -> Self {
        self.reshape(rows, cols)
    }
}

impl Split for ViewMut<'_, f32> {
    fn split(self, at: usize) -> (Self, Self) {
        self.split_cols(at)
    }
    fn shaped(self, rows: usize, cols: usize) -> Self {
        self.reshape(rows, cols)
    }
}

/// The matrices and vectors of a model, fused as products use them. Weights are `[out, in]`, vectors `[1, n]`.
pub struct Weights<V> {
    /// Token embedding `[V, C]`; the head as well when tied.
    pub embedding: V,
    /// The layers, in order.
    pub layers: Vec<LayerWeights<V>>,
    /// RMSNorm before the head `[1, C]`.
    pub final_norm: V,
    /// The untied head `[V, C]`.
    pub head: Option<V>,
    /// The projection to a teacher's residual stream `[C of the teacher, C]`, where there is one.
    pub projection: Option<V>,
}

/// One layer of [`Weights`].
pub struct LayerWeights<V> {
    /// RMSNorm before attention `[1, C]`.
    pub input_norm: V,
    /// Query, key and value projections, one under the other: `[(H + 2K) · D, C]`.
    pub qkv: V,
    /// Their biases `[1, (H + 2K) · D]`.
    pub qkv_bias: Option<V>,
    /// RMSNorms of each query and key head, `[1, D]` each.
    pub qk_norm: Option<(V, V)>,
    /// Output projection of attention `[C, H · D]`.
    pub output: V,
    /// RMSNorm before the SwiGLU `[1, C]`.
    pub post_attention_norm: V,
    /// Gate and up projections, one under the other: `[2F, C]`.
    pub gate_up: V,
    /// Down projection `[C, F]`.
    pub down: V,
}

impl<V: Split> Weights<V> {
    fn split(config: &Config, projection_width: Option<usize>, arena: V) -> Weights<V> {
        let mut rest = Some(arena);
        let mut take = |rows: usize, cols: usize| {
            let (head, tail) = rest.take().expect("the rest is put back below").split(rows * cols);
            rest = Some(tail);
            head.shaped(rows, cols)
        };
        let (hidden, inner, dims) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, qkv) = (config.query_size(), config.query_size() + 2 * config.key_value_size());
        let embedding = take(config.vocab_size, hidden);
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerWeights {
                input_norm: take(1, hidden),
                qkv: take(qkv, hidden),
                qkv_bias: config.qkv_bias().then(|| take(1, qkv)),
                qk_norm: config.qk_norm().then(|| (take(1, dims), take(1, dims))),
                output: take(hidden, queries),
                post_attention_norm: take(1, hidden),
                gate_up: take(2 * inner, hidden),
                down: take(hidden, inner),
            })
            .collect();
        let final_norm = take(1, hidden);
        let head = (!config.tie_word_embeddings).then(|| take(config.vocab_size, hidden));
        let projection = projection_width.map(|width| take(width, hidden));
        Weights { embedding, layers, final_norm, head, projection }
    }
}
