//! Operations that treat all elements alike (conversion, addition, zeroing), and the squared error of hidden states.
//!
//! Read next: `ops/head/mod.rs`.

mod cpu;

use super::split::{by_elements, by_rows, row_mut};
use crate::check::expect;
use crate::{Queue, Real, View, ViewMut};
use cpu::{Add, Convert, SquaredError};

/// `out = x`, rounded to nearest, ties to even.
///
/// # Panics
/// When shapes disagree.
pub fn convert<T: Real>(queue: &Queue, x: View<f32>, out: ViewMut<T>) {
    expect(queue, "convert: x", &x, x.shape());
    expect(queue, "convert: out", &out, x.shape());
    let together = x.is_contiguous() && out.is_contiguous();
    let (x, out) = if together { (x.reshape(1, count(&x)), flat(out)) } else { (x, out) };
    by_elements(queue, x.rows(), x.cols(), |i, range| {
        let out = row_mut(&out, i).wrapping_add(range.start);
        queue.isa().run_on::<T, _>(Convert { x: &x.row(i)[range], out });
    });
}

/// `y += x`.
///
/// # Panics
/// When shapes disagree.
pub fn add(queue: &Queue, x: View<f32>, y: ViewMut<f32>) {
    expect(queue, "add: x", &x, x.shape());
    expect(queue, "add: y", &y, x.shape());
    let together = x.is_contiguous() && y.is_contiguous();
    let (x, y) = if together { (x.reshape(1, count(&x)), flat(y)) } else { (x, y) };
    by_elements(queue, x.rows(), x.cols(), |i, range| {
        let y = row_mut(&y, i).wrapping_add(range.start);
        queue.isa().run_without_pairs(Add { x: &x.row(i)[range], y });
    });
}

/// `y = 0`.
pub fn zero(queue: &Queue, y: ViewMut<f32>) {
    expect(queue, "zero: y", &y, y.shape());
    let y = if y.is_contiguous() { flat(y) } else { y };
    by_elements(queue, y.rows(), y.cols(), |i, range| {
        // SAFETY: the range lies in the row, tasks write disjoint ranges, and zero bits are 0.0.
        unsafe { row_mut(&y, i).add(range.start).write_bytes(0, range.len()) };
    });
}

/// Mean squared error of each row, and its weighted gradient. It is the loss of hidden-state matching.
///
/// `value[i] = mean_j (x[i,j] − target[i,j])²` and `d_x[i] += weight[i] · 2/C · (x[i] − target[i])`.
///
/// # Shapes
/// * `x`, `target`: `[N, C]`. `weight`: `[1, N]`. `value`: `[1, N]`, overwritten, not multiplied by the weight. `d_x`:
///   `[N, C]`, accumulated.
///
/// # Panics
/// When shapes disagree.
pub fn mean_squared_error(
    queue: &Queue,
    x: View<f32>,
    target: View<f32>,
    weight: View<f32>,
    value: ViewMut<f32>,
    d_x: ViewMut<f32>,
) {
    let (n, c) = (x.rows(), x.cols());
    expect(queue, "mean_squared_error: x", &x, (n, c));
    expect(queue, "mean_squared_error: target", &target, (n, c));
    expect(queue, "mean_squared_error: weight", &weight, (1, n));
    expect(queue, "mean_squared_error: value", &value, (1, n));
    expect(queue, "mean_squared_error: d_x", &d_x, (n, c));
    let weight = weight.row(0);
    by_rows(queue, n, c, |rows| {
        queue.isa().run_without_pairs(SquaredError { x, target, weight, value: &value, d_x: &d_x, rows });
    });
}

fn count<T: Real>(x: &View<T>) -> usize {
    x.rows() * x.cols()
}

/// A contiguous matrix as one row.
fn flat<T: Real>(y: ViewMut<T>) -> ViewMut<T> {
    let len = y.rows() * y.cols();
    y.reshape(1, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;
    use crate::testing::{assert_close, assert_same_bits, central_differences, queues, random, wide};

    #[test]
    fn elements_are_rounded_added_and_zeroed_inside_their_columns_only() {
        for (n, c) in [(0, 3), (1, 1), (5, 21), (3, 40_000)] {
            let (x, y) = (random::<f32>(1, n * c), random::<f32>(2, n * (c + 1)));
            for queue in queues() {
                let mut out = vec![bf16::ZERO; n * c];
                convert(&queue, View::of(&x, n, c), ViewMut::of(&mut out, n, c));
                let rounded: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
                assert_same_bits("convert", &out, &rounded);
                let mut sum = y.clone();
                add(&queue, View::of(&x, n, c), ViewMut::of(&mut sum, n, c + 1).split_cols(c).0);
                let mut zeroed = y.clone();
                zero(&queue, ViewMut::of(&mut zeroed, n, c + 1).split_cols(c).0);
                for i in 0..n * (c + 1) {
                    let (row, col) = (i / (c + 1), i % (c + 1));
                    let wanted = if col < c { (y[i] + x[row * c + col], 0.0) } else { (y[i], y[i]) };
                    assert_eq!((sum[i], zeroed[i]), wanted);
                }
            }
        }
    }

    #[test]
    fn squared_error_and_its_gradient_equal_the_reference() {
        for (n, c) in [(0, 3), (1, 1), (5, 21), (2, 300)] {
            let (x, target, weight) = (random::<f32>(1, n * c), random::<f32>(2, n * c), random::<f32>(3, n));
            let target64 = wide(&target);
            let errors = |x: &[f64]| -> Vec<f64> {
                let pairs = x.chunks(c).zip(target64.chunks(c));
                pairs.map(|(x, t)| x.iter().zip(t).map(|(x, t)| (x - t) * (x - t)).sum::<f64>() / c as f64).collect()
            };
            let gradient = central_differences(&wide(&x), |x| {
                errors(x).iter().zip(&weight).map(|(error, w)| error * f64::from(*w)).sum()
            });
            let gradient: Vec<f64> = gradient.iter().map(|d| d + 1.0).collect();
            for queue in queues() {
                let (mut value, mut d_x) = (vec![9.0; n], vec![1.0; n * c]);
                let (x, target) = (View::of(&x, n, c), View::of(&target, n, c));
                let (value_view, d_view) = (ViewMut::of(&mut value, 1, n), ViewMut::of(&mut d_x, n, c));
                mean_squared_error(&queue, x, target, View::of(&weight, 1, n), value_view, d_view);
                assert_close("value", &value, &errors(&wide(x.host())), 1e-6);
                assert_close("d_x", &d_x, &gradient, 1e-6);
            }
        }
    }
}
