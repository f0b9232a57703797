//! Operations that move whole rows. The head gathers the rows that the caller asks for, and scatters their gradients
//! back.

use crate::check::{expect, expect_below};
use crate::{Element, Queue, View, ViewMut};

const ROWS_PER_TASK: usize = 64;

/// `out[i] = x[index[i]]`.
///
/// # Shapes
/// * `x`: `[N, C]`; `index`: `[1, R]`, each below N; `out`: `[R, C]`, overwritten.
///
/// # Panics
/// When shapes disagree or an index is not below N.
pub fn gather_rows<T: Element>(queue: &Queue, x: View<T>, index: View<u32>, out: ViewMut<T>) {
    expect(queue, "gather_rows: x", &x, x.shape());
    expect(queue, "gather_rows: index", &index, (1, out.rows()));
    expect(queue, "gather_rows: out", &out, (out.rows(), x.cols()));
    let (index, cols, stride) = (index.row(0), out.cols(), out.stride());
    expect_below("gather_rows: index", index, x.rows());
    queue.parallel(index.len().div_ceil(ROWS_PER_TASK), |task| {
        let end = ((task + 1) * ROWS_PER_TASK).min(index.len());
        for (i, &source) in index.iter().enumerate().take(end).skip(task * ROWS_PER_TASK) {
            // SAFETY: row `i` lies in `out`, and no other task has it.
            let row = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().add(i * stride), cols) };
            row.copy_from_slice(x.row(source as usize));
        }
    });
}

/// `out[index[i]] += x[i]`, in order of increasing `i`. A row that is named twice receives both.
///
/// # Shapes
/// * `x`: `[R, C]`; `index`: `[1, R]`, each below N; `out`: `[N, C]`, accumulated.
///
/// # Panics
/// When shapes disagree or an index is not below N.
pub fn scatter_add_rows(queue: &Queue, x: View<f32>, index: View<u32>, out: ViewMut<f32>) {
    expect(queue, "scatter_add_rows: x", &x, x.shape());
    expect(queue, "scatter_add_rows: index", &index, (1, x.rows()));
    expect(queue, "scatter_add_rows: out", &out, (out.rows(), x.cols()));
    let (index, cols, stride) = (index.row(0), out.cols(), out.stride());
    expect_below("scatter_add_rows: index", index, out.rows());
    // Tasks take columns and not rows, because two rows may go to the same place.
    let per_task = cols.div_ceil(queue.threads()).max(16);
    queue.parallel(cols.div_ceil(per_task), |task| {
        let range = task * per_task..((task + 1) * per_task).min(cols);
        for (i, &target) in index.iter().enumerate() {
            let start = target as usize * stride + range.start;
            // SAFETY: the row was checked above, and no other task has these columns.
            let row = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().add(start), range.len()) };
            for (sum, value) in row.iter_mut().zip(&x.row(i)[range.clone()]) {
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
    fn rows_go_out_and_come_back() {
        let x: Vec<f32> = (0..6 * 40).map(|i| i as f32).collect();
        let index = [4u32, 0, 4];
        for threads in [1, 3] {
            let queue = Queue::cpu(threads, Isa::Portable);
            let mut out = Buffer::zeros(Device::Cpu, 3 * 40);
            gather_rows(&queue, View::of(&x, 6, 40), View::of(&index, 1, 3), out.matrix_mut(3, 40));
            assert_eq!(&out.host()[..40], &x[160..200]);
            assert_eq!(&out.host()[40..80], &x[..40]);
            let mut sums = Buffer::from_host(Device::Cpu, &[1.0; 6 * 40]);
            scatter_add_rows(&queue, out.matrix(3, 40), View::of(&index, 1, 3), sums.matrix_mut(6, 40));
            assert_eq!(sums.host()[4 * 40 + 3], 1.0 + 2.0 * x[4 * 40 + 3]);
            assert_eq!(sums.host()[3], 1.0 + x[3]);
            assert_eq!(sums.host()[40 + 3], 1.0);
        }
    }
}
