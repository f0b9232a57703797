//! Matches a teacher's hidden states. A learned projection maps the student's residual stream to the teacher's width;
//! the loss is the squared error between the two.
//!
//! `loss = Σ weight · mean_j (W·h − h_teacher)² / mean_j h_teacher²`, summed over the weighted tokens. It departs from
//! FitNets (arXiv 1412.6550) in one point: the error is divided by the teacher's mean square, so that one weight suits
//! teachers of any scale. As everywhere, the hidden state of token `t` is that of row `t − 1`, which predicts it. The
//! projection is small, so it is computed in f32 whatever the dtype.

use kernels::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use kernels::ops::elementwise::{mean_squared_error, zero};
use kernels::ops::rows::{gather_rows, scatter_add_rows};
use kernels::{Buffer, Queue, Scratch, View, ViewMut};
use lm::head::Targets;

/// The hidden column: a teacher's residual stream at every token with a weight.
pub struct HiddenSignal<'a> {
    /// The student's hidden state is its residual stream after this many layers (the tap).
    pub layer: usize,
    /// `[N, C of the teacher]`, the teacher's residual stream over the same batch.
    pub teacher: View<'a, f32>,
    /// `[N]`, the weight of each token's error.
    pub weight: Vec<f32>,
}

/// The buffer of the matching.
pub(super) struct Matching {
    /// `[N, C]`, the gradient with respect to the student's residual stream at the tap.
    d_tap: Buffer<f32>,
}

impl Matching {
    pub fn new(queue: &Queue) -> Self {
        Self { d_tap: Buffer::zeros(queue.device(), 0) }
    }

    /// Computes the loss and its gradients. It adds the projection's gradient to `d_projection` and overwrites [`Matching::tap`].
    ///
    /// # Shapes and units
    /// * `student`: `[N, C]`; `projection`, `d_projection`: `[C of the teacher, C]`.
    /// * returns the weighted sum of errors, dimensionless.
    ///
    /// # Panics
    /// When the projection has another shape.
    pub fn gradient(
        &mut self,
        queue: &Queue,
        signal: &HiddenSignal,
        targets: &Targets,
        student: View<f32>,
        projection: View<f32>,
        d_projection: ViewMut<f32>,
        scratch: &mut Scratch,
    ) -> f64 {
        let (width, wide) = (student.cols(), signal.teacher.cols());
        assert_eq!((projection.rows(), projection.cols()), (wide, width), "a projection between other widths");
        let wanted: Vec<usize> =
            (0..targets.len()).filter(|&r| signal.weight[targets.tokens[r] as usize] != 0.0).collect();
        let rows: Vec<u32> = wanted.iter().map(|&r| targets.hidden_rows[r]).collect();
        let (count, device) = (rows.len(), queue.device());
        if self.d_tap.len() < student.rows() * width {
            self.d_tap = Buffer::zeros(device, student.rows() * width);
        }
        zero(queue, self.d_tap.matrix_mut(student.rows(), width));
        let index = queue.upload(&rows);
        let index = index.view();
        let gather = |x: View<f32>| {
            let mut gathered = Buffer::zeros(device, count * x.cols());
            gather_rows(queue, x, index, gathered.matrix_mut(count, x.cols()));
            gathered
        };
        let (x, target) = (gather(student), gather(signal.teacher));

        let mut packed = Packed::<f32>::zeros(device, width, wide);
        packed.pack(queue, projection, 0);
        let mut y = Buffer::<f32>::zeros(device, count * wide);
        matmul(queue, x.matrix(count, width), packed.at(0), Epilogue::default(), y.matrix_mut(count, wide));

        let teachers = target.to_host();
        let weight: Vec<f32> = wanted
            .iter()
            .zip(teachers.chunks(wide))
            .map(|(&r, teacher)| signal.weight[targets.tokens[r] as usize] / mean_square(teacher))
            .collect();
        let (mut error, mut d_y) = (Buffer::zeros(device, count), Buffer::<f32>::zeros(device, count * wide));
        mean_squared_error(
            queue,
            y.matrix(count, wide),
            target.matrix(count, wide),
            queue.upload(&weight).view(),
            error.view_mut(),
            d_y.matrix_mut(count, wide),
        );

        let d_y = d_y.matrix(count, wide);
        matmul_transposed_a(queue, d_y, x.matrix(count, width), d_projection, true, scratch);
        let mut packed = Packed::<f32>::zeros(device, wide, width);
        packed.pack_transposed(queue, projection, 0);
        let mut d_x = Buffer::<f32>::zeros(device, count * width);
        matmul(queue, d_y, packed.at(0), Epilogue::default(), d_x.matrix_mut(count, width));
        scatter_add_rows(queue, d_x.matrix(count, width), index, self.d_tap.matrix_mut(student.rows(), width));
        error.to_host().iter().zip(&weight).map(|(&e, &w)| f64::from(e) * f64::from(w)).sum()
    }

    /// `[N, C]`, the gradient with respect to the student's residual stream at the tap.
    pub fn tap(&self, rows: usize, width: usize) -> View<'_, f32> {
        self.d_tap.matrix(rows, width)
    }

    /// Bytes that are kept between batches.
    pub fn size_bytes(&self) -> usize {
        self.d_tap.size_bytes()
    }
}

/// The mean square of a row, at least 1e-12, so that a row of zeros does not divide by zero.
fn mean_square(row: &[f32]) -> f32 {
    let sum: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (sum / row.len() as f64).max(1e-12) as f32
}
