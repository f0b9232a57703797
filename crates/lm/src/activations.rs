//! What the forward pass leaves for the backward pass.
//!
//! In training, the residual stream before every layer is kept. The inner activations are kept for every layer, or for
//! one layer at a time and computed again during backward. Both ways give gradients with the same bits, because the
//! same operations run on the same values. Scoring and text generation need no backward: one residual buffer and one
//! set of inner activations serve all layers in turn.

use kernels::{Buffer, Device, Real, View};

use crate::config::Config;
use crate::layer::LayerActivations;

/// How much of the forward pass is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The inner activations of every layer: fastest.
    Everything,
    /// The residual before every layer. Backward computes the inner activations again. This costs one more forward pass
    /// of the layers and takes a fraction of the memory.
    Residuals,
    /// Nothing that backward would need: for scoring and text generation.
    Nothing,
}

/// Memory of one forward pass over at most `capacity` tokens.
pub struct Activations<T: Real> {
    pub(crate) capacity: usize,
    pub(crate) keep: Keep,
    /// Number of tokens of the last forward pass.
    pub(crate) tokens: usize,
    /// Whether backward has used this forward pass: it overwrites some activations with their gradients.
    pub(crate) used_up: bool,
    /// `[N, C]` before each layer, and after the last one.
    pub(crate) residual: Vec<Buffer<f32>>,
    pub(crate) layers: Vec<LayerActivations<T>>,
    pub(crate) final_rstd: Buffer<f32>,
    /// `[N, C]`, the rows that the head reads.
    pub(crate) hidden: Buffer<T>,
    pub(crate) token_ids: Buffer<u32>,
    pub(crate) positions: Buffer<u32>,
}

impl<T: Real> Activations<T> {
    /// Memory for at most `capacity` tokens.
    pub fn new(device: Device, config: &Config, capacity: usize, keep: Keep) -> Self {
        let insides = if keep == Keep::Everything { config.num_hidden_layers } else { 1 };
        let residuals = if keep == Keep::Nothing { 1 } else { config.num_hidden_layers + 1 };
        let wide = capacity * config.hidden_size;
        Self {
            capacity,
            keep,
            tokens: 0,
            used_up: false,
            residual: (0..residuals).map(|_| Buffer::zeros(device, wide)).collect(),
            layers: (0..insides).map(|_| LayerActivations::new(device, config, capacity)).collect(),
            final_rstd: Buffer::zeros(device, capacity),
            hidden: Buffer::zeros(device, wide),
            token_ids: Buffer::zeros(device, capacity),
            positions: Buffer::zeros(device, capacity),
        }
    }

    /// The most tokens for which there is memory.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of tokens of the last forward pass, `N`.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How much of the forward pass is kept.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// `[N, C]`, the rows that the head reads.
    pub fn hidden(&self, config: &Config) -> View<'_, T> {
        self.hidden.matrix(self.tokens, config.hidden_size)
    }

    /// A *tap*: `[N, C]`, the residual stream before layer `layer`, or after the last layer if `layer` is the number of
    /// layers.
    ///
    /// # Panics
    /// When the residuals were not kept.
    pub fn residual(&self, config: &Config, layer: usize) -> View<'_, f32> {
        assert!(self.keep != Keep::Nothing, "taps need the residuals kept");
        self.residual[layer].matrix(self.tokens, config.hidden_size)
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        let insides: usize = self.layers.iter().map(LayerActivations::size_bytes).sum();
        let residuals: usize = self.residual.iter().map(Buffer::size_bytes).sum();
        let ids = self.token_ids.size_bytes() + self.positions.size_bytes();
        insides + residuals + self.final_rstd.size_bytes() + self.hidden.size_bytes() + ids
    }
}

impl Keep {
    /// Index of the residual buffer that holds the stream before a layer.
    pub(crate) fn residual_before(self, layer: usize) -> usize {
        if self == Keep::Nothing { 0 } else { layer }
    }

    /// Index of the buffers that hold the inner activations of a layer.
    pub(crate) fn inside_of(self, layer: usize) -> usize {
        if self == Keep::Everything { layer } else { 0 }
    }
}
