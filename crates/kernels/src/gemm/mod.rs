//! Products of matrices: [`matmul`] by a packed operand, and [`matmul_transposed_a`] for gradients of weights.
//!
//! # How `out = A·B` is computed on the CPU
//! The method is that of GotoBLAS (Goto and van de Geijn 2008, doi 10.1145/1356052.1356053) and BLIS. B is copied once
//! into the order in which the innermost loop reads it. A and `out` are cut so that each level of cache holds what is
//! used next. The sums of a small part of `out` stay in registers.
//!
//! ```text
//!          A [M, K]                          B [K, N], packed              out [M, N]
//!     k →  block 0    block 1              panel 0    panel 1            panel 0    panel 1
//!        ┌──────────┬──────────┐         ┌──────────┬──────────┐       ┌──────────┬──────────┐
//!      m │ rows of  │          │ ┐     k │ block 0  │          │     m │ tile     │          │ ┐
//!      ↓ │ a tile   │          │ │     ↓ │ 32 cols  │          │     ↓ ├──────────┤          │ │
//!        ├──────────┼──────────┤ │ row   ├──────────┼──────────┤       │ tile     │          │ │ row
//!        │          │          │ │ block │ block 1  │          │       ├──────────┤          │ │ block
//!        │          │          │ │       │ 32 cols  │          │       │ tile     │          │ │
//!        └──────────┴──────────┘ ┘       └──────────┴──────────┘       └──────────┴──────────┘ ┘
//! ```
//!
//! * A *panel* is 32 columns of B. Its rows (one k after the other) lie one after the other in memory, so that it is
//!   read as one stream.
//! * A *tile* is up to 12 rows of A by one panel of B. Its sums stay in registers.
//! * A *block of k* is up to 384 words of each row of A. The part of a panel that is this deep is at most 48 KB; it
//!   stays in the nearest caches while all tiles of a row block read it.
//! * A *row block* is up to 192 rows of A. Their words of one block of k stay in the L2 cache.
//!
//! One task computes one row block by some panels, over the whole depth K. The tasks are divided among the threads. The
//! same packed B serves any number of rows: a decode step of one row, which is limited by memory, and a batch of
//! thousands of rows, which is limited by arithmetic.
//!
//! # Canonical order
//! Each element of the output has one f32 accumulator. Fused multiply-adds add the terms to it in order of increasing
//! k. For bf16, k goes in pairs, `(acc + a₁·b₁) + a₀·b₀`, as the instruction `vdpbf16ps` computes it. Tiles, blocks and
//! threads divide outputs only. Therefore row `i` of a batch has the same bits as row `i` computed alone, with any
//! number of threads.
//!
//! # What it never does
//! It never divides k between threads or accumulators. It never transposes in the innermost loop. It allocates no
//! memory after the workspaces of its threads have grown to their full size.
//!
//! Read next: `operand.rs` (packed weights, and which version of the weights they were made from), `pack.rs` (the
//! copies), `tile.rs` (the innermost loop), `blocks.rs` (the loops around it).

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

/// What [`matmul`] adds to the finished sums, in f32, before it rounds once to the output's type.
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

/// How many rows of A and B one pass packs. This bounds the scratch. It is even, so that the two bf16 of a pair stay
/// together.
const ROWS_AT_ONCE: usize = 4096;

/// `out = aᵀ·b`, or `out += aᵀ·b`. It computes the gradient of a weight `[N, K]`: `a` is the gradient of the output of
/// the layer with this weight, and `b` is the input of that layer.
///
/// # Shapes
/// * `a`: `[M, N]`, `b`: `[M, K]`, any row strides.
/// * `out`: `[N, K]`, any row stride; overwritten. With `accumulate` the sums start from the values in `out`. So a
///   batch that is cut into consecutive calls gives the same bits as one call (for bf16, when each cut is at an even
///   row).
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
