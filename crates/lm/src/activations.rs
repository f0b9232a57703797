//! What forward leaves behind for backward.
//!
//! The residual stream before every layer is always kept. The inside of a layer is kept for every layer, or for one at
//! a time and recomputed on the way back; the gradients are the same bits, since recomputation runs the same
//! kernels on the same values.

use kernels::{Buffer, Device, Real};

use crate::config::Config;

/// How much of forward is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every layer's inside: fastest.
    Everything,
    /// The residual before every layer; insides are recomputed in backward. One more forward of the layers, a fraction of the memory.
    Residuals,
    /// Nothing that backward would need: scoring.
    Nothing,
}

/// Memory of one forward over at most `capacity` packed tokens.
pub struct Activations<T: Real> {
    pub(crate) capacity: usize,
    pub(crate) keep: Keep,
    /// Number of packed tokens of the last forward.
    pub(crate) tokens: usize,
    /// Whether backward has used that forward up: gates and ups are then their own gradients.
    pub(crate) walked_back: bool,
    /// `[N, C]` before each layer, and after the last.
    pub(crate) residual: Vec<Buffer<f32>>,
    pub(crate) layers: Vec<LayerActivations<T>>,
    pub(crate) final_rstd: Buffer<f32>,
    /// `[N, C]`, what the head reads.
    pub(crate) hidden: Buffer<T>,
    pub(crate) token_ids: Buffer<u32>,
    pub(crate) positions: Buffer<u32>,
}

/// The inside of one layer.
pub(crate) struct LayerActivations<T: Real> {
    pub input_rstd: Buffer<f32>,
    /// `[N, C]` after the first RMSNorm.
    pub input_normed: Buffer<T>,
    /// `[N, (H + 2K)·D]` before the q/k norms; only where there are such norms.
    pub qkv_plain: Option<Buffer<T>>,
    /// `[N, H]` and `[N, K]`.
    pub qk_rstd: Option<(Buffer<f32>, Buffer<f32>)>,
    /// `[N, (H + 2K)·D]`, rotated.
    pub qkv: Buffer<T>,
    /// `[N, H·D]`.
    pub attended: Buffer<T>,
    /// `[N, H]`, log-sum-exp of each query's scores.
    pub lse: Buffer<f32>,
    /// `[N, C]` between attention and SwiGLU.
    pub residual: Buffer<f32>,
    pub post_attention_rstd: Buffer<f32>,
    /// `[N, C]` after the second RMSNorm.
    pub post_attention_normed: Buffer<T>,
    /// `[N, 2F]`.
    pub gate_up: Buffer<T>,
    /// `[N, F]`.
    pub activated: Buffer<T>,
}

impl<T: Real> Activations<T> {
    /// Memory for at most `capacity` packed tokens.
    pub fn new(device: Device, config: &Config, capacity: usize, keep: Keep) -> Self {
        let insides = if keep == Keep::Everything { config.num_hidden_layers } else { 1 };
        // Without backward two residuals are enough, used in turn.
        let residuals = if keep == Keep::Nothing { 2 } else { config.num_hidden_layers + 1 };
        let wide = capacity * config.hidden_size;
        Self {
            capacity,
            keep,
            tokens: 0,
            walked_back: false,
            residual: (0..residuals).map(|_| Buffer::zeros(device, wide)).collect(),
            layers: (0..insides).map(|_| LayerActivations::new(device, config, capacity)).collect(),
            final_rstd: Buffer::zeros(device, capacity),
            hidden: Buffer::zeros(device, wide),
            token_ids: Buffer::zeros(device, capacity),
            positions: Buffer::zeros(device, capacity),
        }
    }

    /// The most packed tokens it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Packed tokens of the last forward, `N`.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How much is kept.
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// `[N, C]`, the rows that the head reads.
    pub fn hidden(&self, config: &Config) -> kernels::View<'_, T> {
        self.hidden.matrix(self.tokens, config.hidden_size)
    }

    /// The tap: `[N, C]`, the residual stream before layer `layer` (after the last for `layer` = number of layers).
    ///
    /// # Panics
    /// When residuals were not kept.
    pub fn residual(&self, config: &Config, layer: usize) -> kernels::View<'_, f32> {
        assert!(self.keep != Keep::Nothing, "taps need the residuals kept");
        self.residual[layer].matrix(self.tokens, config.hidden_size)
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let insides: usize = self.layers.iter().map(LayerActivations::size_bytes).sum();
        let residuals: usize = self.residual.iter().map(Buffer::size_bytes).sum();
        insides + residuals + self.final_rstd.size_bytes() + self.hidden.size_bytes() + 8 * self.capacity
    }

    pub(crate) fn residual_index(&self, layer: usize) -> usize {
        if self.keep == Keep::Nothing { layer % 2 } else { layer }
    }

    pub(crate) fn inside_index(&self, layer: usize) -> usize {
        if self.keep == Keep::Everything { layer } else { 0 }
    }
}

impl<T: Real> LayerActivations<T> {
    fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let (heads, key_value_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (queries, qkv) = (config.query_size(), config.query_size() + 2 * config.key_value_size());
        let of = |width: usize| Buffer::zeros(device, capacity * width);
        let statistics = |width: usize| Buffer::zeros(device, capacity * width);
        Self {
            input_rstd: statistics(1),
            input_normed: of(config.hidden_size),
            qkv_plain: config.qk_norm().then(|| of(qkv)),
            qk_rstd: config.qk_norm().then(|| (statistics(heads), statistics(key_value_heads))),
            qkv: of(qkv),
            attended: of(queries),
            lse: statistics(heads),
            residual: statistics(config.hidden_size),
            post_attention_rstd: statistics(1),
            post_attention_normed: of(config.hidden_size),
            gate_up: of(2 * config.intermediate_size),
            activated: of(config.intermediate_size),
        }
    }

    fn size_bytes(&self) -> usize {
        let activations = [
            &self.input_normed,
            &self.qkv,
            &self.attended,
            &self.post_attention_normed,
            &self.gate_up,
            &self.activated,
        ];
        let statistics = [&self.input_rstd, &self.lse, &self.residual, &self.post_attention_rstd];
        activations.iter().map(|b| b.size_bytes()).sum::<usize>()
            + statistics.iter().map(|b| b.size_bytes()).sum::<usize>()
            + self.qkv_plain.as_ref().map_or(0, Buffer::size_bytes)
            + self.qk_rstd.as_ref().map_or(0, |(q, k)| q.size_bytes() + k.size_bytes())
    }
}
