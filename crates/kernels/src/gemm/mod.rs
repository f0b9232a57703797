//! Matrix products over packed operands: plain bodies behind the signatures, to be replaced by panels and tiles.

use crate::{Buffer, Device, Queue, Real, Scratch, View, ViewMut};

/// The operand `B` of a product, `[K, N]`.
pub struct Packed<T: Real> {
    k: usize,
    n: usize,
    data: Buffer<T>,
    generation: u64,
}

impl<T: Real> Packed<T> {
    /// `[k, n]` zeros of generation 0.
    pub fn zeros(device: Device, k: usize, n: usize) -> Self {
        Self { k, n, data: Buffer::zeros(device, k * n), generation: 0 }
    }

    /// Size in memory.
    pub fn size_bytes(&self) -> usize {
        self.data.size_bytes()
    }

    /// `B = wᵀ` for `w`: `[n, k]`.
    pub fn pack(&mut self, _queue: &Queue, w: View<f32>, generation: u64) {
        self.generation = generation;
        let (n, data) = (self.n, self.data.host_mut());
        for j in 0..n {
            w.row(j).iter().enumerate().for_each(|(i, &x)| data[i * n + j] = T::from_f32(x));
        }
    }

    /// `B = w` for `w`: `[k, n]`.
    pub fn pack_transposed(&mut self, _queue: &Queue, w: View<f32>, generation: u64) {
        self.generation = generation;
        let (n, data) = (self.n, self.data.host_mut());
        for i in 0..self.k {
            w.row(i).iter().enumerate().for_each(|(j, &x)| data[i * n + j] = T::from_f32(x));
        }
    }

    /// Panics when the packing is of another generation of the weights.
    pub fn check_generation(&self, wanted: u64) {
        assert_eq!(self.generation, wanted, "a packing of stale weights");
    }
}

/// What is added to a product before it is stored: `out = addend + (A·B + bias)`.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[1, N]`.
    pub bias: Option<View<'a, f32>>,
    /// `[M, N]`.
    pub addend: Option<View<'a, f32>>,
}

/// `out = addend + (a·b + bias)`.
pub fn matmul<T: Real, O: Real>(_queue: &Queue, a: View<T>, b: &Packed<T>, epilogue: Epilogue, mut out: ViewMut<O>) {
    for i in 0..a.rows() {
        let mut sums = vec![0f32; b.n];
        for (k, x) in a.row(i).iter().enumerate() {
            let row = &b.data.host()[k * b.n..(k + 1) * b.n];
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum = x.to_f32().mul_add(y.to_f32(), *sum));
        }
        for (j, sum) in sums.into_iter().enumerate() {
            let sum = epilogue.bias.map_or(sum, |bias| sum + bias.row(0)[j]);
            out.row_mut(i)[j] = O::from_f32(epilogue.addend.map_or(sum, |addend| addend.row(i)[j] + sum));
        }
    }
}

/// `out (+)= aᵀ·b`, in increasing row order.
pub fn matmul_transposed_a<T: Real>(
    _queue: &Queue,
    a: View<T>,
    b: View<T>,
    mut out: ViewMut<f32>,
    accumulate: bool,
    _scratch: &mut Scratch,
) {
    for j in 0..a.cols() {
        for k in 0..b.cols() {
            let first = if accumulate { out.row_mut(j)[k] } else { 0.0 };
            out.row_mut(j)[k] =
                (0..a.rows()).fold(first, |sum, i| a.row(i)[j].to_f32().mul_add(b.row(i)[k].to_f32(), sum));
        }
    }
}
