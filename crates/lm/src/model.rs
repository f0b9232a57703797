//! The weights as products read them: packed panels in the compute dtype, and the few vectors in f32.
//!
//! A [`Model`] is what forward, backward and generation run on. It is a cache of the master weights: [`Model::update`]
//! repacks everything and raises the generation, and a product can only be had with operands of that generation. For
//! inference the master need not exist; tensors are read and packed one group at a time.
//!
//! Read next: `forward.rs`.

use kernels::gemm::{Packed, PackedView};
use kernels::ops::elementwise::convert;
use kernels::ops::rotary::rotary_table;
use kernels::{Buffer, Queue, Real, Region, View};

use crate::checkpoint::{self, TensorSource};
use crate::config::{Config, Part, TensorSpec};
use crate::error::FormatError;
use crate::params::{Arena, LayerWeights, Weights};

/// Positions tabulated at once: enough for training and chat, little enough to cost no time at the start.
const FIRST_POSITIONS: usize = 4096;

/// What a model is kept for: backward products need a second packing of every matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Forward only: serving, teachers, references.
    Inference,
    /// Forward and backward.
    Training,
}

/// A projection `y = x · wᵀ`, packed for forward and, when training, for backward.
pub struct Projection<T: Real> {
    /// `wᵀ`, `[in, out]`.
    forward: Packed<T>,
    /// `w`, `[out, in]`: takes a gradient of `y` to one of `x`.
    backward: Option<Packed<T>>,
}

impl<T: Real> Projection<T> {
    fn within(region: &mut Region, role: Role, outputs: usize, inputs: usize) -> Self {
        let forward = Packed::within(region, inputs, outputs);
        Self { forward, backward: (role == Role::Training).then(|| Packed::within(region, outputs, inputs)) }
    }

    fn pack(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        self.forward.pack(queue, w, generation);
        if let Some(backward) = &mut self.backward {
            backward.pack_transposed(queue, w, generation);
        }
    }

    /// `wᵀ`, `[in, out]`, of the model's [`Model::generation`].
    ///
    /// # Panics
    /// When it is of another generation.
    pub fn forward(&self, generation: u64) -> PackedView<'_, T> {
        self.forward.at(generation)
    }

    /// `w`, `[out, in]`, of the model's [`Model::generation`]: takes a gradient of `y` to one of `x`.
    ///
    /// # Panics
    /// When it is of another generation, or the model was built for inference.
    pub fn backward(&self, generation: u64) -> PackedView<'_, T> {
        self.backward.as_ref().expect("a model built for inference has no backward").at(generation)
    }

    fn size_bytes(&self) -> usize {
        self.forward.size_bytes() + self.backward.as_ref().map_or(0, Packed::size_bytes)
    }
}

/// One layer of a [`Model`]; shapes as in [`LayerWeights`].
pub struct Layer<T: Real> {
    /// RMSNorm before attention.
    pub input_norm: Buffer<f32>,
    /// Query, key and value projections.
    pub qkv: Projection<T>,
    /// Their biases.
    pub qkv_bias: Option<Buffer<f32>>,
    /// RMSNorms of query and key heads.
    pub qk_norm: Option<(Buffer<f32>, Buffer<f32>)>,
    /// Output projection of attention.
    pub output: Projection<T>,
    /// RMSNorm before the SwiGLU.
    pub post_attention_norm: Buffer<f32>,
    /// Gate and up projections.
    pub gate_up: Projection<T>,
    /// Down projection.
    pub down: Projection<T>,
}

/// A decoder ready to compute with, in compute dtype `T`.
pub struct Model<T: Real> {
    config: Config,
    role: Role,
    generation: u64,
    /// Token embedding `[V, C]`.
    pub embedding: Buffer<T>,
    /// The layers, in order.
    pub layers: Vec<Layer<T>>,
    /// RMSNorm before the head.
    pub final_norm: Buffer<f32>,
    /// The head, tied or not.
    pub head: Projection<T>,
    /// `[P, D]` cosines, then sines, of every position.
    pub rotary: Buffer<f32>,
}

