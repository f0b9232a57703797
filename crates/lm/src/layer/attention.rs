//! The attention block: `out = x + attention(q, k, v) · W_oᵀ` with `q, k, v = rmsnorm(x) · W_qkvᵀ`.
//!
//! Query, key and value weights are one matrix, so that one product computes all three. Qwen2 adds a bias to them.
//! Qwen3 normalises each query and key head. The rotary embedding then rotates queries and keys.
//!
//! [`Attention::forward`] is the only forward pass. [`Context::Packed`] attends within the pass itself; training and
//! scoring use it. [`Context::Paged`] attends over the cache of a text generation. A row has the same bits in both. No
//! sliding window is applied: a valid configuration has windows only where they cover the whole context.
//!
//! Source: Vaswani et al. 2017, arXiv 1706.03762; Su et al. 2021, arXiv 2104.09864 (rotary); Ainslie et al. 2023, arXiv
//! 2305.13245 (grouped heads).

use kernels::gemm::{Epilogue, matmul};
use kernels::ops::attention::{PagedCache, attention_backward, attention_forward, attention_paged, cache_write};
use kernels::ops::bias::bias_backward;
use kernels::ops::head_norm::{head_norm_backward, head_norm_forward};
use kernels::ops::rmsnorm::{rmsnorm_backward, rmsnorm_forward};
use kernels::ops::rotary::{rotary_backward, rotary_forward};
use kernels::{Buffer, Device, Element, Real, Scratch, View, ViewMut};

use super::pass::{BackwardBuffers, Context, Pass, WeightGradients};
use crate::config::Config;
use crate::table::{GroupId, Table, TensorRole, TensorSpec};

/// Where the block's operands are in the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attention {
    /// Index of the layer, and of its cache.
    layer: usize,
    /// `[C]`
    norm: GroupId,
    /// Query above key above value, `[(H + 2K)·D, C]`.
    qkv: GroupId,
    /// Their biases, `[(H + 2K)·D]`; only Qwen2 has them.
    qkv_bias: Option<GroupId>,
    /// Scales of the RMSNorms of each query head and of each key head, `[D]`; only Qwen3 has them.
    qk_norm: Option<(GroupId, GroupId)>,
    /// `[C, H·D]`
    output: GroupId,
}

impl Attention {
    /// Declares the block's tensors.
    pub fn declare(table: &mut Table, config: &Config, layer: usize) -> Self {
        use TensorRole::{Bias, Matrix, Norm, ResidualMatrix};
        let (hidden, queries, keys) = (config.hidden_size, config.query_size(), config.key_value_size());
        let spec = TensorSpec::new;
        let norm = table.group(Some(layer), [spec(Norm, "input_layernorm.weight", "attn_norm.weight", &[hidden])]);
        let qkv = [
            spec(Matrix, "self_attn.q_proj.weight", "attn_q.weight", &[queries, hidden]).rotated(),
            spec(Matrix, "self_attn.k_proj.weight", "attn_k.weight", &[keys, hidden]).rotated(),
            spec(Matrix, "self_attn.v_proj.weight", "attn_v.weight", &[keys, hidden]),
        ];
        let qkv = table.group(Some(layer), qkv);
        let qkv_bias = config.qkv_bias().then(|| {
            let biases = [
                spec(Bias, "self_attn.q_proj.bias", "attn_q.bias", &[queries]),
                spec(Bias, "self_attn.k_proj.bias", "attn_k.bias", &[keys]),
                spec(Bias, "self_attn.v_proj.bias", "attn_v.bias", &[keys]),
            ];
            table.group(Some(layer), biases)
        });
        let qk_norm = config.qk_norm().then(|| {
            let head = [config.head_dim];
            let query = spec(Norm, "self_attn.q_norm.weight", "attn_q_norm.weight", &head);
            let key = spec(Norm, "self_attn.k_norm.weight", "attn_k_norm.weight", &head);
            (table.group(Some(layer), [query]), table.group(Some(layer), [key]))
        });
        let output = spec(ResidualMatrix, "self_attn.o_proj.weight", "attn_output.weight", &[hidden, queries]);
        Self { layer, norm, qkv, qkv_bias, qk_norm, output: table.group(Some(layer), [output]) }
    }

