//! One layer of the decoder: a block that mixes tokens, then a block that processes each token alone.
//!
//! ```text
//! middle = x + attention(rmsnorm(x))          attention.rs
//! out    = middle + swiglu(rmsnorm(middle))   mlp.rs
//! ```
//!
//! The file of a block holds everything about its kind: the tensors that it declares, what its forward pass keeps, its
//! forward pass, its backward pass, and, for attention, the cache of a text generation. Training and generation call
//! the same functions. They differ only in the [`Context`], which says where the keys and values are that a token sees.
//!
//! To add a kind of layer (for example, mixture of experts instead of the SwiGLU, or linear attention instead of
//! attention), write a file beside these two. Select it here by [`LayerType`] or by a field of the configuration.
//!
//! Read next: `pass.rs` (the arguments of blocks), `attention.rs`, `mlp.rs`.

mod attention;
mod mlp;
mod pass;

use kernels::ops::attention::PagedCache;
use kernels::{Buffer, Device, Real, Scratch};

use crate::config::{Config, LayerType};
use crate::table::Table;
use attention::{Attention, AttentionActivations};
use mlp::{Mlp, MlpActivations};

pub use pass::BackwardBuffers;
pub(crate) use pass::{Context, Paged, Pass, WeightGradients};

/// Where a layer's operands are in the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    attention: Attention,
    mlp: Mlp,
}

impl Layer {
    /// Declares the tensors of layer `index`.
    pub fn declare(table: &mut Table, config: &Config, index: usize) -> Self {
        let attention = match config.layer_types[index] {
            LayerType::FullAttention | LayerType::SlidingAttention => Attention::declare(table, config, index),
        };
        Self { attention, mlp: Mlp::declare(table, config, index) }
    }

    /// Floating-point operations of layer `index` for each visible pair of a query and a key.
    pub fn flops_per_pair(config: &Config, index: usize) -> usize {
        match config.layer_types[index] {
            LayerType::FullAttention | LayerType::SlidingAttention => attention::flops_per_pair(config),
        }
    }

    /// The cache of layer `index` in text generation: the keys and values of earlier tokens, in pages.
    pub fn cache<T: Real>(device: Device, config: &Config, index: usize, pages: usize) -> PagedCache<T> {
        match config.layer_types[index] {
            LayerType::FullAttention | LayerType::SlidingAttention => attention::cache(device, config, pages),
        }
    }

    /// Size of one page of layer `index`'s cache, in bytes.
    pub fn page_bytes<T: Real>(config: &Config, index: usize) -> usize {
        match config.layer_types[index] {
            LayerType::FullAttention | LayerType::SlidingAttention => attention::page_bytes::<T>(config),
        }
    }

    /// `out = layer(x)`. It leaves in `a` what backward needs.
    ///
    /// * `(x, out)`: the indices of two buffers of `residual`. They may be the same buffer if backward does not need
    ///   `x`.
    pub fn forward<T: Real>(
        &self,
        pass: &Pass<T>,
        context: &mut Context<T>,
        residual: &mut [Buffer<f32>],
        (x, out): (usize, usize),
        a: &mut LayerActivations<T>,
        scratch: &mut Scratch,
    ) {
        self.attention.forward(pass, context, &residual[x], &mut a.attention, &mut a.middle, scratch);
        self.mlp.forward(pass, &a.middle, &mut a.mlp, &mut residual[out]);
    }

    /// Computes again what [`Layer::forward`] left in `a`, without computing the layer's output.
    pub fn recompute<T: Real>(
        &self,
        pass: &Pass<T>,
        context: &mut Context<T>,
        x: &Buffer<f32>,
        a: &mut LayerActivations<T>,
        scratch: &mut Scratch,
    ) {
        self.attention.forward(pass, context, x, &mut a.attention, &mut a.middle, scratch);
        self.mlp.expand(pass, &a.middle, &mut a.mlp);
    }

    /// Replaces the gradient of the layer's output in `buffers.d_residual` by the gradient of its input `x`, and
    /// accumulates the gradients of its weights. It overwrites parts of `a`.
    pub fn backward<T: Real>(
        &self,
        pass: &Pass<T>,
        context: &Context<T>,
        x: &Buffer<f32>,
        a: &mut LayerActivations<T>,
        gradients: &mut dyn WeightGradients<T>,
        buffers: &mut BackwardBuffers<T>,
        scratch: &mut Scratch,
    ) {
        self.mlp.backward(pass, &a.middle, &mut a.mlp, gradients, buffers, scratch);
        self.attention.backward(pass, context, x, &a.attention, gradients, buffers, scratch);
    }
}

/// What the forward pass of one layer leaves for its backward pass.
pub(crate) struct LayerActivations<T: Real> {
    attention: AttentionActivations<T>,
    /// `[N, C]`, the residual stream between the two blocks.
    middle: Buffer<f32>,
    mlp: MlpActivations<T>,
}

impl<T: Real> LayerActivations<T> {
    /// Memory for at most `capacity` tokens.
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        Self {
            attention: AttentionActivations::new(device, config, capacity),
            middle: Buffer::zeros(device, capacity * config.hidden_size),
            mlp: MlpActivations::new(device, config, capacity),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.attention.size_bytes() + self.middle.size_bytes() + self.mlp.size_bytes()
    }
}
