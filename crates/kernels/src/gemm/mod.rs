//! Products of matrices: [`matmul`] by a packed operand, and [`matmul_transposed_a`] for gradients of weights.
//!
//! Weights are packed once for many products ([`Packed`]): panels of 32 columns that the innermost loop reads in order. One
//! product then serves every number of rows, from one token's decode, which waits for memory, to a batch of
//! thousands, which waits for arithmetic.
//!
//! # Canonical order
//! Each element of the output has one f32 accumulator, to which products are added in increasing k by fused
//! multiply-add; bf16 in pairs, `(acc + a₁·b₁) + a₀·b₀`, as `vdpbf16ps` does. Tiles, blocks and threads divide outputs
//! only. So row `i` of a batch has the bits of row `i` alone, whatever the threads.
//!
//! # What it never does
//! It never splits k between threads or accumulators, transposes in the innermost loop, or allocates once its
//! threads' workspaces have grown.
//!
//! Read next: `tile.rs` (the innermost loop), `blocks.rs` (the loops around it), `pack.rs` (the layouts).

mod blocks;
mod pack;
mod tile;

#[cfg(test)]
mod tests;

use std::ptr::{null, null_mut};

use crate::buffer::{Buffer, View, ViewMut};
use crate::device::{Device, Queue};
use crate::dtype::Real;
use crate::memory::Region;
use crate::scratch::Scratch;
use blocks::Product;
use pack::{PanelFromColumns, PanelFromRows, panel_len};
use tile::PANEL;

/// The right operand B `[K, N]` of [`matmul`], copied into panels of 32 columns (the last one completed by zeros).
///
/// It is a cache of weights that live elsewhere in f32, and carries the generation of those it was made from.
pub struct Packed<T: Real> {
    panels: Buffer<T>,
    k: usize,
    n: usize,
    generation: Option<u64>,
}

impl<T: Real> Packed<T> {
    /// An operand `[k, n]` of zeros, of no generation.
    pub fn zeros(device: Device, k: usize, n: usize) -> Self {
        Self { panels: Buffer::zeros(device, Self::len(k, n)), k, n, generation: None }
    }

    /// As [`Packed::zeros`], beside the other operands of a region.
    pub fn within(region: &mut Region, k: usize, n: usize) -> Self {
        Self { panels: Buffer::within(region, Self::len(k, n)), k, n, generation: None }
    }

    fn len(k: usize, n: usize) -> usize {
        n.div_ceil(PANEL) * panel_len::<T>(k)
    }

    /// Depth of the product: columns of A.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Size in memory.
    pub fn size_bytes(&self) -> usize {
        self.panels.size_bytes()
    }

    /// Copies `w [N, K]`, the layout of weights in Hugging Face's files, so that `matmul` multiplies by its transpose: `x · wᵀ`.
    ///
    /// # Panics
    /// When the shape of `w` differs.
    pub fn pack(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        let (k, n) = (self.k, self.n);
        assert_eq!((w.rows(), w.cols()), (n, k), "weights {}×{} for a packed {k}×{n}", w.rows(), w.cols());
        let (from, stride) = (w.as_ptr() as usize, w.stride());
        self.fill(queue, generation, |panel, cols, to| {
            let from = (from as *const f32).wrapping_add(panel * PANEL * stride);
            queue.isa().run_on::<T, _>(PanelFromColumns { from, stride, k, cols, to });
        });
    }

    /// Copies `w [K, N]`, so that `matmul` multiplies by `w` itself: `x · w`.
    ///
    /// # Panics
    /// When the shape of `w` differs.
    pub fn pack_transposed(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        let (k, n) = (self.k, self.n);
        assert_eq!((w.rows(), w.cols()), (k, n), "weights {}×{} for a packed {k}×{n}", w.rows(), w.cols());
        let (from, stride) = (w.as_ptr() as usize, w.stride());
        self.fill(queue, generation, |panel, cols, to| {
            let from = (from as *const f32).wrapping_add(panel * PANEL);
            queue.isa().run_on::<T, _>(PanelFromRows { from, stride, k, cols, to });
        });
    }