    /// `out = x + attention(rmsnorm(x))`; `out` is overwritten. With a cache, the keys and values of the pass are
    /// written to it first.
    pub fn forward<T: Real>(
        &self,
        pass: &Pass<T>,
        context: &mut Context<T>,
        x: &Buffer<f32>,
        a: &mut AttentionActivations<T>,
        out: &mut Buffer<f32>,
        scratch: &mut Scratch,
    ) {
        let (queue, config, weights) = (pass.queue, pass.config, pass.weights);
        let (hidden, queries) = (config.hidden_size, config.query_size());
        let x = pass.of(x, hidden);
        let (normed, rstd) = (pass.of_mut(&mut a.normed, hidden), pass.statistic_mut(&mut a.rstd));
        rmsnorm_forward(queue, x, weights.vector(self.norm), pass.eps(), normed, rstd);
        self.project(pass, a);

        let (query, key, value) = query_key_value(pass, &a.qkv, &a.qkv_plain);
        let (dims, scale) = (config.head_dim, scale(config));
        match context {
            Context::Packed(segments) => {
                let lse = pass.of_mut(&mut a.lse, config.num_attention_heads);
                let attended = pass.of_mut(&mut a.attended, queries);
                attention_forward(queue, query, key, value, segments, dims, scale, attended, lse, scratch);
            }
            Context::Paged(paged) => {
                let cache = &mut paged.layers[self.layer];
                cache_write(queue, key, value, paged.slots, cache);
                let attended = pass.of_mut(&mut a.attended, queries);
                attention_paged(queue, query, paged.rows, paged.tables, cache, dims, scale, attended);
            }
        }
        let epilogue = Epilogue { bias: None, addend: Some(x) };
        let attended = pass.of(&a.attended, queries);
        matmul(queue, attended, weights.forward(self.output), epilogue, pass.of_mut(out, hidden));
    }

    /// Computes queries, keys and values. Queries and keys are normalised if the model family does so, and rotated.
    fn project<T: Real>(&self, pass: &Pass<T>, a: &mut AttentionActivations<T>) {
        let (queue, config, weights) = (pass.queue, pass.config, pass.weights);
        let epilogue = Epilogue { bias: self.qkv_bias.map(|bias| weights.vector(bias)), addend: None };
        let projected = a.qkv_plain.as_mut().unwrap_or(&mut a.qkv);
        let projected = pass.of_mut(projected, config.qkv_size());
        matmul(queue, pass.of(&a.normed, config.hidden_size), weights.forward(self.qkv), epilogue, projected);
        if let (Some(plain), Some((query_norm, key_norm)), Some((query_rstd, key_rstd))) =
            (&a.qkv_plain, self.qk_norm, &mut a.qk_rstd)
        {
            let (query, key, _) = split_qkv(config, pass.of(plain, config.qkv_size()));
            let (query_out, key_out, _) = split_qkv_mut(config, pass.of_mut(&mut a.qkv, config.qkv_size()));
            let query_rstd = pass.of_mut(query_rstd, config.num_attention_heads);
            let key_rstd = pass.of_mut(key_rstd, config.num_key_value_heads);
            head_norm_forward(queue, query, weights.vector(query_norm), pass.eps(), query_out, query_rstd);
            head_norm_forward(queue, key, weights.vector(key_norm), pass.eps(), key_out, key_rstd);
        }
        let (query, key, _) = split_qkv_mut(config, pass.of_mut(&mut a.qkv, config.qkv_size()));
        rotary_forward(queue, query, pass.positions, pass.rotary);
        rotary_forward(queue, key, pass.positions, pass.rotary);
    }

