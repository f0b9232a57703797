//! The decoder's backward pass: `forward.rs` read upwards, by hand.
//!
//! Gradients of weights are **accumulated** into what [`Gradients`] names; gradients of activations are overwritten, and
//! flow through one f32 residual buffer that starts as the gradient of the last residual and ends as that of the
//! embedding's rows. The reductions over rows run in increasing row order, so that gradients do not depend on the
//! number of threads, and rows cut into consecutive micro-batches sum in the same order as uncut.
//!
//! Read next: `head.rs`, where the gradient of the hidden rows comes from.

use kernels::gemm::{Epilogue, matmul, matmul_transposed_a};
use kernels::ops::attention::attention_backward;
use kernels::ops::bias::bias_backward;
use kernels::ops::elementwise::{add, zero};
use kernels::ops::embedding::embedding_backward;
use kernels::ops::head_norm::head_norm_backward;
use kernels::ops::rmsnorm::rmsnorm_backward;
use kernels::ops::rotary::rotary_backward;
use kernels::ops::swiglu::swiglu_backward;
use kernels::{Buffer, Device, Queue, Real, Scratch, View, ViewMut};

use crate::activations::{Activations, Keep, LayerActivations};
use crate::batch::Batch;
use crate::config::{Config, Part};
use crate::forward::{Pass, attend, expand, query_key_value, split_qkv, split_qkv_mut};
use crate::lora::{Adapters, Matrix};
use crate::model::{Layer, Model};
use crate::operand::Operand;
use crate::params::{Arena, Weights};

/// Memory of one backward over at most `capacity` packed tokens.
pub struct BackwardBuffers<T: Real> {
    /// `[N, C]`: gradient of the residual stream at the point the walk has reached.
    d_residual: Buffer<f32>,
    /// `[N, C]`, gradient of a normed input.
    d_normed: Buffer<f32>,
    /// `[N, max(F, H·D)]`, gradient of what a projection to the residual stream read.
    d_inner: Buffer<f32>,
    /// `[N, (H + 2K)·D]`.
    d_qkv: Buffer<f32>,
    operand: Operand<T>,
}

impl<T: Real> BackwardBuffers<T> {
    /// Memory for at most `capacity` packed tokens.
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let qkv = config.query_size() + 2 * config.key_value_size();
        let inner = config.intermediate_size.max(config.query_size());
        Self {
            d_residual: Buffer::zeros(device, capacity * config.hidden_size),
            d_normed: Buffer::zeros(device, capacity * config.hidden_size),
            d_inner: Buffer::zeros(device, capacity * inner),
            d_qkv: Buffer::zeros(device, capacity * qkv),
            operand: Operand::new(device, capacity * qkv.max(config.hidden_size)),
        }
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        [&self.d_residual, &self.d_normed, &self.d_inner, &self.d_qkv].iter().map(|b| b.size_bytes()).sum::<usize>()
            + self.operand.size_bytes()
    }
}

/// A gradient that enters at a tap: `[N, C]`, of the residual stream before layer `layer`.
pub struct TapGradient<'a> {
    /// As in [`Activations::residual`].
    pub layer: usize,
    /// `[N, C]`, added to the gradient that comes from above.
    pub gradient: View<'a, f32>,
}

/// The weights whose gradients are wanted.
pub enum Gradients<'a, T: Real> {
    /// Every weight's.
    Weights(Weights<ViewMut<'a, f32>>),
    /// Those of adapters, laid out as they are.
    Adapters(&'a mut Adapters<T>, &'a mut Arena),
}

impl<T: Real> Gradients<'_, T> {
    /// Accumulates the gradient of a fused matrix of a layer.
    fn matrix(
        &mut self,
        pass: &Pass,
        (layer, matrix): (usize, Matrix),
        (d_out, x): (View<T>, View<T>),
        scratch: &mut Scratch,
    ) {
        let queue = pass.queue;
        match self {
            Gradients::Weights(weights) => {
                let into = matrix.of_mut(&mut weights.layers[layer]);
                matmul_transposed_a(queue, d_out, x, into.reborrow(), true, scratch);
            }
            Gradients::Adapters(adapters, gradients) => {
                let of = (queue, pass.generation);
                adapters.accumulate(of, (layer, matrix), (d_out, x), gradients, scratch);
            }
        }
    }

    /// Where the head's gradient goes, if it learns: to the embedding where the two are tied.
    pub fn head(&mut self) -> Option<ViewMut<'_, f32>> {
        let Gradients::Weights(weights) = self else { return None };
        Some(weights.head.as_mut().unwrap_or(&mut weights.embedding).reborrow())
    }

    /// Where the gradient of a norm's scale, `len` wide, goes.
    fn norm(&mut self, layer: usize, part: Part, len: usize) -> ViewMut<'_, f32> {
        let weights = match self {
            Gradients::Weights(weights) => weights,
            Gradients::Adapters(adapters, _) => return adapters.unread(len),
        };
        let of_heads = "the table has norms of heads";
        match part {
            Part::FinalNorm => weights.final_norm.reborrow(),
            Part::InputNorm => weights.layers[layer].input_norm.reborrow(),
            Part::PostAttentionNorm => weights.layers[layer].post_attention_norm.reborrow(),
            Part::QueryNorm => weights.layers[layer].qk_norm.as_mut().expect(of_heads).0.reborrow(),
            Part::KeyNorm => weights.layers[layer].qk_norm.as_mut().expect(of_heads).1.reborrow(),
            part => unreachable!("{part:?} is no norm"),
        }
    }
}

