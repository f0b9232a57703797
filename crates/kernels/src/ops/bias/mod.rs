//! The gradient of a bias: column sums.

use crate::check::expect;
use crate::{Queue, View, ViewMut};

/// Number of columns that a task sums: whole cache lines.
const COLUMNS_PER_TASK: usize = 64;

/// `d_bias[j] += Σ_i d[i, j]`, in order of increasing row.
///
/// # Shapes
/// * `d`: `[N, C]`, any stride; the gradient of the rows to which the bias was added.
/// * `d_bias`: `[1, C]`, accumulated.
///
/// # Panics
/// When shapes disagree.
pub fn bias_backward(queue: &Queue, d: View<f32>, d_bias: ViewMut<f32>) {
    let cols = d.cols();
    expect(queue, "bias_backward: d", &d, (d.rows(), cols));
    expect(queue, "bias_backward: d_bias", &d_bias, (1, cols));
    queue.parallel(cols.div_ceil(COLUMNS_PER_TASK), |task| {
        let range = task * COLUMNS_PER_TASK..((task + 1) * COLUMNS_PER_TASK).min(cols);
        // SAFETY: the columns lie in the one row of `d_bias`, and no other task has them.
        let sums = unsafe { std::slice::from_raw_parts_mut(d_bias.as_mut_ptr().add(range.start), range.len()) };
        for i in 0..d.rows() {
            for (sum, value) in sums.iter_mut().zip(&d.row(i)[range.clone()]) {
                *sum += value;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Isa, buffer::Buffer};

    #[test]
    fn sums_columns_on_top_of_what_is_there() {
        let (rows, cols) = (5, 130);
        let d: Vec<f32> = (0..rows * 140).map(|i| (i % 17) as f32 - 3.0).collect();
        let view = View::of(&d, rows, 140).col_range(7..7 + cols);
        for threads in [1, 3] {
            let mut d_bias = Buffer::from_host(Device::Cpu, &vec![0.5; cols]);
            bias_backward(&Queue::cpu(threads, Isa::Portable), view, d_bias.view_mut());
            for (j, &sum) in d_bias.host().iter().enumerate() {
                let expected = 0.5 + (0..rows).map(|i| d[i * 140 + 7 + j]).sum::<f32>();
                assert_eq!(sum, expected, "column {j}");
            }
        }
    }
}
