//! The decoder's forward pass.
//!
//! ```text
//! x = embedding[tokens]
//! each layer:  h = rmsnorm(x);  q,k,v = h·Wqkvᵀ (+ bias), (norm,) rotate;  x += attention(q,k,v)·Woᵀ
//!              h = rmsnorm(x);  g,u = h·Wguᵀ;                              x += (silu(g)·u)·Wdᵀ
//! hidden = rmsnorm(x)
//! ```
//!
//! [`forward`] takes a batch of packed sequences; training and scoring use it. A step of text generation
//! (`generate/decode.rs`) runs the same pass over its cache. This file does not compute the logits: the head computes
//! them from `hidden`, by blocks of rows (`head.rs`).
//!
//! The values of a row depend only on the tokens of its own sequence, bit for bit. They do not depend on the other rows
//! of the batch: attention works within sequences, and every other operation within rows (`kernels`, "Canonical
//! arithmetic").
//!
//! Read next: `layer/mod.rs` (the layers), then `backward.rs`.

use kernels::ops::embedding::embedding_forward;
use kernels::ops::rmsnorm::rmsnorm_forward;
use kernels::{Queue, Real, Scratch};

use crate::activations::Activations;
use crate::batch::Batch;
use crate::layer::Context;
use crate::model::Model;

/// Runs the decoder over `batch`. It leaves the hidden rows `[N, C]`, and what backward needs, in `activations`.
///
/// # Panics
/// When the batch exceeds the activations' capacity or the model's reserved context, or a token id exceeds the
/// vocabulary.
pub fn forward<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    batch: &Batch,
    activations: &mut Activations<T>,
    scratch: &mut Scratch,
) {
    let context = model.context_len();
    assert!(batch.context_len() <= context, "a sequence of {} in a context of {context}", batch.context_len());
    let rows = Rows { tokens: batch.tokens(), positions: batch.positions() };
    run(queue, model, rows, &mut Context::Packed(batch.segments()), activations, scratch);
}

/// The rows of one pass: N token ids, and their positions.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub tokens: &'a [u32],
    pub positions: &'a [u32],
}

/// Runs rows through the decoder, over packed sequences or over a cache, as `context` says. The result is left in
/// `activations`, as [`forward`] leaves it.
pub(crate) fn run<T: Real>(
    queue: &Queue,
    model: &Model<T>,
    Rows { tokens, positions }: Rows,
    context: &mut Context<T>,
    activations: &mut Activations<T>,
    scratch: &mut Scratch,
) {
    let (config, rows, keep) = (model.config(), tokens.len(), activations.keep);
    assert!(rows <= activations.capacity, "{rows} tokens in activations for {}", activations.capacity);
    activations.tokens = rows;
    activations.used_up = false;
    let Activations { residual, layers, token_ids, positions: own_positions, final_rstd, hidden, .. } = activations;
    token_ids.matrix_mut(1, rows).copy_from_host(tokens);
    own_positions.matrix_mut(1, rows).copy_from_host(positions);
    let pass = model.pass(queue, own_positions.matrix(1, rows));

    let width = config.hidden_size;
    embedding_forward(queue, token_ids.matrix(1, rows), model.embedding(), pass.of_mut(&mut residual[0], width));
    for (index, layer) in model.layers().iter().enumerate() {
        let (x, out) = (keep.residual_before(index), keep.residual_before(index + 1));
        layer.forward(&pass, context, residual, (x, out), &mut layers[keep.inside_of(index)], scratch);
    }
    let last = pass.of(&residual[keep.residual_before(config.num_hidden_layers)], width);
    let (hidden, rstd) = (pass.of_mut(hidden, width), pass.statistic_mut(final_rstd));
    rmsnorm_forward(queue, last, model.final_norm(), pass.eps(), hidden, rstd);
}