/// Walks back from `d_hidden` (`[N, C]`, the gradient of the rows the head read) to the embedding, accumulating into
/// `gradients`. It takes some of the activations for its own memory, so that a forward serves one backward.
///
/// # Panics
/// When the activations hold another batch's forward, none, or one that was walked back already, or the model was built for inference.
pub fn backward<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    batch: &Batch,
    activations: &mut Activations<T>,
    d_hidden: View<f32>,
    taps: &[TapGradient],
    gradients: &mut Gradients<T>,
    buffers: &mut BackwardBuffers<T>,
    scratch: &mut Scratch,
) {
    let (config, rows) = (model.config(), batch.len());
    assert_eq!(activations.tokens, rows, "the activations are of another batch");
    assert!(!activations.walked_back, "the activations were walked back already");
    assert!(activations.keep != Keep::Nothing, "forward kept nothing for backward");
    activations.walked_back = true;
    let Activations { residual, layers, positions, token_ids, final_rstd, keep, .. } = activations;
    let positions = positions.matrix(1, rows);
    let pass = Pass { queue, config, segments: batch.segments(), positions, generation: model.generation() };
    let count = config.num_hidden_layers;

    zero(queue, pass.of_mut(&mut buffers.d_residual, config.hidden_size));
    rmsnorm_backward(
        queue,
        pass.of(&residual[count], config.hidden_size),
        model.final_norm.view(),
        final_rstd.matrix(1, rows),
        d_hidden,
        pass.of_mut(&mut buffers.d_residual, config.hidden_size),
        gradients.norm(count, Part::FinalNorm, config.hidden_size),
    );
    add_taps(&pass, taps, count, buffers);
    for index in (0..count).rev() {
        let layer = &model.layers[index];
        let a = &mut layers[if *keep == Keep::Everything { index } else { 0 }];
        if *keep == Keep::Residuals {
            attend(&pass, model, layer, &residual[index], a, scratch);
            expand(&pass, layer, a);
        }
        swiglu_half(&pass, (index, layer), a, gradients, buffers, scratch);
        attention_half(&pass, model, (index, layer), &residual[index], a, gradients, buffers, scratch);
        add_taps(&pass, taps, index, buffers);
    }
    if let Gradients::Weights(weights) = gradients {
        let d_embedded = pass.of(&buffers.d_residual, config.hidden_size);
        embedding_backward(queue, token_ids.matrix(1, rows), d_embedded, weights.embedding.reborrow());
    }
}

fn add_taps<T: Real>(pass: &Pass, taps: &[TapGradient], layer: usize, buffers: &mut BackwardBuffers<T>) {
    for tap in taps.iter().filter(|tap| tap.layer == layer) {
        add(pass.queue, tap.gradient, pass.of_mut(&mut buffers.d_residual, pass.config.hidden_size));
    }
}

/// Through `x += (silu(g)·u)·Wdᵀ`: `d_residual` becomes the gradient of `a.residual`, and `a.gate_up` its own.
fn swiglu_half<T: Real>(
    pass: &Pass,
    (index, layer): (usize, &Layer<T>),
    a: &mut LayerActivations<T>,
    gradients: &mut Gradients<T>,
    buffers: &mut BackwardBuffers<T>,
    scratch: &mut Scratch,
) {
    let (queue, hidden, inner) = (pass.queue, pass.config.hidden_size, pass.config.intermediate_size);
    let BackwardBuffers { d_residual, d_normed, d_inner, operand, .. } = buffers;
    let d_out = operand.of(queue, pass.of(d_residual, hidden));
    gradients.matrix(pass, (index, Matrix::Down), (d_out, pass.of(&a.activated, inner)), scratch);
    matmul(queue, d_out, layer.down.backward(pass.generation), Epilogue::default(), pass.of_mut(d_inner, inner));
    swiglu_backward(queue, pass.of(d_inner, inner), pass.of_mut(&mut a.gate_up, 2 * inner));

    let d_gate_up = pass.of(&a.gate_up, 2 * inner);
    let normed = pass.of(&a.post_attention_normed, hidden);
    gradients.matrix(pass, (index, Matrix::GateUp), (d_gate_up, normed), scratch);
    matmul(
        queue,
        d_gate_up,
        layer.gate_up.backward(pass.generation),
        Epilogue::default(),
        pass.of_mut(d_normed, hidden),
    );
    rmsnorm_backward(
        queue,
        pass.of(&a.residual, hidden),
        layer.post_attention_norm.view(),
        a.post_attention_rstd.matrix(1, normed.rows()),
        pass.of(d_normed, hidden),
        pass.of_mut(d_residual, hidden),
        gradients.norm(index, Part::PostAttentionNorm, hidden),
    );
}