    /// Replaces the gradient of `out` in `buffers.d_residual` by the gradient of `x`.
    ///
    /// # Panics
    /// Over a cache: text generation keeps nothing for backward.
    pub fn backward<T: Real>(
        &self,
        pass: &Pass<T>,
        context: &Context<T>,
        x: &Buffer<f32>,
        a: &AttentionActivations<T>,
        gradients: &mut dyn WeightGradients<T>,
        buffers: &mut BackwardBuffers<T>,
        scratch: &mut Scratch,
    ) {
        let Context::Packed(segments) = context else { panic!("attention has no backward over a cache") };
        let (queue, config, weights) = (pass.queue, pass.config, pass.weights);
        let (hidden, queries, qkv) = (config.hidden_size, config.query_size(), config.qkv_size());
        let BackwardBuffers { d_residual, d_normed, d_inner, d_qkv, operand } = buffers;
        let attended = pass.of(&a.attended, queries);
        let d_out = operand.of(queue, pass.of(d_residual, hidden));
        gradients.matrix(pass, self.output, d_out, attended, scratch);
        matmul(queue, d_out, weights.backward(self.output), Epilogue::default(), pass.of_mut(d_inner, queries));

        let (query, key, value) = query_key_value(pass, &a.qkv, &a.qkv_plain);
        let (d_query, d_key, d_value) = split_qkv_mut(config, pass.of_mut(d_qkv, qkv));
        attention_backward(
            queue,
            query,
            key,
            value,
            attended,
            pass.of(&a.lse, config.num_attention_heads),
            pass.of(d_inner, queries),
            segments,
            config.head_dim,
            scale(config),
            d_query,
            d_key,
            d_value,
            scratch,
        );
        self.project_backward(pass, a, gradients, d_qkv);

        let d_qkv = operand.of(queue, pass.of(d_qkv, qkv));
        gradients.matrix(pass, self.qkv, d_qkv, pass.of(&a.normed, hidden), scratch);
        matmul(queue, d_qkv, weights.backward(self.qkv), Epilogue::default(), pass.of_mut(d_normed, hidden));
        rmsnorm_backward(
            queue,
            pass.of(x, hidden),
            weights.vector(self.norm),
            pass.statistic(&a.rstd),
            pass.of(d_normed, hidden),
            pass.of_mut(d_residual, hidden),
            gradients.norm(self.norm, hidden),
        );
    }

    /// Replaces the gradient of attention's inputs in `d_qkv` by the gradient of the projection's output, before its
    /// bias.
    fn project_backward<T: Real>(
        &self,
        pass: &Pass<T>,
        a: &AttentionActivations<T>,
        gradients: &mut dyn WeightGradients<T>,
        d_qkv: &mut Buffer<f32>,
    ) {
        let (queue, config, weights) = (pass.queue, pass.config, pass.weights);
        let (dims, qkv) = (config.head_dim, config.qkv_size());
        let (mut d_query, mut d_key, _) = split_qkv_mut(config, pass.of_mut(d_qkv, qkv));
        rotary_backward(queue, d_query.reborrow(), pass.positions, pass.rotary);
        rotary_backward(queue, d_key.reborrow(), pass.positions, pass.rotary);
        if let (Some(plain), Some((query_norm, key_norm)), Some((query_rstd, key_rstd))) =
            (&a.qkv_plain, self.qk_norm, &a.qk_rstd)
        {
            let (query, key, _) = split_qkv(config, pass.of(plain, qkv));
            let query_rstd = pass.of(query_rstd, config.num_attention_heads);
            let key_rstd = pass.of(key_rstd, config.num_key_value_heads);
            let d_norm = gradients.norm(query_norm, dims);
            head_norm_backward(queue, query, weights.vector(query_norm), query_rstd, d_query, d_norm);
            let d_norm = gradients.norm(key_norm, dims);
            head_norm_backward(queue, key, weights.vector(key_norm), key_rstd, d_key, d_norm);
        }
        if let Some(d_bias) = self.qkv_bias.and_then(|bias| gradients.bias(bias)) {
            bias_backward(queue, pass.of(d_qkv, qkv), d_bias);
        }
    }
}

