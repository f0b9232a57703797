//! Products of matrices: [`matmul`] by a packed operand, and [`matmul_transposed_a`] for gradients of weights.
//!
//! # How `out = A·B` is computed on the CPU
//! The plan is that of GotoBLAS and BLIS: copy B once into the order in which it will be read, cut A and `out` so that each
//! level of cache holds what is used next, and keep the sums of a small part of `out` in registers.
//!
//! ```text
//!                            B [K, N], packed              out [M, N]
//!                          panel 0    panel 1  …         panel 0    panel 1  …
//!                         ┌──────────┬──────────┐       ┌──────────┬──────────┐
//!                       k │ 32       │ 32       │     m │ tile     │          │ ┐
//!                       ↓ │ columns  │ columns  │     ↓ ├──────────┤          │ │ row block
//!      A [M, K]           │          │          │       │ tile     │          │ │
//!     ┌────────────┐      └──────────┴──────────┘       ├──────────┤          │ ┘
//!     │ rows of a  │
//!     │ tile       │      panel   32 columns of B, one k after the other; read as one stream
//!     ├────────────┤      tile    up to 12 rows by one panel of `out`: its sums stay in registers
//!     │ …          │      block   of k: up to 384 words of a row of A; the part of a panel that is this deep fits the first cache
//!     └────────────┘      row block  up to 192 rows: their words of one block of k fit the second cache
//! ```
//!
//! A task is a row block by some panels, over the whole depth; tasks go to threads. One packed B serves every number of rows,
//! from a decode step of one row, which waits for memory, to a batch of thousands, which waits for arithmetic.
//!
//! # Canonical order
//! Each element of the output has one f32 accumulator, to which products are added in increasing k by fused
//! multiply-add; bf16 in pairs, `(acc + a₁·b₁) + a₀·b₀`, as the instruction `vdpbf16ps` does. Tiles, blocks and threads divide outputs
//! only. So row `i` of a batch has the bits of row `i` alone, with any number of threads.
//!
//! # What it never does
//! It never divides k between threads or accumulators. It never transposes in the innermost loop. It allocates nothing, once the
//! workspaces of its threads have grown.
//!
//! Read next: `operand.rs` (packed weights and their generation), `pack.rs` (the copies), `tile.rs` (the innermost loop),
//! `blocks.rs` (the loops around it).

mod blocks;
mod operand;
mod pack;
mod tile;

#[cfg(test)]
mod tests;

use std::ptr::{null, null_mut};

pub use operand::{Packed, PackedView};

use crate::check::expect;
use crate::device::Queue;
use crate::dtype::Real;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use blocks::Product;
use operand::Panels;
use pack::{PanelFromRows, panel_len};
use tile::PANEL;

/// What [`matmul`] adds to the finished sums. It is added in f32, before the one rounding to the output's type.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[1, N]`, added to every row.
    pub bias: Option<View<'a, f32>>,
    /// `[M, N]`, any row stride: `out = addend + (A·B + bias)`. This is how a layer adds to the residual stream.
    pub addend: Option<View<'a, f32>>,
}

/// `out = addend + (A·B + bias)`.
///
/// # Shapes
/// * `a`: `[M, K]`, any row stride.
/// * `b`: `[K, N]`, from [`Packed::at`].
/// * `out`: `[M, N]`, any row stride; overwritten.
///
/// # Panics
/// When shapes differ.
pub fn matmul<T: Real, O: Real>(queue: &Queue, a: View<T>, b: PackedView<T>, epilogue: Epilogue, out: ViewMut<O>) {
    let (m, k, n) = (a.rows(), b.k, b.n);
    expect(queue, "matmul: a", &a, (m, k));
    expect(queue, "matmul: b", &b.panels, b.panels.shape());
    expect(queue, "matmul: out", &out, (m, n));
    if let Some(bias) = epilogue.bias {
        expect(queue, "matmul: bias", &bias, (1, n));
    }
    if let Some(addend) = epilogue.addend {
        expect(queue, "matmul: addend", &addend, (m, n));
    }
    Product {
        a: a.as_ptr(),
        a_stride: a.stride(),
        b: b.panels.as_ptr(),
        panel_stride: b.panel_len,
        rows: m,
        cols: n,
        depth: k,
        out: out.as_mut_ptr(),
        out_stride: out.stride(),
        bias: epilogue.bias.map_or(null(), |bias| bias.as_ptr()),
        addend: epilogue.addend.map_or(null(), |addend| addend.as_ptr()),
        addend_stride: epilogue.addend.map_or(0, |addend| addend.stride()),
        start: null(),
    }
    .run::<false>(queue);
}

/// Rows of A and B that are packed at a time. It bounds the scratch; it is even, so that the two bf16 of a pair stay together.
const ROWS_AT_ONCE: usize = 4096;

/// `out = aᵀ·b`, or `out += aᵀ·b`: the gradient of a weight `[N, K]`. Then `a` is the gradient of the weight's output, and `b` its input.
///
/// # Shapes
/// * `a`: `[M, N]`, `b`: `[M, K]`, any row strides.
/// * `out`: `[N, K]`, any row stride; overwritten. With `accumulate` the sums start from what it holds; so a batch that is cut
///   into consecutive calls gives the bits of one call (for bf16, when it is cut at even rows).
/// * `scratch` grows to at most 4,096 × K elements of T.
///
/// # Panics
/// When shapes differ.
pub fn matmul_transposed_a<T: Real>(
    queue: &Queue,
    a: View<T>,
    b: View<T>,
    out: ViewMut<f32>,
    accumulate: bool,
    scratch: &mut Scratch,
) {
    let (m, n, k) = (a.rows(), a.cols(), b.cols());
    expect(queue, "matmul_transposed_a: a", &a, (m, n));
    expect(queue, "matmul_transposed_a: b", &b, (m, k));
    expect(queue, "matmul_transposed_a: out", &out, (n, k));
    let panels = k.div_ceil(PANEL);
    let mut start = 0;
    loop {
        let rows = ROWS_AT_ONCE.min(m - start);
        let len = panel_len::<T>(rows).expect("at most `ROWS_AT_ONCE` rows");
        let packed = scratch.elements::<T>(panels * len).as_mut_ptr();
        let to = Panels(packed);
        let rows_b = b.row_range(start..start + rows);
        queue.parallel(panels, |panel| {
            let cols = PANEL.min(k - panel * PANEL);
            let from = rows_b.as_ptr().wrapping_add(panel * PANEL);
            let to = to.at(panel * len);
            queue.isa().run_on::<T, _>(PanelFromRows { from, stride: rows_b.stride(), k: rows, cols, to });
        });
        let go_on = accumulate || start > 0;
        Product {
            a: a.row_range(start..start + rows).as_ptr(),
            a_stride: a.stride(),
            b: packed.cast_const(),
            panel_stride: len,
            rows: n,
            cols: k,
            depth: rows,
            out: out.as_mut_ptr(),
            out_stride: out.stride(),
            bias: null(),
            addend: null(),
            addend_stride: 0,
            start: if go_on { out.as_mut_ptr() } else { null_mut() },
        }
        .run::<true>(queue);
        start += rows;
        if start == m {
            return;
        }
    }
}
