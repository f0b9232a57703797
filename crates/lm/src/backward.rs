//! The decoder's backward pass, written by hand: the lines of `forward.rs` in reverse order.
//!
//! Gradients of weights are **accumulated** into the arrays that [`Gradients`] names. Gradients of activations are
//! overwritten. They flow through one f32 buffer, which starts as the gradient of the last residual and ends as the
//! gradient of the embedding's rows. Sums over rows run in order of increasing row. So gradients do not depend on the
//! number of threads, and a batch that is cut into consecutive micro-batches is summed in the same order as the whole
//! batch.
//!
//! Read next: `layer/mod.rs` (the backward pass of a layer), then `head.rs`, which computes the gradient of the hidden
//! rows.

use kernels::gemm::matmul_transposed_a;
use kernels::ops::elementwise::{add, zero};
use kernels::ops::embedding::embedding_backward;
use kernels::ops::rmsnorm::rmsnorm_backward;
use kernels::{Queue, Real, Scratch, View, ViewMut};

use crate::activations::{Activations, Keep};
use crate::batch::Batch;
use crate::layer::{Context, Pass, WeightGradients};
use crate::lora::Adapters;
use crate::model::Model;
use crate::params::{Arena, Weights};
use crate::table::GroupId;

pub use crate::layer::BackwardBuffers;

/// A gradient that is added to the residual stream before layer `layer`, at a *tap* (see [`Activations::residual`]).
pub struct TapGradient<'a> {
    /// Index of the layer, as in [`Activations::residual`].
    pub layer: usize,
    /// `[N, C]`, added to the gradient that comes from the layers above.
    pub gradient: View<'a, f32>,
}

/// The weights whose gradients are computed.
pub enum Gradients<'a, T: Real> {
    /// All weights of the model.
    Weights(Weights<ViewMut<'a, f32>>),
    /// Only those of adapters; the arena has the adapters' layout.
    Adapters(&'a mut Adapters<T>, &'a mut Arena),
}

impl<T: Real> Gradients<'_, T> {
    /// Where the head's gradient is accumulated, if the head is trained: in the embedding's gradient if the two are
    /// tied.
    pub fn head(&mut self) -> Option<ViewMut<'_, f32>> {
        match self {
            Gradients::Weights(weights) => weights.head_mut().map(ViewMut::reborrow),
            Gradients::Adapters(..) => None,
        }
    }
}

impl<T: Real> WeightGradients<T> for Gradients<'_, T> {
    fn matrix(&mut self, pass: &Pass<T>, id: GroupId, d_out: View<T>, x: View<T>, scratch: &mut Scratch) {
        match self {
            Gradients::Weights(weights) => {
                matmul_transposed_a(pass.queue, d_out, x, weights.get_mut(id).reborrow(), true, scratch);
            }
            Gradients::Adapters(adapters, gradients) => adapters.accumulate(pass, id, d_out, x, gradients, scratch),
        }
    }

    fn norm(&mut self, id: GroupId, len: usize) -> ViewMut<'_, f32> {
        match self {
            Gradients::Weights(weights) => weights.get_mut(id).reborrow(),
            Gradients::Adapters(adapters, _) => adapters.unread(len),
        }
    }

    fn bias(&mut self, id: GroupId) -> Option<ViewMut<'_, f32>> {
        match self {
            Gradients::Weights(weights) => Some(weights.get_mut(id).reborrow()),
            Gradients::Adapters(..) => None,
        }
    }
}

/// Propagates `d_hidden` (`[N, C]`, the gradient of the rows that the head read) back to the embedding, and accumulates
/// into `gradients`. It overwrites some of the activations, so one forward serves only one backward.
///
/// # Panics
/// When the activations hold no forward pass, one of another batch, or one that backward has used already; or when the
/// model was built for inference.
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
    let (config, rows, keep) = (model.config(), batch.len(), activations.keep);
    assert_eq!(activations.tokens, rows, "the activations are of another batch");
    assert!(!activations.used_up, "backward has used these activations up: run forward again");
    assert!(keep != Keep::Nothing, "forward kept nothing for backward");
    activations.used_up = true;
    let Activations { residual, layers, positions, token_ids, final_rstd, .. } = activations;
    let pass = model.pass(queue, positions.matrix(1, rows));
    let mut context = Context::Packed(batch.segments());
    let (count, width) = (config.num_hidden_layers, config.hidden_size);

    zero(queue, pass.of_mut(&mut buffers.d_residual, width));
    rmsnorm_backward(
        queue,
        pass.of(&residual[count], width),
        model.final_norm(),
        pass.statistic(final_rstd),
        d_hidden,
        pass.of_mut(&mut buffers.d_residual, width),
        gradients.norm(model.layout().final_norm, width),
    );
    add_taps(&pass, taps, count, buffers);
    for (index, layer) in model.layers().iter().enumerate().rev() {
        let (x, a) = (&residual[index], &mut layers[keep.inside_of(index)]);
        if keep == Keep::Residuals {
            layer.recompute(&pass, &mut context, x, a, scratch);
        }
        layer.backward(&pass, &context, x, a, gradients, buffers, scratch);
        add_taps(&pass, taps, index, buffers);
    }
    if let Gradients::Weights(weights) = gradients {
        let d_embedded = pass.of(&buffers.d_residual, width);
        let d_embedding = weights.get_mut(model.layout().embedding).reborrow();
        embedding_backward(queue, token_ids.matrix(1, rows), d_embedded, d_embedding);
    }
}

fn add_taps<T: Real>(pass: &Pass<T>, taps: &[TapGradient], layer: usize, buffers: &mut BackwardBuffers<T>) {
    for tap in taps.iter().filter(|tap| tap.layer == layer) {
        add(pass.queue, tap.gradient, pass.of_mut(&mut buffers.d_residual, pass.config.hidden_size));
    }
}