/// What the block's forward pass leaves for its backward pass.
pub(crate) struct AttentionActivations<T: Real> {
    /// `[N]`, reciprocals of the root mean squares.
    rstd: Buffer<f32>,
    /// `[N, C]` after the RMSNorm.
    normed: Buffer<T>,
    /// `[N, (H + 2K)·D]` before the norms of heads; only where the family has such norms.
    qkv_plain: Option<Buffer<T>>,
    /// `[N, H]` and `[N, K]`, reciprocals of the root mean squares of the heads.
    qk_rstd: Option<(Buffer<f32>, Buffer<f32>)>,
    /// `[N, (H + 2K)·D]`, after the rotation of queries and keys.
    qkv: Buffer<T>,
    /// `[N, H·D]`, the output of attention.
    attended: Buffer<T>,
    /// `[N, H]`, log-sum-exp of each query's scores. It is not written when attention runs over a cache.
    lse: Buffer<f32>,
}

impl<T: Real> AttentionActivations<T> {
    /// Memory for at most `capacity` tokens.
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let (heads, key_value_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let rows_of = |width: usize| Buffer::zeros(device, capacity * width);
        let statistics = |width: usize| Buffer::zeros(device, capacity * width);
        Self {
            rstd: statistics(1),
            normed: rows_of(config.hidden_size),
            qkv_plain: config.qk_norm().then(|| rows_of(config.qkv_size())),
            qk_rstd: config.qk_norm().then(|| (statistics(heads), statistics(key_value_heads))),
            qkv: rows_of(config.qkv_size()),
            attended: rows_of(config.query_size()),
            lse: statistics(heads),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        let rows = [&self.normed, &self.qkv, &self.attended].iter().map(|b| b.size_bytes()).sum::<usize>();
        let of_heads = self.qk_rstd.as_ref().map_or(0, |(query, key)| query.size_bytes() + key.size_bytes());
        let plain = self.qkv_plain.as_ref().map_or(0, Buffer::size_bytes);
        rows + plain + self.rstd.size_bytes() + self.lse.size_bytes() + of_heads
    }
}

/// The keys and values of one layer, in `pages` pages.
pub(crate) fn cache<T: Real>(device: Device, config: &Config, pages: usize) -> PagedCache<T> {
    PagedCache::new(device, pages, config.num_key_value_heads, config.head_dim)
}

/// Size of one page of [`cache`], in bytes.
pub(crate) fn page_bytes<T: Real>(config: &Config) -> usize {
    PagedCache::<T>::page_bytes(config.num_key_value_heads, config.head_dim)
}

/// Floating-point operations for each visible pair of a query and a key: 2·D for the score and 2·D for the weighted
/// value, for each head.
pub(crate) fn flops_per_pair(config: &Config) -> usize {
    4 * config.query_size()
}

/// The factor on the scores, `1 / √D`.
fn scale(config: &Config) -> f32 {
    (1.0 / (config.head_dim as f64).sqrt()) as f32
}

/// The inputs of attention: `[N, H·D]`, `[N, K·D]`, `[N, K·D]`. Values are neither normalised nor rotated. So where
/// there are norms of heads, the values stay in the buffer of the plain projections.
fn query_key_value<'a, T: Real>(
    pass: &Pass<T>,
    qkv: &'a Buffer<T>,
    qkv_plain: &'a Option<Buffer<T>>,
) -> (View<'a, T>, View<'a, T>, View<'a, T>) {
    let (config, width) = (pass.config, pass.config.qkv_size());
    let (query, key, _) = split_qkv(config, pass.of(qkv, width));
    let plain = qkv_plain.as_ref().unwrap_or(qkv);
    (query, key, split_qkv(config, pass.of(plain, width)).2)
}

/// The query, key and value columns of fused rows.
fn split_qkv<'a, E: Element>(config: &Config, qkv: View<'a, E>) -> (View<'a, E>, View<'a, E>, View<'a, E>) {
    let (queries, keys) = (config.query_size(), config.key_value_size());
    (
        qkv.col_range(0..queries),
        qkv.col_range(queries..queries + keys),
        qkv.col_range(queries + keys..queries + 2 * keys),
    )
}

/// The query, key and value columns of fused rows, for writing.
fn split_qkv_mut<'a, E: Element>(
    config: &Config,
    qkv: ViewMut<'a, E>,
) -> (ViewMut<'a, E>, ViewMut<'a, E>, ViewMut<'a, E>) {
    let (query, rest) = qkv.split_cols(config.query_size());
    let (key, value) = rest.split_cols(config.key_value_size());
    (query, key, value)
}