impl<T: Real> Model<T> {
    /// A model of zeros, to be filled by [`Model::update`].
    pub fn zeros(queue: &Queue, config: &Config, role: Role) -> Model<T> {
        let device = queue.device();
        let panels = &mut Region::new(device);
        let (hidden, inner, dims) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, qkv) = (config.query_size(), config.query_size() + 2 * config.key_value_size());
        let layers = (0..config.num_hidden_layers)
            .map(|_| Layer {
                input_norm: Buffer::zeros(device, hidden),
                qkv: Projection::within(panels, role, qkv, hidden),
                qkv_bias: config.qkv_bias().then(|| Buffer::zeros(device, qkv)),
                qk_norm: config.qk_norm().then(|| (Buffer::zeros(device, dims), Buffer::zeros(device, dims))),
                output: Projection::within(panels, role, hidden, queries),
                post_attention_norm: Buffer::zeros(device, hidden),
                gate_up: Projection::within(panels, role, 2 * inner, hidden),
                down: Projection::within(panels, role, hidden, inner),
            })
            .collect();
        Model {
            config: config.clone(),
            role,
            generation: 0,
            embedding: Buffer::zeros(device, config.vocab_size * hidden),
            layers,
            final_norm: Buffer::zeros(device, hidden),
            head: Projection::within(panels, role, config.vocab_size, hidden),
            rotary: rotary_table(
                queue.device(),
                &config.rotary_frequencies(),
                config.max_position_embeddings.min(FIRST_POSITIONS),
            ),
        }
    }

    /// Makes positions below `positions` usable; longer contexts than the first few thousand are tabulated when asked for.
    ///
    /// # Panics
    /// Beyond `max_position_embeddings`: a caller refuses such a prompt before it comes here.
    pub fn reserve_context(&mut self, queue: &Queue, positions: usize) {
        let limit = self.config.max_position_embeddings;
        assert!(positions <= limit, "{positions} positions of a model made for {limit}");
        if positions > self.context_len() {
            self.rotary = rotary_table(
                queue.device(),
                &self.config.rotary_frequencies(),
                positions.next_power_of_two().min(limit),
            );
        }
    }

    /// Positions the rotary table reaches now.
    pub fn context_len(&self) -> usize {
        self.rotary.len() / self.config.head_dim
    }

    /// A model of the given master weights.
    pub fn new(queue: &Queue, master: &Arena, role: Role) -> Model<T> {
        let mut model = Model::zeros(queue, master.config(), role);
        model.update(queue, master);
        model
    }

    /// A model read straight from a checkpoint. No f32 copy of it is made: one fused group of tensors is read and packed at
    /// a time, so that memory peaks at the model and its largest matrix.
    ///
    /// # Errors
    /// What [`checkpoint::check`] refuses, and what [`TensorSource::read_f32`] does.
    pub fn load(
        queue: &Queue,
        config: &Config,
        source: &dyn TensorSource,
        role: Role,
    ) -> Result<Model<T>, FormatError> {
        checkpoint::check(config, source)?;
        let mut model = Model::zeros(queue, config, role);
        model.generation = 1;
        let mut values = Vec::new();
        for group in config.tensors().chunk_by(fuses_with) {
            values.resize(group.iter().map(TensorSpec::len).sum(), 0.0);
            let mut rest = values.as_mut_slice();
            for spec in group {
                let (own, after) = rest.split_at_mut(spec.len());
                source.read_f32(&spec.name, own)?;
                rest = after;
            }
            model.take(queue, &group[0], &values);
        }
        Ok(model)
    }

    /// Takes over one fused group of tensors that begins with `first`.
    fn take(&mut self, queue: &Queue, first: &TensorSpec, values: &[f32]) {
        let values = queue.upload(values);
        let vector = values.view();
        let matrix = match first.shape[..] {
            [_, cols] => vector.reshape(vector.cols() / cols, cols),
            _ => vector,
        };
        let (generation, tied) = (self.generation, self.config.tie_word_embeddings);
        let Some(layer) = first.layer.map(|layer| &mut self.layers[layer]) else {
            match first.part {
                Part::Embedding => {
                    self.embedding_from(queue, matrix);
                    if tied {
                        self.head.pack(queue, matrix, generation);
                    }
                }
                Part::FinalNorm => convert(queue, vector, self.final_norm.view_mut()),
                Part::Head => self.head.pack(queue, matrix, generation),
                part => unreachable!("{part:?} belongs to a layer"),
            }
            return;
        };
        let (bias, norms) = (layer.qkv_bias.as_mut(), layer.qk_norm.as_mut());
        match first.part {
            Part::InputNorm => convert(queue, vector, layer.input_norm.view_mut()),
            Part::Query => layer.qkv.pack(queue, matrix, generation),
            Part::QueryBias => convert(queue, vector, bias.expect("the table has biases").view_mut()),
            Part::QueryNorm => convert(queue, vector, norms.expect("the table has norms").0.view_mut()),
            Part::KeyNorm => convert(queue, vector, norms.expect("the table has norms").1.view_mut()),
            Part::Output => layer.output.pack(queue, matrix, generation),
            Part::PostAttentionNorm => convert(queue, vector, layer.post_attention_norm.view_mut()),
            Part::Gate => layer.gate_up.pack(queue, matrix, generation),
            Part::Down => layer.down.pack(queue, matrix, generation),
            part => unreachable!("{part:?} does not begin a group"),
        }
    }

    /// Takes over the master weights, and raises the generation.
    pub fn update(&mut self, queue: &Queue, master: &Arena) {
        self.update_changed(queue, master, |_, weights, pack| pack(weights));
    }

    /// As [`Model::update`], each layer's weights changed on their way: `change(index, weights, pack)` gives `pack` what to take over.
    pub(crate) fn update_changed(
        &mut self,
        queue: &Queue,
        master: &Arena,
        mut change: impl FnMut(usize, &LayerWeights<View<f32>>, &mut dyn FnMut(&LayerWeights<View<f32>>)),
    ) {
        self.generation += 1;
        let generation = self.generation;
        let weights: Weights<View<f32>> = master.weights();
        self.embedding_from(queue, weights.embedding);
        for (index, (layer, weights)) in self.layers.iter_mut().zip(&weights.layers).enumerate() {
            change(index, weights, &mut |weights| layer.pack(queue, weights, generation));
        }
        convert(queue, weights.final_norm, self.final_norm.view_mut());
        self.head.pack(queue, weights.head.unwrap_or(weights.embedding), generation);
    }

    fn embedding_from(&mut self, queue: &Queue, embedding: View<f32>) {
        let (rows, cols) = (embedding.rows(), embedding.cols());
        convert(queue, embedding, self.embedding.matrix_mut(rows, cols));
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it was built for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The number of updates; panels of another generation are stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes of all packed and plain weights.
    pub fn size_bytes(&self) -> usize {
        let layers: usize = self
            .layers
            .iter()
            .map(|l| l.qkv.size_bytes() + l.output.size_bytes() + l.gate_up.size_bytes() + l.down.size_bytes())
            .sum();
        self.embedding.size_bytes() + layers + self.head.size_bytes() + self.rotary.size_bytes()
    }

    /// The embedding as `[V, C]`.
    pub fn embedding_matrix(&self) -> View<'_, T> {
        self.embedding.matrix(self.config.vocab_size, self.config.hidden_size)
    }

    /// The rotary table as `[P, D]`.
    pub fn rotary_matrix(&self) -> View<'_, f32> {
        self.rotary.matrix(self.context_len(), self.config.head_dim)
    }

    /// What attention scores are multiplied by, `1 / sqrt(D)`.
    pub fn attention_scale(&self) -> f32 {
        (1.0 / (self.config.head_dim as f64).sqrt()) as f32
    }
}