/// Through `x += attention(q, k, v)·Woᵀ`: `d_residual` becomes the gradient of the layer's input.
fn attention_half<T: Real>(
    pass: &Pass,
    model: &Model<T>,
    (index, layer): (usize, &Layer<T>),
    x: &Buffer<f32>,
    a: &LayerActivations<T>,
    gradients: &mut Gradients<T>,
    buffers: &mut BackwardBuffers<T>,
    scratch: &mut Scratch,
) {
    let (queue, config) = (pass.queue, pass.config);
    let (hidden, queries, qkv) = (config.hidden_size, config.query_size(), pass.qkv_size());
    let BackwardBuffers { d_residual, d_normed, d_inner, d_qkv, operand, .. } = buffers;
    let attended = pass.of(&a.attended, queries);
    let d_out = operand.of(queue, pass.of(d_residual, hidden));
    gradients.matrix(pass, (index, Matrix::Output), (d_out, attended), scratch);
    matmul(queue, d_out, layer.output.backward(pass.generation), Epilogue::default(), pass.of_mut(d_inner, queries));

    let (query, key, value) = query_key_value(pass, &a.qkv, &a.qkv_plain);
    let (d_query, d_key, d_value) = split_qkv_mut(config, pass.of_mut(d_qkv, qkv));
    let lse = a.lse.matrix(attended.rows(), config.num_attention_heads);
    let d_attended = pass.of(d_inner, queries);
    let (scale, dims) = (model.attention_scale(), config.head_dim);
    attention_backward(
        queue,
        query,
        key,
        value,
        attended,
        lse,
        d_attended,
        pass.segments,
        dims,
        scale,
        d_query,
        d_key,
        d_value,
        scratch,
    );
    let (mut d_query, mut d_key, _) = split_qkv_mut(config, pass.of_mut(d_qkv, qkv));
    rotary_backward(queue, d_query.reborrow(), pass.positions, model.rotary_matrix());
    rotary_backward(queue, d_key.reborrow(), pass.positions, model.rotary_matrix());
    if let (Some(plain), Some((query_norm, key_norm)), Some((query_rstd, key_rstd))) =
        (&a.qkv_plain, &layer.qk_norm, &a.qk_rstd)
    {
        let (query, key, _) = split_qkv(config, pass.of(plain, qkv));
        let query_rstd = pass.of(query_rstd, config.num_attention_heads);
        let key_rstd = pass.of(key_rstd, config.num_key_value_heads);
        let d_norm = gradients.norm(index, Part::QueryNorm, dims);
        head_norm_backward(queue, query, query_norm.view(), query_rstd, d_query, d_norm);
        let d_norm = gradients.norm(index, Part::KeyNorm, dims);
        head_norm_backward(queue, key, key_norm.view(), key_rstd, d_key, d_norm);
    }
    if let Gradients::Weights(weights) = gradients
        && let Some(d_bias) = &mut weights.layers[index].qkv_bias
    {
        bias_backward(queue, pass.of(d_qkv, qkv), d_bias.reborrow());
    }

    let d_qkv = operand.of(queue, pass.of(d_qkv, qkv));
    gradients.matrix(pass, (index, Matrix::Qkv), (d_qkv, pass.of(&a.input_normed, hidden)), scratch);
    matmul(queue, d_qkv, layer.qkv.backward(pass.generation), Epilogue::default(), pass.of_mut(d_normed, hidden));
    rmsnorm_backward(
        queue,
        pass.of(x, hidden),
        layer.input_norm.view(),
        a.input_rstd.matrix(1, attended.rows()),
        pass.of(d_normed, hidden),
        pass.of_mut(d_residual, hidden),
        gradients.norm(index, Part::InputNorm, hidden),
    );
}
