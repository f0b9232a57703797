//! A decoder that is ready to compute: [`Model`], the weights in the form that operations read.
//!
//! Forward, backward and text generation run on a `Model`. It is a copy of the master weights. [`Model::update`] copies
//! all of them again and raises the version number of the weights; products then refuse operands of an earlier version.
//! Inference needs no master weights: [`Model::load`] reads and packs one group of tensors at a time.
//!
//! Read next: `forward.rs`.

use kernels::gemm::PackedView;
use kernels::ops::rotary::rotary_table;
use kernels::{Buffer, Queue, Real, View};

use crate::checkpoint::{self, TensorSource};
use crate::config::Config;
use crate::error::FormatError;
use crate::layer::{Layer, Pass};
use crate::layout::Layout;
use crate::packed::PackedWeights;
use crate::params::Arena;
use crate::table::GroupId;

/// Number of positions whose rotary table is computed at the start: enough for training and chat, and few enough to
/// cost no noticeable time.
const FIRST_POSITIONS: usize = 4096;

/// What a model is used for. The products of backward need a second packed copy of every matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Forward only: serving, teachers, references.
    Inference,
    /// Forward and backward.
    Training,
}

/// A decoder that is ready to compute, in compute dtype `T`.
pub struct Model<T: Real> {
    config: Config,
    role: Role,
    layout: Layout,
    weights: PackedWeights<T>,
    /// `[P, D]`: for each position, D/2 cosines, then D/2 sines.
    rotary: Buffer<f32>,
}

impl<T: Real> Model<T> {
    /// A model that has no weights yet; see [`Model::update`].
    pub fn zeros(queue: &Queue, config: &Config, role: Role) -> Model<T> {
        let layout = Layout::of(config);
        let weights = PackedWeights::new(queue.device(), &layout.table, layout.head, role == Role::Training);
        let positions = config.max_position_embeddings.min(FIRST_POSITIONS);
        let rotary = rotary_table(queue.device(), &config.rotary_frequencies(), positions);
        Model { config: config.clone(), role, layout, weights, rotary }
    }

    /// A model with the given master weights.
    pub fn new(queue: &Queue, master: &Arena, role: Role) -> Model<T> {
        let mut model = Model::zeros(queue, master.config(), role);
        model.update(queue, master);
        model
    }

    /// A model read directly from a checkpoint, without an f32 copy of all weights. Peak memory is that of the model
    /// and of its largest group of tensors.
    ///
    /// # Errors
    /// Those of [`checkpoint::check`] and of [`TensorSource::read_f32`].
    pub fn load(
        queue: &Queue,
        config: &Config,
        source: &dyn TensorSource,
        role: Role,
    ) -> Result<Model<T>, FormatError> {
        checkpoint::check(config, source)?;
        let mut model = Model::zeros(queue, config, role);
        model.weights.begin_generation();
        let (table, mut values) = (&model.layout.table, Vec::new());
        for (id, group) in table.groups() {
            values.resize(group.rows * group.cols, 0.0);
            let mut rest = values.as_mut_slice();
            for spec in table.tensors_of(group) {
                let (own, after) = rest.split_at_mut(spec.len());
                source.read_f32(&spec.name, own)?;
                rest = after;
            }
            model.weights.take(queue, id, queue.upload(&values).matrix(group.rows, group.cols));
        }
        Ok(model)
    }

    /// Copies the master weights, and raises the version number of the weights.
    pub fn update(&mut self, queue: &Queue, master: &Arena) {
        self.update_changed(master, |weights, id, w| weights.take(queue, id, w));
    }

    /// As [`Model::update`], but calls `take(weights, id, w)` for each group `id`. This function copies the master
    /// weights `w`, or other values instead of them.
    pub(crate) fn update_changed(
        &mut self,
        master: &Arena,
        mut take: impl FnMut(&mut PackedWeights<T>, GroupId, View<f32>),
    ) {
        self.weights.begin_generation();
        let weights = master.weights();
        for (id, _) in self.layout.table.groups() {
            take(&mut self.weights, id, *weights.get(id));
        }
    }

    /// Makes positions below `positions` usable. The rotary table of the first few thousand positions exists from the
    /// start; a longer one is computed when it is asked for.
    ///
    /// # Panics
    /// When `positions` exceeds `max_position_embeddings`. Callers refuse such a prompt before they call this.
    pub fn reserve_context(&mut self, queue: &Queue, positions: usize) {
        let limit = self.config.max_position_embeddings;
        assert!(positions <= limit, "{positions} positions of a model made for {limit}");
        if positions > self.context_len() {
            let positions = positions.next_power_of_two().min(limit);
            self.rotary = rotary_table(queue.device(), &self.config.rotary_frequencies(), positions);
        }
    }

    /// Number of positions that can be used now.
    pub fn context_len(&self) -> usize {
        self.rotary.len() / self.config.head_dim
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it was built for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Version number of the weights, which is the number of updates. Operands of another version are stale.
    pub fn generation(&self) -> u64 {
        self.weights.generation()
    }

    /// Size of all weights and of the rotary table, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.weights.size_bytes() + self.rotary.size_bytes()
    }

    /// A pass over rows at these positions, `[1, N]`.
    pub(crate) fn pass<'a>(&'a self, queue: &'a Queue, positions: View<'a, u32>) -> Pass<'a, T> {
        let rotary = self.rotary.matrix(self.context_len(), self.config.head_dim);
        Pass { queue, config: &self.config, weights: &self.weights, positions, rotary }
    }

    /// Where its operands are in the table of tensors.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layers, in order.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layout.layers
    }

    /// The embedding `[V, C]`.
    pub(crate) fn embedding(&self) -> View<'_, T> {
        self.weights.embedding(self.layout.embedding).reshape(self.config.vocab_size, self.config.hidden_size)
    }

    /// The scale of the RMSNorm before the head, `[1, C]`.
    pub(crate) fn final_norm(&self) -> View<'_, f32> {
        self.weights.vector(self.layout.final_norm)
    }

    /// The head as the operand of `logits = hidden · Wᵀ`.
    pub(crate) fn head(&self) -> PackedView<'_, T> {
        self.weights.forward(self.layout.head)
    }

    /// The head as the operand that multiplies a gradient of logits, to give the gradient of hidden rows.
    ///
    /// # Panics
    /// When the model was built for inference.
    pub(crate) fn head_backward(&self) -> PackedView<'_, T> {
        self.weights.backward(self.layout.head)
    }
}

#[cfg(test)]
mod tests;
