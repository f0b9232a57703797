//! Operations that treat every element alike: conversion, addition, zeroing, and the squared error of hidden states.
//!
//! Read next: `ops/head/mod.rs`.

use crate::{Queue, Real, View, ViewMut};

/// `out = x`, rounded to nearest even.
///
/// # Panics
/// When shapes disagree.
pub fn convert<T: Real>(queue: &Queue, x: View<f32>, out: ViewMut<T>) {
    let mut out = out;
    let _ = queue;
    assert_eq!((x.rows(), x.cols()), (out.rows(), out.cols()), "convert: x against out");
    for i in 0..x.rows() {
        for (out, &x) in out.row_mut(i).iter_mut().zip(x.row(i)) {
            *out = T::from_f32(x);
        }
    }
}

/// `y += x`.
///
/// # Panics
/// When shapes disagree.
pub fn add(queue: &Queue, x: View<f32>, y: ViewMut<f32>) {
    let mut y = y;
    let _ = queue;
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "add: x against y");
    for i in 0..x.rows() {
        for (y, &x) in y.row_mut(i).iter_mut().zip(x.row(i)) {
            *y += x;
        }
    }
}

/// `y = 0`.
pub fn zero(queue: &Queue, y: ViewMut<f32>) {
    let mut y = y;
    let _ = queue;
    for i in 0..y.rows() {
        y.row_mut(i).fill(0.0);
    }
}

/// Mean squared error of each row, and its weighted gradient: what hidden-state matching trains on.
///
/// `value[i] = mean_j (x[i,j] − target[i,j])²` and `d_x[i] += weight[i] · 2/C · (x[i] − target[i])`.
///
/// # Shapes
/// * `x`, `target`: `[N, C]`; `weight`: `[1, N]`; `value`: `[1, N]`, overwritten, unweighted; `d_x`: `[N, C]`, accumulated.
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
    let (mut value, mut d_x) = (value, d_x);
    let _ = queue;
    let (n, c) = (x.rows(), x.cols());
    assert_eq!((target.rows(), target.cols()), (n, c), "mean_squared_error: target against x");
    assert_eq!((d_x.rows(), d_x.cols()), (n, c), "mean_squared_error: d_x against x");
    assert_eq!((weight.cols(), value.cols()), (n, n), "mean_squared_error: weight and value against x");
    for i in 0..n {
        let (x, target, scale) = (x.row(i), target.row(i), weight.row(0)[i] * 2.0 / c as f32);
        value.row_mut(0)[i] = x.iter().zip(target).map(|(x, t)| (x - t) * (x - t)).sum::<f32>() / c as f32;
        for (j, d) in d_x.row_mut(i).iter_mut().enumerate() {
            *d += scale * (x[j] - target[j]);
        }
    }
}
