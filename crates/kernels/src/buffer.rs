//! Typed memory: [`Buffer`] owns, [`View`] and [`ViewMut`] borrow a matrix of it.
//!
//! A view carries its device, its shape and its row stride, and becomes a pointer only inside this crate. A vector is a
//! matrix of one row. Views of one buffer are made disjoint by splitting (`split_rows`, `split_cols`), so that no
//! operation needs a whole arena.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use crate::device::Device;
use crate::dtype::Element;
use crate::memory::{Memory, Region};

/// Owned, 64-byte aligned, zero-initialised memory on one device.
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
    /// `len` zeros.
    ///
    /// # Panics
    /// When `len` elements exceed `isize::MAX` bytes: sizes are validated before they reach an allocation.
    pub fn zeros(device: Device, len: usize) -> Self {
        // Zero bits are a valid `T` by the contract of `Element`.
        Self { memory: Memory::zeros(Self::bytes(len)), len, device, life: PhantomData }
    }

    /// `len` zeros beside the other buffers of a region.
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

    /// A copy of host memory.
    pub fn from_host(device: Device, values: &[T]) -> Self {
        let mut buffer = Self::zeros(device, values.len());
        buffer.host_mut().copy_from_slice(values);
        buffer
    }

    fn ptr(&self) -> NonNull<T> {
        self.memory.start().cast()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in memory.
    pub fn size_bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where the memory is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The elements, in host memory.
    pub fn host(&self) -> &[T] {
        match self.device {
            // SAFETY: the memory holds `len` initialised elements for as long as `self` is borrowed.
            Device::Cpu => unsafe { std::slice::from_raw_parts(self.ptr().as_ptr(), self.len) },
        }
    }

    /// The elements, in host memory, for writing.
    pub fn host_mut(&mut self) -> &mut [T] {
        match self.device {
            // SAFETY: as in `host`, and the borrow is exclusive.
            Device::Cpu => unsafe { std::slice::from_raw_parts_mut(self.ptr().as_ptr(), self.len) },
        }
    }

    /// Everything as one row.
    pub fn view(&self) -> View<'_, T> {
        self.matrix(1, self.len)
    }

    /// Everything as one row, for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        self.matrix_mut(1, self.len)
    }

    /// The first `rows × cols` elements as a matrix.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn matrix(&self, rows: usize, cols: usize) -> View<'_, T> {
        assert!(area(rows, cols) <= self.len, "a {rows}×{cols} view of a buffer of {}", self.len);
        View { ptr: self.ptr().as_ptr(), rows, cols, stride: cols, device: self.device, life: PhantomData }
    }

    /// The first `rows × cols` elements as a matrix, for writing.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn matrix_mut(&mut self, rows: usize, cols: usize) -> ViewMut<'_, T> {
        assert!(area(rows, cols) <= self.len, "a {rows}×{cols} view of a buffer of {}", self.len);
        ViewMut { ptr: self.ptr().as_ptr(), rows, cols, stride: cols, device: self.device, life: PhantomData }
    }
}

/// Elements of a matrix: a product that wrapped would let a view reach beyond its memory.
fn area(rows: usize, cols: usize) -> usize {
    rows.checked_mul(cols).unwrap_or_else(|| panic!("a {rows}×{cols} view exceeds the address space"))
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from_host(self.device, self.host())
    }
}

/// A matrix `[rows, cols]` that is read: row `i` begins `i * stride` elements after the first.
pub struct View<'a, T: Element> {
    ptr: *const T,
    rows: usize,
    cols: usize,
    stride: usize,
    device: Device,
    life: PhantomData<&'a [T]>,
}

/// A matrix `[rows, cols]` that is written; no other view overlaps it while it lives.
pub struct ViewMut<'a, T: Element> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    device: Device,
    life: PhantomData<&'a mut [T]>,
}

impl<T: Element> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Element> Copy for View<'_, T> {}

// SAFETY: a `View` is a shared borrow of elements that are `Sync`.
unsafe impl<T: Element> Send for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for View<'_, T> {}
// SAFETY: a `ViewMut` is an exclusive borrow of elements that are `Send`.
unsafe impl<T: Element> Send for ViewMut<'_, T> {}
// SAFETY: a shared `&ViewMut` gives out raw pointers only inside this crate, whose tasks write disjoint outputs.
unsafe impl<T: Element> Sync for ViewMut<'_, T> {}

macro_rules! shape_of_view {
    ($name:ident) => {
        impl<'a, T: Element> $name<'a, T> {
            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.rows
            }

            /// Elements in a row.
            pub fn cols(&self) -> usize {
                self.cols
            }

            /// Elements from the start of one row to the start of the next.
            pub fn stride(&self) -> usize {
                self.stride
            }

            /// Where the memory is.
            pub fn device(&self) -> Device {
                self.device
            }

            /// Whether rows follow one another without a gap.
            pub fn is_contiguous(&self) -> bool {
                self.stride == self.cols || self.rows <= 1
            }

            fn check_rows(&self, rows: &Range<usize>) {
                assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of a view of {}", self.rows);
            }

            fn check_cols(&self, cols: &Range<usize>) {
                assert!(cols.start <= cols.end && cols.end <= self.cols, "columns {cols:?} of a view of {}", self.cols);
            }
        }
    };
}
shape_of_view!(View);
shape_of_view!(ViewMut);

