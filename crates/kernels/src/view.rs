//! [`View`] and [`ViewMut`]: a matrix that lies in a buffer.
//!
//! A view is a start, a shape, a row stride and a device. Row `i` begins `i · stride` elements after the first row. So
//! a view may be some columns of a wider matrix:
//!
//! ```text
//!     stride = 8
//!     . . a b c . . .      rows = 2, cols = 3: columns 2 .. 5 of a matrix of 8 columns
//!     . . d e f . . .
//! ```
//!
//! A vector is a matrix of one row. [`ViewMut::split_rows`] and [`ViewMut::split_cols`] cut a [`ViewMut`] into disjoint
//! ones. So an operation gets exactly the memory that it writes, and never a whole arena.
//!
//! Read next: `ops/rmsnorm/mod.rs`.

use std::marker::PhantomData;
use std::ops::Range;

use crate::device::Device;
use crate::dtype::Element;

/// A matrix `[rows, cols]` for reading.
pub struct View<'a, T: Element> {
    ptr: *const T,
    rows: usize,
    cols: usize,
    stride: usize,
    device: Device,
    life: PhantomData<&'a [T]>,
}

/// A matrix `[rows, cols]` for writing. No other view overlaps it while it lives.
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

/// Number of elements of a matrix. It panics on overflow: a product that wrapped around would let a view reach beyond
/// its memory.
pub(crate) fn area(rows: usize, cols: usize) -> usize {
    rows.checked_mul(cols).unwrap_or_else(|| panic!("a {rows}×{cols} view exceeds the address space"))
}