    /// Makes every panel: `make(panel, columns, destination)`.
    fn fill(&mut self, queue: &Queue, generation: u64, make: impl Fn(usize, usize, *mut T) + Sync) {
        let len = panel_len::<T>(self.k);
        let to = Panels(self.panels.view_mut().as_mut_ptr());
        let n = self.n;
        queue.parallel(n.div_ceil(PANEL), |panel| make(panel, PANEL.min(n - panel * PANEL), to.at(panel * len)));
        self.generation = Some(generation);
    }

    /// Checks that the panels were made from the weights of this generation.
    ///
    /// # Panics
    /// When they are stale, or were never packed: a product with them would silently use old weights.
    pub fn check_generation(&self, wanted: u64) {
        assert!(
            self.generation == Some(wanted),
            "packed weights {}×{} are of generation {:?}, the weights of {wanted}: pack them again after an update",
            self.k,
            self.n,
            self.generation
        );
    }
}

/// Where tasks write their own panels.
struct Panels<T>(*mut T);

// SAFETY: each task writes only the panel whose number it was given.
unsafe impl<T> Sync for Panels<T> {}

impl<T> Panels<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// What [`matmul`] adds to the finished sums, in f32, before the one rounding to the output's type.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[1, N]`, added to every row.
    pub bias: Option<View<'a, f32>>,
    /// `[M, N]` of any stride: `out = addend + (A·B + bias)`. The residual stream enters here.
    pub addend: Option<View<'a, f32>>,
}

/// `out = addend + (A·B + bias)`.
///
/// # Shapes
/// * `a`: `[M, K]`, any row stride.
/// * `b`: `[K, N]`, packed; the caller checks its generation.
/// * `out`: `[M, N]`, any row stride; overwritten.
///
/// # Panics
/// When shapes differ.
pub fn matmul<T: Real, O: Real>(queue: &Queue, a: View<T>, b: &Packed<T>, epilogue: Epilogue, out: ViewMut<O>) {
    let (m, k, n) = (a.rows(), b.k, b.n);
    assert_eq!(a.cols(), k, "a product of {m}×{} and {k}×{n}", a.cols());
    assert_eq!((out.rows(), out.cols()), (m, n), "an output {}×{} of {m}×{k}×{n}", out.rows(), out.cols());
    if let Some(bias) = epilogue.bias {
        assert_eq!((bias.rows(), bias.cols()), (1, n), "a bias {}×{} of 1×{n}", bias.rows(), bias.cols());
    }
    if let Some(addend) = epilogue.addend {
        assert_eq!((addend.rows(), addend.cols()), (m, n), "an addend {}×{} of {m}×{n}", addend.rows(), addend.cols());
    }
    Product {
        a: a.as_ptr(),
        a_stride: a.stride(),
        b: b.panels.view().as_ptr(),
        panel_stride: panel_len::<T>(k),
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

/// Rows of A and B that are packed at a time: bounds the scratch, and is even, so that pairs of bf16 stay together.
const ROWS_AT_ONCE: usize = 4096;

/// `out = aᵀ·b`, or `out += aᵀ·b`: the gradient of a weight `[N, K]` from the gradient `a` of its output and its input `b`.
///
/// # Shapes
/// * `a`: `[M, N]`, `b`: `[M, K]`, any row strides.
/// * `out`: `[N, K]`, any row stride; overwritten, or with `accumulate` taken as the accumulator that the sums
///   go on from, so that rows cut into consecutive calls give the bits of one call (for bf16: when cut at even rows).
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
    assert_eq!(b.rows(), m, "a product over rows of {m}×{n} and {}×{k}", b.rows());
    assert_eq!((out.rows(), out.cols()), (n, k), "an output {}×{} of {n}×{k}", out.rows(), out.cols());
    let panels = k.div_ceil(PANEL);
    let mut start = 0;
    loop {
        let rows = ROWS_AT_ONCE.min(m - start);
        let len = panel_len::<T>(rows);
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
