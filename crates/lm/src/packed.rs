//! Packed weights: the weights of a model in the form that operations read. Matrices are packed operands of products in
//! the compute dtype; vectors are f32. (Packed *sequences* are something else; see [`crate::batch`].)
//!
//! They are a copy of the master weights, which are kept in f32 elsewhere. The copy carries the version number of the
//! master weights, called `generation` in the code. A product can get an operand only if it has the current version, so
//! it never reads weights from before an update.
//!
//! Read next: `model.rs`.

use kernels::gemm::{Packed, PackedView};
use kernels::ops::elementwise::convert;
use kernels::{Buffer, Device, Queue, Real, Region, View};

use crate::table::{GroupId, Table, TensorRole};

/// A matrix `w [out, in]`, packed for the products of forward and, in training, of backward.
struct Projection<T: Real> {
    /// `wᵀ`, `[in, out]`.
    forward: Packed<T>,
    /// `w [out, in]`: multiplies a gradient of the output, to give the gradient of the input.
    backward: Option<Packed<T>>,
}

impl<T: Real> Projection<T> {
    fn within(region: &mut Region, (outputs, inputs): (usize, usize), with_backward: bool) -> Self {
        let forward = Packed::within(region, inputs, outputs);
        Self { forward, backward: with_backward.then(|| Packed::within(region, outputs, inputs)) }
    }

    fn pack(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        self.forward.pack(queue, w, generation);
        if let Some(backward) = &mut self.backward {
            backward.pack_transposed(queue, w, generation);
        }
    }

    fn size_bytes(&self) -> usize {
        self.forward.size_bytes() + self.backward.as_ref().map_or(0, Packed::size_bytes)
    }
}

/// One group of the table in the form that its operation reads.
enum Weight<T: Real> {
    /// The rows that are looked up; and the head, if it is tied to the embedding.
    Embedding(Buffer<T>, Option<Projection<T>>),
    Matrix(Projection<T>),
    Vector(Buffer<f32>),
}

/// The weights of a model, by [`GroupId`].
pub(crate) struct PackedWeights<T: Real> {
    weights: Vec<Weight<T>>,
    generation: u64,
}

impl<T: Real> PackedWeights<T> {
    /// Memory for the weights of a table. No version of the weights has been copied into it yet.
    ///
    /// * `head`: the group of the head; the embedding when the two are tied.
    pub fn new(device: Device, table: &Table, head: GroupId, with_backward: bool) -> Self {
        let panels = &mut Region::new(device);
        let weights = table.groups().map(|(_, group)| {
            let shape = (group.rows, group.cols);
            match table.tensors_of(group)[0].role {
                TensorRole::Embedding => Weight::Embedding(Buffer::zeros(device, group.rows * group.cols), None),
                TensorRole::Norm | TensorRole::Bias => Weight::Vector(Buffer::zeros(device, group.cols)),
                _ => Weight::Matrix(Projection::within(panels, shape, with_backward)),
            }
        });
        let mut weights: Vec<Weight<T>> = weights.collect();
        // A tied head comes last, because operands lie in memory in the order in which a pass reads them.
        if let Weight::Embedding(_, tied) = &mut weights[head.0] {
            *tied = Some(Projection::within(panels, table.shape(head), with_backward));
        }
        Self { weights, generation: 0 }
    }

    /// Version number of the weights that were copied last.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins a new version of the weights: every operand must be copied again before it can be read.
    pub fn begin_generation(&mut self) {
        self.generation += 1;
    }

    /// Copies one group of the version that has begun.
    pub fn take(&mut self, queue: &Queue, id: GroupId, w: View<f32>) {
        match &mut self.weights[id.0] {
            Weight::Embedding(rows, head) => {
                convert(queue, w, rows.matrix_mut(w.rows(), w.cols()));
                if let Some(head) = head {
                    head.pack(queue, w, self.generation);
                }
            }
            Weight::Matrix(matrix) => matrix.pack(queue, w, self.generation),
            Weight::Vector(vector) => convert(queue, w, vector.view_mut()),
        }
    }

    fn projection(&self, id: GroupId) -> &Projection<T> {
        match &self.weights[id.0] {
            Weight::Matrix(matrix) | Weight::Embedding(_, Some(matrix)) => matrix,
            _ => panic!("group {} is no operand of a product", id.0),
        }
    }

    /// A matrix `w [out, in]` as the operand `wᵀ` of the forward product.
    ///
    /// # Panics
    /// When it has not been copied since the current version began.
    pub fn forward(&self, id: GroupId) -> PackedView<'_, T> {
        self.projection(id).forward.at(self.generation)
    }

    /// A matrix `w [out, in]` as the operand that multiplies a gradient of the output, to give the gradient of the
    /// input.
    ///
    /// # Panics
    /// As [`PackedWeights::forward`], and when the model was built for inference.
    pub fn backward(&self, id: GroupId) -> PackedView<'_, T> {
        let backward = self.projection(id).backward.as_ref();
        backward.expect("a model built for inference has no backward").at(self.generation)
    }

    /// A norm's scale or a bias, `[1, n]`.
    pub fn vector(&self, id: GroupId) -> View<'_, f32> {
        match &self.weights[id.0] {
            Weight::Vector(vector) => vector.view(),
            _ => panic!("group {} is no vector", id.0),
        }
    }

    /// The embedding `[V, C]`, as one row of `V·C` elements.
    pub fn embedding(&self, id: GroupId) -> View<'_, T> {
        match &self.weights[id.0] {
            Weight::Embedding(rows, _) => rows.view(),
            _ => panic!("group {} is no embedding", id.0),
        }
    }

    /// Exchanges a group with that of another model.
    #[cfg(test)]
    pub fn swap(&mut self, other: &mut Self, id: GroupId) {
        std::mem::swap(&mut self.weights[id.0], &mut other.weights[id.0]);
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        let bytes = |weight: &Weight<T>| match weight {
            Weight::Embedding(rows, head) => rows.size_bytes() + head.as_ref().map_or(0, Projection::size_bytes),
            Weight::Matrix(matrix) => matrix.size_bytes(),
            Weight::Vector(vector) => vector.size_bytes(),
        };
        self.weights.iter().map(bytes).sum()
    }
}
