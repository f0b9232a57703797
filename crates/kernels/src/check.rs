//! What an operation demands of its operands before it starts any work.
//!
//! Kernels write through raw pointers at places that follow from shapes. So every public operation compares the whole
//! shape of every operand with [`expect`], rows and columns alike: a `[0, N]` view is no vector of N elements.

use crate::device::{Device, Queue};
use crate::dtype::Element;
use crate::view::{View, ViewMut};

/// Either kind of view.
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

/// Checks that `operand` has this shape and lies on the queue's device; `what` names operation and operand.
///
/// # Panics
/// With both shapes, or both devices, when not.
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
/// With the greatest index when not.
#[track_caller]
pub(crate) fn expect_below<'a>(what: &str, indices: impl IntoIterator<Item = &'a u32>, end: usize) {
    if let Some(&most) = indices.into_iter().max() {
        assert!((most as usize) < end, "{what} {most} is not below {end}");
    }
}
