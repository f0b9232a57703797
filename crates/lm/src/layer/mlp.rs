//! The SwiGLU block: `out = x + (silu(g) · u) · W_downᵀ` with `g, u = rmsnorm(x) · W_gate_upᵀ`.
//!
//! Gate and up weights are one matrix, so that one product computes both.
//!
//! Source: Shazeer 2020, arXiv 2002.05202.

use kernels::gemm::{Epilogue, matmul};
use kernels::ops::rmsnorm::{rmsnorm_backward, rmsnorm_forward};
use kernels::ops::swiglu::{swiglu_backward, swiglu_forward};
use kernels::{Buffer, Device, Real, Scratch};

use super::pass::{BackwardBuffers, Pass, WeightGradients};
use crate::config::Config;
use crate::table::{GroupId, Table, TensorRole, TensorSpec};

/// Where the block's operands are in the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mlp {
    /// `[C]`
    norm: GroupId,
    /// Gate above up, `[2F, C]`.
    gate_up: GroupId,
    /// `[C, F]`
    down: GroupId,
}

impl Mlp {
    /// Declares the block's tensors.
    pub fn declare(table: &mut Table, config: &Config, layer: usize) -> Self {
        use TensorRole::{Matrix, Norm, ResidualMatrix};
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let norm = TensorSpec::new(Norm, "post_attention_layernorm.weight", "ffn_norm.weight", &[hidden]);
        let gate = TensorSpec::new(Matrix, "mlp.gate_proj.weight", "ffn_gate.weight", &[inner, hidden]);
        let up = TensorSpec::new(Matrix, "mlp.up_proj.weight", "ffn_up.weight", &[inner, hidden]);
        let down = TensorSpec::new(ResidualMatrix, "mlp.down_proj.weight", "ffn_down.weight", &[hidden, inner]);
        Self {
            norm: table.group(Some(layer), [norm]),
            gate_up: table.group(Some(layer), [gate, up]),
            down: table.group(Some(layer), [down]),
        }
    }

    /// `out = x + swiglu(rmsnorm(x))`; `out` is overwritten.
    pub fn forward<T: Real>(&self, pass: &Pass<T>, x: &Buffer<f32>, a: &mut MlpActivations<T>, out: &mut Buffer<f32>) {
        self.expand(pass, x, a);
        let (hidden, inner) = (pass.config.hidden_size, pass.config.intermediate_size);
        let epilogue = Epilogue { bias: None, addend: Some(pass.of(x, hidden)) };
        let activated = pass.of(&a.activated, inner);
        matmul(pass.queue, activated, pass.weights.forward(self.down), epilogue, pass.of_mut(out, hidden));
    }

    /// Computes everything up to the down projection. Backward needs no more than that.
    pub fn expand<T: Real>(&self, pass: &Pass<T>, x: &Buffer<f32>, a: &mut MlpActivations<T>) {
        let (queue, weights) = (pass.queue, pass.weights);
        let (hidden, inner) = (pass.config.hidden_size, pass.config.intermediate_size);
        let (normed, rstd) = (pass.of_mut(&mut a.normed, hidden), pass.statistic_mut(&mut a.rstd));
        rmsnorm_forward(queue, pass.of(x, hidden), weights.vector(self.norm), pass.eps(), normed, rstd);
        let (normed, gate_up) = (pass.of(&a.normed, hidden), pass.of_mut(&mut a.gate_up, 2 * inner));
        matmul(queue, normed, weights.forward(self.gate_up), Epilogue::default(), gate_up);
        swiglu_forward(queue, pass.of(&a.gate_up, 2 * inner), pass.of_mut(&mut a.activated, inner));
    }

    /// Replaces the gradient of `out` in `buffers.d_residual` by the gradient of `x`. It also replaces `a.gate_up` by
    /// its own gradient.
    pub fn backward<T: Real>(
        &self,
        pass: &Pass<T>,
        x: &Buffer<f32>,
        a: &mut MlpActivations<T>,
        gradients: &mut dyn WeightGradients<T>,
        buffers: &mut BackwardBuffers<T>,
        scratch: &mut Scratch,
    ) {
        let (queue, weights) = (pass.queue, pass.weights);
        let (hidden, inner) = (pass.config.hidden_size, pass.config.intermediate_size);
        let BackwardBuffers { d_residual, d_normed, d_inner, operand, .. } = buffers;
        let d_out = operand.of(queue, pass.of(d_residual, hidden));
        gradients.matrix(pass, self.down, d_out, pass.of(&a.activated, inner), scratch);
        matmul(queue, d_out, weights.backward(self.down), Epilogue::default(), pass.of_mut(d_inner, inner));
        swiglu_backward(queue, pass.of(d_inner, inner), pass.of_mut(&mut a.gate_up, 2 * inner));

        let d_gate_up = pass.of(&a.gate_up, 2 * inner);
        gradients.matrix(pass, self.gate_up, d_gate_up, pass.of(&a.normed, hidden), scratch);
        matmul(queue, d_gate_up, weights.backward(self.gate_up), Epilogue::default(), pass.of_mut(d_normed, hidden));
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
}

/// What the block's forward pass leaves for its backward pass.
pub(crate) struct MlpActivations<T: Real> {
    /// `[N]`, reciprocals of the root mean squares.
    rstd: Buffer<f32>,
    /// `[N, C]` after the RMSNorm.
    normed: Buffer<T>,
    /// `[N, 2F]`, the gate and up projections side by side.
    gate_up: Buffer<T>,
    /// `[N, F]`, `silu(g) · u`.
    activated: Buffer<T>,
}

impl<T: Real> MlpActivations<T> {
    /// Memory for at most `capacity` tokens.
    pub fn new(device: Device, config: &Config, capacity: usize) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            rstd: Buffer::zeros(device, capacity),
            normed: Buffer::zeros(device, capacity * hidden),
            gate_up: Buffer::zeros(device, capacity * 2 * inner),
            activated: Buffer::zeros(device, capacity * inner),
        }
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        let rows = self.normed.size_bytes() + self.gate_up.size_bytes() + self.activated.size_bytes();
        self.rstd.size_bytes() + rows
    }
}