/// What both kinds of view have in common: their shape, and their parts.
macro_rules! shape_of_view {
    ($name:ident) => {
        impl<'a, T: Element> $name<'a, T> {
            /// Number of rows.
            pub fn rows(&self) -> usize {
                self.rows
            }

            /// Number of elements in a row.
            pub fn cols(&self) -> usize {
                self.cols
            }

            /// Rows and columns.
            pub fn shape(&self) -> (usize, usize) {
                (self.rows, self.cols)
            }

            /// Number of elements from the start of one row to the start of the next.
            pub(crate) fn stride(&self) -> usize {
                self.stride
            }

            /// The device that holds the memory.
            pub fn device(&self) -> Device {
                self.device
            }

            /// Whether the rows follow one another without gaps.
            pub(crate) fn is_contiguous(&self) -> bool {
                self.stride == self.cols || self.rows <= 1
            }

            /// The rows in a range.
            ///
            /// # Panics
            /// When the view has fewer rows.
            pub fn row_range(self, rows: Range<usize>) -> Self {
                self.check_rows(&rows);
                Self { ptr: self.ptr.wrapping_add(rows.start * self.stride), rows: rows.len(), ..self }
            }

            /// The columns in a range; the stride does not change.
            ///
            /// # Panics
            /// When the view has fewer columns.
            pub fn col_range(self, cols: Range<usize>) -> Self {
                self.check_cols(&cols);
                Self { ptr: self.ptr.wrapping_add(cols.start), cols: cols.len(), ..self }
            }

            /// The same elements with the shape `[rows, cols]`.
            ///
            /// # Panics
            /// When the view is not contiguous or the number of elements differs.
            pub fn reshape(self, rows: usize, cols: usize) -> Self {
                assert!(
                    self.is_contiguous() && area(rows, cols) == self.rows * self.cols,
                    "reshape {}×{} to {rows}×{cols}",
                    self.rows,
                    self.cols
                );
                Self { rows, cols, stride: cols, ..self }
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
    /// A matrix without gaps between its rows.
    ///
    /// # Safety
    /// `ptr` must point to `rows × cols` initialised elements that nobody writes during `'a`.
    pub(crate) unsafe fn new(ptr: *const T, rows: usize, cols: usize, device: Device) -> Self {
        Self { ptr, rows, cols, stride: cols, device, life: PhantomData }
    }

    /// A matrix over host memory, for the CPU.
    ///
    /// # Panics
    /// When `values` does not hold exactly `rows × cols` elements.
    pub(crate) fn of(values: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), area(rows, cols), "a {rows}×{cols} view of {} values", values.len());
        // SAFETY: the slice holds as many elements, and is borrowed for `'a`.
        unsafe { Self::new(values.as_ptr(), rows, cols, Device::Cpu) }
    }

    /// The same view, if `U` is the type that it already has. Code that is generic over a dtype uses this to skip a
    /// conversion.
    pub fn same_type<U: Element>(self) -> Option<View<'a, U>> {
        let View { rows, cols, stride, device, .. } = self;
        (T::DTYPE == U::DTYPE).then(|| View { ptr: self.ptr.cast(), rows, cols, stride, device, life: PhantomData })
    }

    /// A copy of the elements in host memory, row by row without gaps.
    pub fn to_host(&self) -> Vec<T> {
        let mut values = vec![T::default(); self.rows * self.cols];
        self.copy_to_host(&mut values);
        values
    }

    /// Copies the elements to host memory, row by row without gaps. It first waits for the work that was given to the
    /// device before.
    ///
    /// # Panics
    /// When `values` and the view differ in their number of elements.
    pub fn copy_to_host(&self, values: &mut [T]) {
        let len = self.rows * self.cols;
        assert_eq!(values.len(), len, "a copy of {}×{} to {} values", self.rows, self.cols, values.len());
        match self.device {
            Device::Cpu if self.is_contiguous() => values.copy_from_slice(self.host()),
            Device::Cpu => (0..self.rows).zip(values.chunks_mut(self.cols.max(1))).for_each(|(i, to)| {
                to.copy_from_slice(self.row(i));
            }),
        }
    }

    /// The elements, in host memory.
    ///
    /// # Panics
    /// When the view is not contiguous.
    pub(crate) fn host(&self) -> &'a [T] {
        assert!(self.is_contiguous(), "host access needs contiguous rows");
        // SAFETY: the view borrows `rows × cols` contiguous initialised elements for `'a`.
        unsafe { std::slice::from_raw_parts(self.ptr, self.rows * self.cols) }
    }

    /// Row `i`, in host memory.
    pub(crate) fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows, "row {i} of a view of {}", self.rows);
        // SAFETY: row `i` lies inside the borrow.
        unsafe { std::slice::from_raw_parts(self.ptr.add(i * self.stride), self.cols) }
    }

    /// Pointer to the first element. Element `(i, j)` is at `i * stride + j`.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.ptr
    }
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// A matrix without gaps between its rows, for writing.
    ///
    /// # Safety
    /// `ptr` must point to `rows × cols` initialised elements that nobody else uses during `'a`.
    pub(crate) unsafe fn new(ptr: *mut T, rows: usize, cols: usize, device: Device) -> Self {
        Self { ptr, rows, cols, stride: cols, device, life: PhantomData }
    }

    /// A matrix over host memory, for the CPU to write.
    ///
    /// # Panics
    /// When `values` does not hold exactly `rows × cols` elements.
    #[cfg(test)]
    pub(crate) fn of(values: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), area(rows, cols), "a {rows}×{cols} view of {} values", values.len());
        // SAFETY: the slice holds as many elements, and is borrowed exclusively for `'a`.
        unsafe { Self::new(values.as_mut_ptr(), rows, cols, Device::Cpu) }
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

    /// Two disjoint views: the rows before `at`, and the rows from `at` on.
    ///
    /// # Panics
    /// When the view has fewer rows.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        self.check_rows(&(at..self.rows));
        let lower = ViewMut { ptr: self.ptr.wrapping_add(at * self.stride), rows: self.rows - at, ..self };
        (ViewMut { rows: at, ..self }, lower)
    }

    /// Two disjoint views: the columns before `at`, and the columns from `at` on.
    ///
    /// # Panics
    /// When the view has fewer columns.
    pub fn split_cols(self, at: usize) -> (Self, Self) {
        self.check_cols(&(at..self.cols));
        let right = ViewMut { ptr: self.ptr.wrapping_add(at), cols: self.cols - at, ..self };
        (ViewMut { cols: at, ..self }, right)
    }

    /// Overwrites the elements with those of host memory, row by row without gaps.
    ///
    /// # Panics
    /// When `values` and the view differ in their number of elements.
    pub fn copy_from_host(&mut self, values: &[T]) {
        let len = self.rows * self.cols;
        assert_eq!(values.len(), len, "a copy of {} values to {}×{}", values.len(), self.rows, self.cols);
        match self.device {
            Device::Cpu if self.is_contiguous() => {
                // SAFETY: the view exclusively borrows `len` contiguous initialised elements.
                unsafe { std::slice::from_raw_parts_mut(self.ptr, len) }.copy_from_slice(values);
            }
            Device::Cpu => (0..self.rows).zip(values.chunks(self.cols.max(1))).for_each(|(i, from)| {
                // SAFETY: row `i` lies inside the exclusive borrow.
                unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.stride), self.cols) }
                    .copy_from_slice(from);
            }),
        }
    }

    /// Pointer to the first element. Element `(i, j)` is at `i * stride + j`. Tasks of one operation write disjoint
    /// elements.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.ptr
    }
}
