//! Divergences of a student's rows from a teacher's, with their gradients with respect to the student's logits.
//!
//! Let p be the teacher's and q the student's distribution, both softmax(logits / `temperature`):
//!
//! ```text
//!     forward KL                   Σ p ln(p/q)
//!     reverse KL                   Σ q ln(q/p)
//!     generalised Jensen–Shannon   β Σ p ln(p/m) + (1−β) Σ q ln(q/m)   with m = β p + (1−β) q
//! ```
//!
//! The last tends to 0 for β → 0 and for β → 1, so callers choose the two KLs by name and not by β.
//!
//! Source: Agarwal et al. 2023, arXiv 2306.13649 (GKD, section 2). Read next: `ops/head/top_k.rs`.

mod cpu;
mod kind;

use super::super::split::{by_rows, row_mut};
use super::cpu::Row;
use crate::check::{expect, expect_below};
use crate::{Queue, View, ViewMut};
use cpu::{Dense, Sparse};

pub use kind::Divergence;

/// Divergence of each row, in nats, and its weighted gradient.
///
/// # Shapes and units
/// * `student`, `teacher`: logits, `[R, V]`. `temperature` > 0 divides both. `weight`: `[1, R]`.
/// * `value`: `[1, R]`, overwritten with the divergence in nats, not multiplied by the weight. `d_logits`: `[R, V]`, +=
///   weight · gradient.
///
/// # Panics
/// When shapes disagree or `beta` is not strictly between 0 and 1.
pub fn divergence_rows(
    queue: &Queue,
    student: View<f32>,
    teacher: View<f32>,
    kind: Divergence,
    temperature: f32,
    weight: View<f32>,
    value: ViewMut<f32>,
    d_logits: ViewMut<f32>,
) {
    let (r, vocabulary) = (student.rows(), student.cols());
    expect(queue, "divergence_rows: student", &student, (r, vocabulary));
    expect(queue, "divergence_rows: teacher", &teacher, (r, vocabulary));
    expect(queue, "divergence_rows: weight", &weight, (1, r));
    expect(queue, "divergence_rows: value", &value, (1, r));
    expect(queue, "divergence_rows: d_logits", &d_logits, (r, vocabulary));
    if let Divergence::Jsd { beta } = kind {
        assert!(beta > 0.0 && beta < 1.0, "divergence_rows: beta {beta} is not strictly between 0 and 1");
    }
    let weight = weight.row(0);
    by_rows(queue, r, vocabulary, |rows| {
        let (value, d_logits) = (&value, &d_logits);
        queue.isa().run_without_pairs(Dense { student, teacher, kind, temperature, weight, value, d_logits, rows });
    });
}

/// Forward KL from a teacher of which only the most likely tokens are known. All other tokens form one bucket, the
/// tail.
///
/// The value is `Σ_top p ln(p/q) + p_tail ln(p_tail/q_tail)`, with `p_tail = 1 − Σ_top p`. It is a lower bound of the
/// full divergence. The two are equal if, within the tail, the teacher's probabilities are proportional to the
/// student's.
///
/// # Shapes and units
/// * `student`: logits, `[R, V]`. `ids`, `logprobs`: `[R, k]`, the teacher's, at the same temperature. The ids of a row
///   are distinct.
/// * `weight`: `[1, R]`. `value`: `[1, R]`, overwritten, in nats, not multiplied by the weight. `d_logits`: `[R, V]`,
///   += weight · gradient.
///
/// # Panics
/// When shapes disagree, an id is not below V, or a row contains an id twice.
pub fn sparse_forward_kl_rows(
    queue: &Queue,
    student: View<f32>,
    ids: View<u32>,
    logprobs: View<f32>,
    temperature: f32,
    weight: View<f32>,
    value: ViewMut<f32>,
    d_logits: ViewMut<f32>,
) {
    let (r, vocabulary) = (student.rows(), student.cols());
    expect(queue, "sparse_forward_kl_rows: student", &student, (r, vocabulary));
    expect(queue, "sparse_forward_kl_rows: ids", &ids, (r, ids.cols()));
    expect(queue, "sparse_forward_kl_rows: logprobs", &logprobs, (r, ids.cols()));
    expect(queue, "sparse_forward_kl_rows: weight", &weight, (1, r));
    expect(queue, "sparse_forward_kl_rows: value", &value, (1, r));
    expect(queue, "sparse_forward_kl_rows: d_logits", &d_logits, (r, vocabulary));
    expect_below("sparse_forward_kl_rows: id", (0..r).flat_map(|i| ids.row(i)), vocabulary);
    by_rows(queue, r, vocabulary, |rows| {
        for i in rows {
            let mut known: Vec<(u32, f32)> = ids.row(i).iter().copied().zip(logprobs.row(i).iter().copied()).collect();
            known.sort_unstable_by_key(|(id, _)| *id);
            let differ = known.windows(2).all(|pair| pair[0].0 < pair[1].0);
            assert!(differ, "sparse_forward_kl_rows: row {i} names an id twice");
            let result = queue.isa().run_without_pairs(Sparse {
                student: Row::of(&student, i, temperature),
                known: &known,
                weight: weight.row(0)[i],
                d_logits: row_mut(&d_logits, i),
            });
            // SAFETY: no other task writes this element.
            unsafe { *row_mut(&value, 0).add(i) = result };
        }
    });
}

#[cfg(test)]
pub(super) mod tests;