impl<'a, T: Element> View<'a, T> {
    /// A contiguous matrix over host memory.
    ///
    /// # Panics
    /// When `values` does not hold exactly `rows × cols` elements.
    pub fn of(values: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), area(rows, cols), "a {rows}×{cols} view of {} values", values.len());
        Self { ptr: values.as_ptr(), rows, cols, stride: cols, device: Device::Cpu, life: PhantomData }
    }

    /// The rows in a range.
    pub fn row_range(self, rows: Range<usize>) -> Self {
        self.check_rows(&rows);
        Self { ptr: self.ptr.wrapping_add(rows.start * self.stride), rows: rows.len(), ..self }
    }

    /// The columns in a range; the stride stays.
    pub fn col_range(self, cols: Range<usize>) -> Self {
        self.check_cols(&cols);
        Self { ptr: self.ptr.wrapping_add(cols.start), cols: cols.len(), ..self }
    }

    /// The same elements as `rows × cols`.
    ///
    /// # Panics
    /// When the view is not contiguous or the count differs.
    pub fn reshape(self, rows: usize, cols: usize) -> Self {
        assert!(
            self.is_contiguous() && area(rows, cols) == self.rows * self.cols,
            "reshape {}×{} to {rows}×{cols}",
            self.rows,
            self.cols
        );
        Self { rows, cols, stride: cols, ..self }
    }

    /// The same view when `U` is the type it already has; how code generic over a dtype skips a conversion.
    pub fn same_type<U: Element>(self) -> Option<View<'a, U>> {
        let View { rows, cols, stride, device, .. } = self;
        (T::DTYPE == U::DTYPE).then(|| View { ptr: self.ptr.cast(), rows, cols, stride, device, life: PhantomData })
    }

    /// The elements, in host memory.
    ///
    /// # Panics
    /// When the view is not contiguous.
    pub fn host(&self) -> &'a [T] {
        assert!(self.is_contiguous(), "host access needs contiguous rows");
        // SAFETY: the view borrows `rows × cols` contiguous initialised elements for `'a`.
        unsafe { std::slice::from_raw_parts(self.ptr, self.rows * self.cols) }
    }

    /// Row `i`, in host memory.
    pub fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows, "row {i} of a view of {}", self.rows);
        // SAFETY: row `i` lies inside the borrow.
        unsafe { std::slice::from_raw_parts(self.ptr.add(i * self.stride), self.cols) }
    }

    /// The first element; element `(i, j)` is at `i * stride + j`.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.ptr
    }
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// A contiguous matrix over host memory, for writing.
    ///
    /// # Panics
    /// When `values` does not hold exactly `rows × cols` elements.
    pub fn of(values: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), area(rows, cols), "a {rows}×{cols} view of {} values", values.len());
        Self { ptr: values.as_mut_ptr(), rows, cols, stride: cols, device: Device::Cpu, life: PhantomData }
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { life: PhantomData, ..*self }
    }

    /// The same elements, read only.
    pub fn as_view(&self) -> View<'_, T> {
        View {
            ptr: self.ptr,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
            device: self.device,
            life: PhantomData,
        }
    }

    /// The rows in a range.
    pub fn row_range(self, rows: Range<usize>) -> Self {
        self.check_rows(&rows);
        Self { ptr: self.ptr.wrapping_add(rows.start * self.stride), rows: rows.len(), ..self }
    }

    /// The columns in a range; the stride stays.
    pub fn col_range(self, cols: Range<usize>) -> Self {
        self.check_cols(&cols);
        Self { ptr: self.ptr.wrapping_add(cols.start), cols: cols.len(), ..self }
    }

    /// The same elements as `rows × cols`.
    ///
    /// # Panics
    /// When the view is not contiguous or the count differs.
    pub fn reshape(self, rows: usize, cols: usize) -> Self {
        assert!(
            self.is_contiguous() && area(rows, cols) == self.rows * self.cols,
            "reshape {}×{} to {rows}×{cols}",
            self.rows,
            self.cols
        );
        Self { rows, cols, stride: cols, ..self }
    }

    /// Two disjoint views: rows before `at`, and from it.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        self.check_rows(&(at..self.rows));
        let lower = ViewMut { ptr: self.ptr.wrapping_add(at * self.stride), rows: self.rows - at, ..self };
        (ViewMut { rows: at, ..self }, lower)
    }

    /// Two disjoint views: columns before `at`, and from it.
    pub fn split_cols(self, at: usize) -> (Self, Self) {
        self.check_cols(&(at..self.cols));
        let right = ViewMut { ptr: self.ptr.wrapping_add(at), cols: self.cols - at, ..self };
        (ViewMut { cols: at, ..self }, right)
    }

    /// The elements, in host memory, for writing.
    ///
    /// # Panics
    /// When the view is not contiguous.
    pub fn host_mut(&mut self) -> &mut [T] {
        assert!(self.is_contiguous(), "host access needs contiguous rows");
        // SAFETY: the view exclusively borrows `rows × cols` contiguous initialised elements.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.rows * self.cols) }
    }

    /// Row `i`, in host memory, for writing.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows, "row {i} of a view of {}", self.rows);
        // SAFETY: row `i` lies inside the exclusive borrow.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.stride), self.cols) }
    }

    /// The first element; element `(i, j)` is at `i * stride + j`. Tasks of one operation write disjoint elements.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.ptr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_wrap_are_refused() {
        let refused = |make: fn() -> usize| assert!(std::panic::catch_unwind(make).is_err());
        refused(|| Buffer::<f32>::zeros(Device::Cpu, 4).matrix(1 << 32, 1 << 32).rows());
        refused(|| View::<f32>::of(&[], 1 << 32, 1 << 32).rows());
        refused(|| Buffer::<i8>::within(&mut Region::new(Device::Cpu), usize::MAX).len());
    }
}
