//! Typed memory of a device: [`Buffer`] owns it, [`Upload`] makes host memory readable for it.
//!
//! Code outside this crate never reads elements in place. It copies them in ([`Buffer::from_host`],
//! [`ViewMut::copy_from_host`]) and out ([`Buffer::to_host`], [`View::copy_to_host`]). Operations take views of a
//! buffer.
//!
//! Read next: `view.rs`.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::device::{Device, Queue};
use crate::dtype::Element;
use crate::memory::{Memory, Region};
use crate::view::{View, ViewMut, area};

/// Owned memory on one device: 64-byte aligned, initially zero.
pub struct Buffer<T: Element> {
    memory: Memory,
    len: usize,
    device: Device,
    life: PhantomData<T>,
}

// SAFETY: a buffer owns its memory as a `Vec` does, and `T` is `Send + Sync` by the bound on `Element`.
unsafe impl<T: Element> Send for Buffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Element> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// A buffer of `len` zeros.
    ///
    /// # Panics
    /// When `len` elements exceed `isize::MAX` bytes; callers check sizes before they allocate.
    pub fn zeros(device: Device, len: usize) -> Self {
        // Zero bits are a valid `T` by the contract of `Element`.
        Self { memory: Memory::zeros(Self::bytes(len)), len, device, life: PhantomData }
    }

    /// A buffer of `len` zeros in the memory of `region`, next to its other buffers.
    ///
    /// # Panics
    /// As [`Buffer::zeros`].
    pub fn within(region: &mut Region, len: usize) -> Self {
        Self { memory: Memory::within(region, Self::bytes(len)), len, device: region.device(), life: PhantomData }
    }

    fn bytes(len: usize) -> usize {
        let bytes = len.checked_mul(size_of::<T>());
        bytes.unwrap_or_else(|| panic!("a buffer of {len} elements exceeds the address space"))
    }

    /// A copy of host memory on the device.
    pub fn from_host(device: Device, values: &[T]) -> Self {
        let mut buffer = Self::zeros(device, values.len());
        buffer.view_mut().copy_from_host(values);
        buffer
    }

    /// A copy of every element in host memory. It first waits for the work that was given to the device before.
    pub fn to_host(&self) -> Vec<T> {
        self.view().to_host()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The device that holds the memory.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All elements as one row.
    pub fn view(&self) -> View<'_, T> {
        self.matrix(1, self.len)
    }

    /// All elements as one row, for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        self.matrix_mut(1, self.len)
    }

    /// The first `rows × cols` elements as a matrix.
    ///
    /// # Panics
    /// When the buffer has fewer elements.
    pub fn matrix(&self, rows: usize, cols: usize) -> View<'_, T> {
        self.check(rows, cols);
        // SAFETY: the buffer holds the matrix, initialised, and is borrowed for as long as the view lives.
        unsafe { View::new(self.ptr().as_ptr(), rows, cols, self.device) }
    }

    /// The first `rows × cols` elements as a matrix, for writing.
    ///
    /// # Panics
    /// When the buffer has fewer elements.
    pub fn matrix_mut(&mut self, rows: usize, cols: usize) -> ViewMut<'_, T> {
        self.check(rows, cols);
        // SAFETY: as in `matrix`, and the borrow is exclusive.
        unsafe { ViewMut::new(self.ptr().as_ptr(), rows, cols, self.device) }
    }

    fn check(&self, rows: usize, cols: usize) {
        assert!(area(rows, cols) <= self.len, "a {rows}×{cols} view of a buffer of {}", self.len);
    }

    fn ptr(&self) -> NonNull<T> {
        self.memory.start().cast()
    }

    /// The elements, in host memory.
    pub(crate) fn host(&self) -> &[T] {
        match self.device {
            // SAFETY: the memory holds `len` initialised elements for as long as `self` is borrowed.
            Device::Cpu => unsafe { std::slice::from_raw_parts(self.ptr().as_ptr(), self.len) },
        }
    }

    /// The elements, in host memory, for writing.
    pub(crate) fn host_mut(&mut self) -> &mut [T] {
        match self.device {
            // SAFETY: as in `host`, and the borrow is exclusive.
            Device::Cpu => unsafe { std::slice::from_raw_parts_mut(self.ptr().as_ptr(), self.len) },
        }
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from_host(self.device, self.host())
    }
}

/// Host values as an operand. If the device can read host memory, nothing is copied: on the CPU the values are
/// borrowed.
///
/// Keep it alive for as long as an operation uses its views.
pub struct Upload<'a, T: Element> {
    values: &'a [T],
    device: Device,
}

impl Queue {
    /// Makes host values readable by operations on this queue.
    pub fn upload<'a, T: Element>(&self, values: &'a [T]) -> Upload<'a, T> {
        match self.device() {
            Device::Cpu => Upload { values, device: Device::Cpu },
        }
    }
}

impl<T: Element> Upload<'_, T> {
    /// All elements as one row.
    pub fn view(&self) -> View<'_, T> {
        self.matrix(1, self.values.len())
    }

    /// All elements as a matrix.
    ///
    /// # Panics
    /// When it does not hold exactly `rows × cols` elements.
    pub fn matrix(&self, rows: usize, cols: usize) -> View<'_, T> {
        match self.device {
            Device::Cpu => View::of(self.values, rows, cols),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn sizes_that_wrap_are_refused() {
        let refused = |make: fn() -> usize| assert!(std::panic::catch_unwind(make).is_err());
        refused(|| Buffer::<f32>::zeros(Device::Cpu, 4).matrix(1 << 32, 1 << 32).rows());
        refused(|| View::<f32>::of(&[], 1 << 32, 1 << 32).rows());
        refused(|| Buffer::<u32>::within(&mut Region::new(Device::Cpu), usize::MAX).len());
    }

    #[test]
    fn what_is_copied_in_comes_out_again() {
        let mut buffer = Buffer::from_host(Device::Cpu, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut left = buffer.matrix_mut(2, 3).split_cols(2).0;
        left.copy_from_host(&[10.0, 20.0, 40.0, 50.0]);
        assert_eq!(buffer.to_host(), [10.0, 20.0, 3.0, 40.0, 50.0, 6.0]);
        assert_eq!(buffer.matrix(2, 3).col_range(1..3).to_host(), [20.0, 3.0, 50.0, 6.0]);
        let queue = Queue::cpu(1, Isa::Portable);
        assert_eq!(queue.upload(&[7u32, 8]).matrix(2, 1).to_host(), [7, 8]);
    }
}
