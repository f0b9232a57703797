//! A table of tensors: which tensors there are, their order, and which neighbours form one operand.
//!
//! Parameters, gradients, moments, packed weights, adapters and both file formats are laid out by a [`Table`]. So each
//! tensor is described once, where its layer declares it (`layer/attention.rs`, `layer/mlp.rs`).
//!
//! A *group* is a run of tensors that one product reads as a single matrix, for example query, key and value. In an
//! arena they lie one below the other, as one contiguous row-major matrix `[sum of rows, columns]`. Vectors of a group
//! (biases) lie one after the other. A tensor that is not joined with others is a group of its own. [`GroupId`]
//! identifies a group in everything that the table lays out:
//!
//! ```text
//!     arena   │ embedding │ norm │ query  │ key    │ value  │ output │ …      one f32 buffer
//!     tensors │ 0         │ 1    │ 2      │ 3      │ 4      │ 5      │ …      offset(i) is where tensor i begins
//!     groups  │ 0         │ 1    │ 2                        │ 3      │ …      group 2 is one matrix [(H + 2K)·D, C]
//! ```
//!
//! Read next: `layout.rs`, the table of a whole decoder.

use std::ops::Range;

use kernels::{View, ViewMut};

/// What a tensor is for. It decides the initial values, whether weight decay applies, and which adapters exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// Token embedding; if embeddings are tied, also the head. Starts normal.
    Embedding,
    /// Scale of an RMSNorm. Starts at one.
    Norm,
    /// Bias of a product. Starts at zero.
    Bias,
    /// Weights of a product inside a layer, `[out, in]`. Starts normal.
    Matrix,
    /// A [`TensorRole::Matrix`] whose output is added to the residual stream. Starts normal, with a smaller deviation.
    ResidualMatrix,
    /// The untied head. Starts normal.
    Head,
    /// Projects the residual stream to a teacher's. It is in no model's table: see [`crate::Arena::with_projection`].
    Projection,
}

/// One tensor. Matrices are `[out, in]`, as Hugging Face stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face's name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Shape, outermost dimension first; one or two dimensions.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: TensorRole,
    /// Its layer, counted from 0; `None` for embedding, final norm and head.
    pub layer: Option<usize>,
    /// llama.cpp's name; empty for a tensor that no model file holds.
    pub(crate) gguf: String,
    /// Whether the rotary embedding rotates its output rows in pairs. llama.cpp stores such rows in another order.
    pub(crate) rotated: bool,
}

impl TensorSpec {
    /// A tensor outside the layers, or one that [`Table::group`] puts into a layer; it then adds a prefix to both
    /// names.
    pub(crate) fn new(role: TensorRole, name: &str, gguf: &str, shape: &[usize]) -> Self {
        let (name, gguf) = (name.to_string(), gguf.to_string());
        TensorSpec { name, shape: shape.to_vec(), role, layer: None, gguf, rotated: false }
    }

    /// The same tensor, marked as rotated by the rotary embedding.
    pub(crate) fn rotated(self) -> Self {
        Self { rotated: true, ..self }
    }

    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "a tensor of a valid configuration is never empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor is a matrix. Norm scales and biases are not, and weight decay does not apply to them.
    pub fn is_matrix(&self) -> bool {
        !matches!(self.role, TensorRole::Norm | TensorRole::Bias)
    }

    /// Whether the tensor is a matrix inside a layer. Adapters adapt these matrices, and every token is multiplied by
    /// them.
    pub fn is_layer_matrix(&self) -> bool {
        matches!(self.role, TensorRole::Matrix | TensorRole::ResidualMatrix)
    }

    /// Rows and columns; a vector has one row.
    pub(crate) fn rows_and_cols(&self) -> (usize, usize) {
        match self.shape[..] {
            [cols] => (1, cols),
            [rows, cols] => (rows, cols),
            _ => panic!("{}: a tensor has one or two dimensions, not {:?}", self.name, self.shape),
        }
    }
}

/// Identifies a group of a [`Table`], and its place in everything that the table lays out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupId(pub usize);

/// Neighbouring tensors that form one operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The indices of its tensors in the table.
    pub tensors: Range<usize>,
    /// Rows of the operand; 1 for vectors.
    pub rows: usize,
    /// Columns of the operand.
    pub cols: usize,
}

/// Tensors in the order of memory, and their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    specs: Vec<TensorSpec>,
    offsets: Vec<usize>,
    groups: Vec<Group>,
    len: usize,
}

