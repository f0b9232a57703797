//! The arguments of a layer's blocks: the [`Pass`], the [`Context`] of attention, and, in backward, where gradients go.
//!
//! Read next: `attention.rs`.

use kernels::ops::attention::{PagedCache, PagedRow, Segment};
use kernels::{Buffer, Device, Element, Queue, Real, Scratch, View, ViewMut};

use crate::config::Config;
use crate::operand::Operand;
use crate::packed::PackedWeights;
use crate::table::GroupId;

/// One pass of N rows through the decoder. A row is one token at one position of one sequence.
pub(crate) struct Pass<'a, T: Real> {
    pub queue: &'a Queue,
    pub config: &'a Config,
    pub weights: &'a PackedWeights<T>,
    /// `[1, N]`: each row's position in its sequence.
    pub positions: View<'a, u32>,
    /// `[P, D]`: for each position, D/2 cosines, then D/2 sines.
    pub rotary: View<'a, f32>,
}

impl<T: Real> Pass<'_, T> {
    /// Number of rows, `N`.
    pub fn rows(&self) -> usize {
        self.positions.cols()
    }

    /// The first `N` rows of a buffer whose rows are `cols` wide.
    pub fn of<'b, E: Element>(&self, buffer: &'b Buffer<E>, cols: usize) -> View<'b, E> {
        buffer.matrix(self.rows(), cols)
    }

    /// The same, for writing.
    pub fn of_mut<'b, E: Element>(&self, buffer: &'b mut Buffer<E>, cols: usize) -> ViewMut<'b, E> {
        buffer.matrix_mut(self.rows(), cols)
    }

    /// One statistic of each row, `[1, N]`.
    pub fn statistic<'b>(&self, buffer: &'b Buffer<f32>) -> View<'b, f32> {
        buffer.matrix(1, self.rows())
    }

    /// The same, for writing.
    pub fn statistic_mut<'b>(&self, buffer: &'b mut Buffer<f32>) -> ViewMut<'b, f32> {
        buffer.matrix_mut(1, self.rows())
    }

    /// The constant that RMSNorms add to the mean square.
    pub fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }
}

/// Where attention finds the keys and values of the tokens that a row sees. Both variants give the same bits.
pub(crate) enum Context<'a, T: Real> {
    /// In the pass itself. The rows are packed sequences, described by segments.
    Packed(&'a [Segment]),
    /// In a cache. The keys and values of the pass are written to it first.
    Paged(Paged<'a, T>),
}

/// Rows of many sequences over one cache.
pub(crate) struct Paged<'a, T: Real> {
    /// `[N]`: each row's sequence, an index into `tables`, and its position.
    pub rows: &'a [PagedRow],
    /// The pages of each sequence, in order of position.
    pub tables: &'a [&'a [u32]],
    /// `[N]`: the page, and the offset within the page, of each row's own key and value.
    pub slots: &'a [(u32, u32)],
    /// Each layer's cache.
    pub layers: &'a mut [PagedCache<T>],
}

/// Where a block accumulates the gradients of its weights.
pub(crate) trait WeightGradients<T: Real> {
    /// Accumulates the gradient `d_outᵀ · x` of a matrix `[out, in]`, from `d_out: [N, out]` and `x: [N, in]`.
    fn matrix(&mut self, pass: &Pass<T>, id: GroupId, d_out: View<T>, x: View<T>, scratch: &mut Scratch);

    /// Where the gradient of a norm's scale, `[1, len]`, is accumulated. If the gradient is not wanted, this is memory
    /// that nobody reads.
    fn norm(&mut self, id: GroupId, len: usize) -> ViewMut<'_, f32>;

    /// Where the gradient of a bias is accumulated, if it is wanted.
    fn bias(&mut self, id: GroupId) -> Option<ViewMut<'_, f32>>;
}

/// Memory of one backward pass over at most `capacity` tokens of packed sequences. Blocks use it one after the other.
pub struct BackwardBuffers<T: Real> {
    /// `[N, C]`: gradient of the residual stream at the point that backward has reached.
    pub(crate) d_residual: Buffer<f32>,
    /// `[N, C]`: gradient of an RMSNorm's output.
    pub(crate) d_normed: Buffer<f32>,
    /// `[N, max(F, H·D)]`: gradient of the input of a projection to the residual stream.
    pub(crate) d_inner: Buffer<f32>,
    /// `[N, (H + 2K)·D]`: gradient of queries, keys and values.
    pub(crate) d_qkv: Buffer<f32>,
    pub(crate) operand: Operand<T>,
}

impl<T: Real> BackwardBuffers<T> {
    /// Memory for at most `capacity` tokens of packed sequences.
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let (hidden, qkv) = (config.hidden_size, config.qkv_size());
        let inner = config.intermediate_size.max(config.query_size());
        let rows_of = |width: usize| Buffer::zeros(device, capacity * width);
        Self {
            d_residual: rows_of(hidden),
            d_normed: rows_of(hidden),
            d_inner: rows_of(inner),
            d_qkv: rows_of(qkv),
            operand: Operand::new(device, capacity * qkv.max(hidden)),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        [&self.d_residual, &self.d_normed, &self.d_inner, &self.d_qkv].iter().map(|b| b.size_bytes()).sum::<usize>()
            + self.operand.size_bytes()
    }
}
