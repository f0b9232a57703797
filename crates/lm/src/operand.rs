//! A gradient as the operand of the next product: in f32 the gradient itself, in bf16 a rounded copy of it.

use kernels::ops::elementwise::convert;
use kernels::{Buffer, DType, Device, Queue, Real, View};

/// Memory for one converted matrix. In f32 nothing is converted, so there is none.
pub(crate) struct Operand<T: Real> {
    copy: Buffer<T>,
}

impl<T: Real> Operand<T> {
    /// Memory for `capacity` elements.
    pub fn new(device: Device, capacity: usize) -> Self {
        Self { copy: Buffer::zeros(device, if T::DTYPE == DType::F32 { 0 } else { capacity }) }
    }

    /// `d` in the compute dtype.
    ///
    /// # Panics
    /// When `d` has more elements than there is memory for.
    pub fn of<'a>(&'a mut self, queue: &Queue, d: View<'a, f32>) -> View<'a, T> {
        if let Some(same) = d.same_type::<T>() {
            return same;
        }
        convert(queue, d, self.copy.matrix_mut(d.rows(), d.cols()));
        self.copy.matrix(d.rows(), d.cols())
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.copy.size_bytes()
    }
}
