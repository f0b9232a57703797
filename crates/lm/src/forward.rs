//! The decoder's forward pass over a packed batch.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rmsnorm(x);  q,k,v = h·Wqkvᵀ (+ bias), (norm,) rotate;  x += attention(q,k,v)·Woᵀ
//!              h = rmsnorm(x);  g,u = h·Wguᵀ;                              x += (silu(g)·u)·Wdᵀ
//! hidden = rmsnorm(x)
//! ```
//!
//! The logits are never made here: the head reads `hidden` by blocks of rows (`head.rs`). A row's values depend on its own
//! sequence alone, bit for bit, and not on the batch around it, since every operation works by rows and attention by
//! sequences (`kernels`, "Canonical arithmetic"). Generation runs the same operations over a cache
//! (`generate/decode.rs`).
//!
//! Read next: `backward.rs`, which walks the same lines upwards.

use kernels::gemm::{Epilogue, matmul};
use kernels::ops::attention::{Segment, attention_forward};
use kernels::ops::embedding::embedding_forward;
use kernels::ops::head_norm::head_norm_forward;
use kernels::ops::rmsnorm::rmsnorm_forward;
use kernels::ops::rotary::rotary_forward;
use kernels::ops::swiglu::swiglu_forward;
use kernels::{Buffer, Queue, Real, Scratch, View, ViewMut};

use crate::activations::{Activations, LayerActivations};
use crate::batch::Batch;
use crate::config::Config;
use crate::model::{Layer, Model};

/// Runs the decoder over `batch` and leaves the hidden rows, and what backward needs, in `activations`.
///
/// # Panics
/// When the batch exceeds the activations' capacity or the model's reserved context, or a token id the vocabulary.
pub fn forward<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    batch: &Batch,
    activations: &mut Activations<T>,
    scratch: &mut Scratch,
) {
    let (config, rows) = (model.config(), batch.len());
    let (capacity, context) = (activations.capacity, model.context_len());
    assert!(rows <= capacity, "{rows} tokens in activations for {capacity}");
    assert!(batch.context_len() <= context, "a sequence of {} in a context of {context}", batch.context_len());
    activations.tokens = rows;
    activations.walked_back = false;
    activations.token_ids.matrix_mut(1, rows).copy_from_host(batch.tokens());
    activations.positions.matrix_mut(1, rows).copy_from_host(batch.positions());

    let first = activations.residual[0].matrix_mut(rows, config.hidden_size);
    embedding_forward(queue, activations.token_ids.matrix(1, rows), model.embedding_matrix(), first);
    for index in 0..config.num_hidden_layers {
        let (inside, before, after) =
            (activations.inside_index(index), activations.residual_index(index), activations.residual_index(index + 1));
        let [x, out] =
            activations.residual.get_disjoint_mut([before, after]).expect("a layer reads one residual, writes another");
        let positions = activations.positions.matrix(1, rows);
        let pass = Pass { queue, config, segments: batch.segments(), positions, generation: model.generation() };
        let layer = &model.layers[index];
        let a = &mut activations.layers[inside];
        attend(&pass, model, layer, x, a, scratch);
        expand(&pass, layer, a);
        let epilogue = Epilogue { bias: None, addend: Some(pass.of(&a.residual, config.hidden_size)) };
        let activated = pass.of(&a.activated, config.intermediate_size);
        let down = layer.down.forward(pass.generation);
        matmul(queue, activated, down, epilogue, pass.of_mut(out, config.hidden_size));
    }
    let last = activations.residual_index(config.num_hidden_layers);
    rmsnorm_forward(
        queue,
        activations.residual[last].matrix(rows, config.hidden_size),
        model.final_norm.view(),
        config.rms_norm_eps as f32,
        activations.hidden.matrix_mut(rows, config.hidden_size),
        activations.final_rstd.matrix_mut(1, rows),
    );
}

/// What every part of a pass over a packed batch is given.
pub(crate) struct Pass<'a> {
    pub queue: &'a Queue,
    pub config: &'a Config,
    pub segments: &'a [Segment],
    /// `[1, N]`.
    pub positions: View<'a, u32>,
    /// Of the model's weights.
    pub generation: u64,
}

impl Pass<'_> {
    /// The first `N` rows of a buffer of rows `cols` wide.
    pub fn of<'b, E: kernels::Element>(&self, buffer: &'b Buffer<E>, cols: usize) -> View<'b, E> {
        buffer.matrix(self.positions.cols(), cols)
    }

    /// The same, for writing.
    pub fn of_mut<'b, E: kernels::Element>(&self, buffer: &'b mut Buffer<E>, cols: usize) -> ViewMut<'b, E> {
        buffer.matrix_mut(self.positions.cols(), cols)
    }

    /// Width of the fused query, key and value rows.
    pub fn qkv_size(&self) -> usize {
        self.config.query_size() + 2 * self.config.key_value_size()
    }
}