impl<T: Real> Layer<T> {
    fn pack(&mut self, queue: &Queue, weights: &LayerWeights<View<f32>>, generation: u64) {
        convert(queue, weights.input_norm, self.input_norm.view_mut());
        self.qkv.pack(queue, weights.qkv, generation);
        if let (Some(bias), Some(source)) = (&mut self.qkv_bias, weights.qkv_bias) {
            convert(queue, source, bias.view_mut());
        }
        if let (Some((query, key)), Some((query_source, key_source))) = (&mut self.qk_norm, weights.qk_norm) {
            convert(queue, query_source, query.view_mut());
            convert(queue, key_source, key.view_mut());
        }
        self.output.pack(queue, weights.output, generation);
        convert(queue, weights.post_attention_norm, self.post_attention_norm.view_mut());
        self.gate_up.pack(queue, weights.gate_up, generation);
        self.down.pack(queue, weights.down, generation);
    }
}

/// Whether two neighbours of the table are parts of one fused matrix or vector.
fn fuses_with(a: &TensorSpec, b: &TensorSpec) -> bool {
    use Part::*;
    let pairs = [(Query, Key), (Key, Value), (QueryBias, KeyBias), (KeyBias, ValueBias), (Gate, Up)];
    a.layer == b.layer && pairs.contains(&(a.part, b.part))
}
