//! Checks of operands that every operation makes before it starts any work.
//!
//! Kernels write through raw pointers to places that are computed from shapes. So every public operation checks the
//! whole shape of every operand with [`expect`], rows and columns. For example, a `[0, N]` view is not accepted as a
//! vector of N elements.

use crate::device::{Device, Queue};
use crate::dtype::Element;
use crate::view::{View, ViewMut};

/// A view that is read or written.
pub(crate) trait Operand {
    fn shape(&self) -> (usize, usize);
    fn device(&self) -> Device;
}

impl<T: Element> Operand for View<'_, T> {
    fn shape(&self) -> (usize, usize) {
        self.shape()
    }
    fn device(&self) -> Device {
        self.device()
    }
}

impl<T: Element> Operand for ViewMut<'_, T> {
    fn shape(&self) -> (usize, usize) {
        self.shape()
    }
    fn device(&self) -> Device {
        self.device()
    }
}

/// Checks that `operand` has this shape and lies on the queue's device. `what` names the operation and the operand.
///
/// # Panics
/// When it does not; the message has both shapes, or both devices.
#[track_caller]
pub(crate) fn expect(queue: &Queue, what: &str, operand: &impl Operand, (rows, cols): (usize, usize)) {
    let (found_rows, found_cols) = operand.shape();
    assert!((found_rows, found_cols) == (rows, cols), "{what} is {found_rows}×{found_cols}, not {rows}×{cols}");
    let (found, wanted) = (operand.device(), queue.device());
    assert!(found == wanted, "{what} lies on {found:?}, the queue's work on {wanted:?}");
}

/// Checks that indices, such as token ids, are below `end`.
///
/// # Panics
/// When one is not; the message has the greatest index.
#[track_caller]
pub(crate) fn expect_below<'a>(what: &str, indices: impl IntoIterator<Item = &'a u32>, end: usize) {
    if let Some(&most) = indices.into_iter().max() {
        assert!((most as usize) < end, "{what} {most} is not below {end}");
    }
}