/// The first half of a layer: `a.residual = x + attention(rmsnorm(x))`.
pub(crate) fn attend<T: Real>(
    pass: &Pass,
    model: &Model<T>,
    layer: &Layer<T>,
    x: &Buffer<f32>,
    a: &mut LayerActivations<T>,
    scratch: &mut Scratch,
) {
    let (queue, config) = (pass.queue, pass.config);
    let (hidden, queries) = (config.hidden_size, config.query_size());
    let x = pass.of(x, hidden);
    let eps = config.rms_norm_eps as f32;
    let normed = pass.of_mut(&mut a.input_normed, hidden);
    rmsnorm_forward(queue, x, layer.input_norm.view(), eps, normed, a.input_rstd.matrix_mut(1, x.rows()));

    let epilogue = Epilogue { bias: layer.qkv_bias.as_ref().map(Buffer::view), addend: None };
    let projected = a.qkv_plain.as_mut().unwrap_or(&mut a.qkv);
    let projected = pass.of_mut(projected, pass.qkv_size());
    matmul(queue, pass.of(&a.input_normed, hidden), layer.qkv.forward(pass.generation), epilogue, projected);
    if let (Some(plain), Some((query_norm, key_norm)), Some((query_rstd, key_rstd))) =
        (&a.qkv_plain, &layer.qk_norm, &mut a.qk_rstd)
    {
        let (query, key, _) = split_qkv(config, pass.of(plain, pass.qkv_size()));
        let (query_out, key_out, _) = split_qkv_mut(config, pass.of_mut(&mut a.qkv, pass.qkv_size()));
        let query_rstd = pass.of_mut(query_rstd, config.num_attention_heads);
        let key_rstd = pass.of_mut(key_rstd, config.num_key_value_heads);
        head_norm_forward(queue, query, query_norm.view(), eps, query_out, query_rstd);
        head_norm_forward(queue, key, key_norm.view(), eps, key_out, key_rstd);
    }
    let (query, key, _) = split_qkv_mut(config, pass.of_mut(&mut a.qkv, pass.qkv_size()));
    rotary_forward(queue, query, pass.positions, model.rotary_matrix());
    rotary_forward(queue, key, pass.positions, model.rotary_matrix());

    let (query, key, value) = query_key_value(pass, &a.qkv, &a.qkv_plain);
    let attended = pass.of_mut(&mut a.attended, queries);
    let lse = a.lse.matrix_mut(x.rows(), config.num_attention_heads);
    let scale = model.attention_scale();
    attention_forward(queue, query, key, value, pass.segments, config.head_dim, scale, attended, lse, scratch);

    let epilogue = Epilogue { bias: None, addend: Some(x) };
    let out = pass.of_mut(&mut a.residual, hidden);
    matmul(queue, pass.of(&a.attended, queries), layer.output.forward(pass.generation), epilogue, out);
}

/// The second half of a layer, up to the down projection: `a.activated = swiglu(rmsnorm(a.residual))`.
pub(crate) fn expand<T: Real>(pass: &Pass, layer: &Layer<T>, a: &mut LayerActivations<T>) {
    let (queue, config) = (pass.queue, pass.config);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let x = pass.of(&a.residual, hidden);
    let normed = pass.of_mut(&mut a.post_attention_normed, hidden);
    let rstd = a.post_attention_rstd.matrix_mut(1, x.rows());
    rmsnorm_forward(queue, x, layer.post_attention_norm.view(), config.rms_norm_eps as f32, normed, rstd);
    let normed = pass.of(&a.post_attention_normed, hidden);
    let gate_up = pass.of_mut(&mut a.gate_up, 2 * inner);
    matmul(queue, normed, layer.gate_up.forward(pass.generation), Epilogue::default(), gate_up);
    swiglu_forward(queue, pass.of(&a.gate_up, 2 * inner), pass.of_mut(&mut a.activated, inner));
}

/// What attention reads: `[N, H·D]`, `[N, K·D]`, `[N, K·D]`. Values are neither normed nor rotated, so where there are
/// q/k norms they stay with the plain projections.
pub(crate) fn query_key_value<'a, T: Real>(
    pass: &Pass,
    qkv: &'a Buffer<T>,
    qkv_plain: &'a Option<Buffer<T>>,
) -> (View<'a, T>, View<'a, T>, View<'a, T>) {
    let (query, key, _) = split_qkv(pass.config, pass.of(qkv, pass.qkv_size()));
    let unrotated = qkv_plain.as_ref().unwrap_or(qkv);
    (query, key, split_qkv(pass.config, pass.of(unrotated, pass.qkv_size())).2)
}

/// The query, key and value columns of fused rows.
pub(crate) fn split_qkv<'a, E: kernels::Element>(
    config: &Config,
    qkv: View<'a, E>,
) -> (View<'a, E>, View<'a, E>, View<'a, E>) {
    let (queries, keys) = (config.query_size(), config.key_value_size());
    (
        qkv.col_range(0..queries),
        qkv.col_range(queries..queries + keys),
        qkv.col_range(queries + keys..queries + 2 * keys),
    )
}

/// The query, key and value columns of fused rows, for writing.
pub(crate) fn split_qkv_mut<'a, E: kernels::Element>(
    config: &Config,
    qkv: ViewMut<'a, E>,
) -> (ViewMut<'a, E>, ViewMut<'a, E>, ViewMut<'a, E>) {
    let (query, rest) = qkv.split_cols(config.query_size());
    let (key, value) = rest.split_cols(config.key_value_size());
    (query, key, value)
}
