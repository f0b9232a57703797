//! [`Packed`]: the right operand of a product in the layout that the device multiplies fastest.
//!
//! A model's weights are stored in f32 and change with every step of the optimiser. Products read copies of them in the
//! compute dtype; such a copy is called *packed weights*. (This has nothing to do with packed sequences, the rows of a
//! batch.) A copy that is not made again after an update would silently compute with old weights. Therefore every copy
//! carries the version number of the weights that it was made from. The code calls this number `generation` (it has
//! nothing to do with generating text). A product accepts only a [`PackedView`], and [`Packed::at`] returns one only
//! for the matching version.
//!
//! Read next: `pack.rs`, which shows the layout of a copy on the CPU.

use super::pack::{PanelFromColumns, PanelFromRows, panel_len};
use super::tile::PANEL;
use crate::buffer::Buffer;
use crate::check::expect;
use crate::device::{Device, Queue};
use crate::dtype::Real;
use crate::memory::Region;
use crate::view::View;

/// A matrix B `[K, N]` for [`super::matmul`], copied from one version of the weights.
pub struct Packed<T: Real> {
    panels: Buffer<T>,
    /// Number of elements in a panel.
    panel_len: usize,
    k: usize,
    n: usize,
    generation: Option<u64>,
}

/// A [`Packed`] operand whose version of the weights has been checked.
#[derive(Clone, Copy)]
pub struct PackedView<'a, T: Real> {
    pub(super) panels: View<'a, T>,
    pub(super) panel_len: usize,
    pub(super) k: usize,
    pub(super) n: usize,
}

impl<T: Real> Packed<T> {
    /// Memory for an operand `[k, n]`. It holds no weights yet, so [`Packed::at`] panics until it is filled.
    ///
    /// # Panics
    /// When it exceeds the address space.
    pub fn zeros(device: Device, k: usize, n: usize) -> Self {
        let (panel_len, len) = Self::sizes(k, n);
        Self { panels: Buffer::zeros(device, len), panel_len, k, n, generation: None }
    }

    /// As [`Packed::zeros`], in the memory of `region`, next to other operands.
    ///
    /// # Panics
    /// When it exceeds the address space.
    pub fn within(region: &mut Region, k: usize, n: usize) -> Self {
        let (panel_len, len) = Self::sizes(k, n);
        Self { panels: Buffer::within(region, len), panel_len, k, n, generation: None }
    }

    /// Number of elements of one panel, and of all panels.
    fn sizes(k: usize, n: usize) -> (usize, usize) {
        let sizes = panel_len::<T>(k).and_then(|panel| Some((panel, panel.checked_mul(n.div_ceil(PANEL))?)));
        sizes.unwrap_or_else(|| panic!("a packed {k}×{n} exceeds the address space"))
    }

    /// K, the depth of the product: the number of columns of A.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Size in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.panels.size_bytes()
    }

    /// Copies `w [N, K]`, the layout of weights in Hugging Face's files. The product with this operand is `x · wᵀ`.
    /// `generation` is the version number of the weights.
    ///
    /// # Panics
    /// When the shape of `w` differs.
    pub fn pack(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        let (k, n) = (self.k, self.n);
        expect(queue, "pack: w", &w, (n, k));
        let stride = w.stride();
        self.fill(queue, generation, |panel, cols, to| {
            let from = w.as_ptr().wrapping_add(panel * PANEL * stride);
            queue.isa().run_on::<T, _>(PanelFromColumns { from, stride, k, cols, to });
        });
    }

    /// Copies `w [K, N]`. The product with this operand is `x · w`. `generation` is the version number of the weights.
    ///
    /// # Panics
    /// When the shape of `w` differs.
    pub fn pack_transposed(&mut self, queue: &Queue, w: View<f32>, generation: u64) {
        let (k, n) = (self.k, self.n);
        expect(queue, "pack_transposed: w", &w, (k, n));
        let stride = w.stride();
        self.fill(queue, generation, |panel, cols, to| {
            let from = w.as_ptr().wrapping_add(panel * PANEL);
            queue.isa().run_on::<T, _>(PanelFromRows { from, stride, k, cols, to });
        });
    }

    /// Makes every panel, in parallel, by calling `make(panel, columns, destination)`.
    fn fill(&mut self, queue: &Queue, generation: u64, make: impl Fn(usize, usize, *mut T) + Sync) {
        let (len, n) = (self.panel_len, self.n);
        let to = Panels(self.panels.view_mut().as_mut_ptr());
        queue.parallel(n.div_ceil(PANEL), |panel| make(panel, PANEL.min(n - panel * PANEL), to.at(panel * len)));
        self.generation = Some(generation);
    }

    /// The operand, for a product with the weights of version `generation`.
    ///
    /// # Panics
    /// When it was made from another version, or never filled: the product would silently use old weights.
    pub fn at(&self, generation: u64) -> PackedView<'_, T> {
        assert!(
            self.generation == Some(generation),
            "packed weights {}×{} are of generation {:?}, the weights of {generation}: pack them again after an update",
            self.k,
            self.n,
            self.generation
        );
        PackedView { panels: self.panels.view(), panel_len: self.panel_len, k: self.k, n: self.n }
    }
}

/// Where tasks write their own panels.
pub(super) struct Panels<T>(pub *mut T);

// SAFETY: each task writes only the panel whose number it was given.
unsafe impl<T> Sync for Panels<T> {}

impl<T> Panels<T> {
    pub fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}