impl Table {
    /// Appends tensors that form one operand. The names of a layer's tensors get the layer's prefix.
    ///
    /// # Panics
    /// When the tensors cannot form one operand: matrices must have equal columns, and vectors cannot be joined with
    /// matrices.
    pub fn group(&mut self, layer: Option<usize>, tensors: impl IntoIterator<Item = TensorSpec>) -> GroupId {
        let first = self.specs.len();
        let (mut rows, mut cols) = (0, 0);
        for mut spec in tensors {
            if let Some(layer) = layer {
                spec.name = format!("model.layers.{layer}.{}", spec.name);
                spec.gguf = format!("blk.{layer}.{}", spec.gguf);
            }
            spec.layer = layer;
            let own = spec.rows_and_cols();
            let is_first = self.specs.len() == first;
            (rows, cols) = match spec.shape.len() {
                1 if is_first || rows == 1 => (1, cols + own.1),
                2 if is_first || cols == own.1 => (rows + own.0, own.1),
                _ => panic!("{} of shape {:?} does not fuse with its neighbour", spec.name, spec.shape),
            };
            self.offsets.push(self.len);
            self.len += spec.len();
            self.specs.push(spec);
        }
        self.groups.push(Group { tensors: first..self.specs.len(), rows, cols });
        GroupId(self.groups.len() - 1)
    }

    /// Every tensor, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Every tensor, in order.
    pub fn into_specs(self) -> Vec<TensorSpec> {
        self.specs
    }

    /// Where tensor `index` begins, in elements.
    pub fn offset(&self, index: usize) -> usize {
        self.offsets[index]
    }

    /// Number of elements of all tensors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Every group, in order.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().enumerate().map(|(at, group)| (GroupId(at), group))
    }

    /// Rows and columns of a group.
    pub fn shape(&self, id: GroupId) -> (usize, usize) {
        (self.groups[id.0].rows, self.groups[id.0].cols)
    }

    /// The tensors of a group.
    pub fn tensors_of(&self, group: &Group) -> &[TensorSpec] {
        &self.specs[group.tensors.clone()]
    }

    /// The first group whose tensors have this role.
    pub fn find(&self, role: TensorRole) -> Option<GroupId> {
        self.groups().find(|(_, group)| self.specs[group.tensors.start].role == role).map(|(id, _)| id)
    }

    /// The table without its last group.
    pub fn without_last(mut self) -> Self {
        let group = self.groups.pop().expect("a table that has a group");
        self.len = self.offsets[group.tensors.start];
        self.specs.truncate(group.tensors.start);
        self.offsets.truncate(group.tensors.start);
        self
    }

    /// Cuts memory that this table lays out (`[1, len]`) into one view per group, ordered by [`GroupId`].
    pub fn split<V: Split>(&self, memory: V) -> Vec<V> {
        let mut rest = memory;
        let mut views = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let (own, after) = rest.split(group.rows * group.cols);
            views.push(own.shaped(group.rows, group.cols));
            rest = after;
        }
        views
    }
}

/// A view that can be cut into two disjoint views: [`View`] and [`ViewMut`].
pub(crate) trait Split: Sized {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec::new(TensorRole::Matrix, name, name, shape)
    }

    #[test]
    fn a_group_is_one_operand() {
        let mut table = Table::default();
        let single = table.group(None, [spec("a", &[2, 3])]);
        let fused = table.group(Some(4), [spec("b", &[2, 5]), spec("c", &[1, 5])]);
        let vectors = table.group(None, [spec("d", &[7]), spec("e", &[4])]);
        let shapes: Vec<_> = table.groups().map(|(id, group)| (id, group.rows, group.cols)).collect();
        assert_eq!(shapes, [(single, 2, 3), (fused, 3, 5), (vectors, 1, 11)]);
        assert_eq!((table.len(), table.offset(2), table.offset(4)), (32, 16, 28));
        assert_eq!(table.specs()[2].name, "model.layers.4.c");
        assert_eq!(table.specs()[2].gguf, "blk.4.c");

        let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let memory = kernels::Buffer::from_host(kernels::Device::Cpu, &values);
        let views = table.split(memory.view());
        let first_of_last_row =
            |id: GroupId| views[id.0].row_range(table.shape(id).0 - 1..table.shape(id).0).to_host()[0];
        assert_eq!([single, fused, vectors].map(first_of_last_row), [3.0, 16.0, 21.0]);
        assert_eq!(table.without_last().len(), 21);
    }

    #[test]
    #[should_panic(expected = "does not fuse")]
    fn matrices_of_different_widths_do_not_fuse() {
        Table::default().group(None, [spec("a", &[2, 3]), spec("b", &[2, 4])]);
    }
}
