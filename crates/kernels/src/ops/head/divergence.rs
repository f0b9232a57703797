//! Divergences of a student's rows from a teacher's, with their gradients in the student's logits.
//!
//! With p the teacher's and q the student's distribution, both softmax of logits over `temperature`:
//! forward KL is Σ p ln(p/q), reverse KL is Σ q ln(q/p), and the generalised Jensen–Shannon divergence of GKD is
//! β Σ p ln(p/m) + (1−β) Σ q ln(q/m) with m = β p + (1−β) q. It is not divided by anything at the ends: β → 0 and
//! β → 1 both tend to 0 there, so that callers choose the two KLs by name.
//!
//! Source: Agarwal et al. 2023, arXiv 2306.13649. Read next: `ops/head/top_k.rs`.

use crate::{Queue, View, ViewMut};

/// Which divergence of the student from the teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// Σ p ln(p/q): mass where the teacher has it.
    ForwardKl,
    /// Σ q ln(q/p): mass only where the teacher has it.
    ReverseKl,
    /// Between the two; `beta` is the teacher's share of the mixture, strictly between 0 and 1.
    Jsd {
        /// The teacher's share of the mixture.
        beta: f32,
    },
}

/// Divergence of each row, and its weighted gradient.
///
/// # Shapes and units
/// * `student`, `teacher`: logits, `[R, V]`; `temperature` > 0 divides both; `weight`: `[1, R]`.
/// * `value`: `[1, R]`, overwritten, the unweighted divergence in nats; `d_logits`: `[R, V]`, += weight · gradient.
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
    let (mut value, mut d_logits) = (value, d_logits);
    let _ = queue;
    let (r, vocabulary) = (student.rows(), student.cols());
    assert_eq!((teacher.rows(), teacher.cols()), (r, vocabulary), "divergence_rows: teacher against student");
    assert_eq!((d_logits.rows(), d_logits.cols()), (r, vocabulary), "divergence_rows: d_logits against student");
    assert_eq!((weight.cols(), value.cols()), (r, r), "divergence_rows: weight and value against rows");
    if let Divergence::Jsd { beta } = kind {
        assert!(beta > 0.0 && beta < 1.0, "divergence_rows: beta {beta} is not strictly between 0 and 1");
    }
    for i in 0..r {
        let log_q = log_softmax(student.row(i), temperature);
        let log_p = log_softmax(teacher.row(i), temperature);
        let scale = weight.row(0)[i] / temperature;
        let log_m: Vec<f32> = match kind {
            Divergence::Jsd { beta } => {
                log_p.iter().zip(&log_q).map(|(p, q)| (beta * p.exp() + (1.0 - beta) * q.exp()).ln()).collect()
            }
            _ => Vec::new(),
        };
        // How far the student's log-probability lies above what it is compared with, and its mean under the student.
        let (excess, share): (Vec<f32>, f32) = match kind {
            Divergence::ForwardKl => {
                value.row_mut(0)[i] = log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum();
                for (j, d) in d_logits.row_mut(i).iter_mut().enumerate() {
                    *d += scale * (log_q[j].exp() - log_p[j].exp());
                }
                continue;
            }
            Divergence::ReverseKl => (log_q.iter().zip(&log_p).map(|(q, p)| q - p).collect(), 1.0),
            Divergence::Jsd { beta } => (log_q.iter().zip(&log_m).map(|(q, m)| q - m).collect(), 1.0 - beta),
        };
        let mean: f32 = excess.iter().zip(&log_q).map(|(e, q)| q.exp() * e).sum();
        value.row_mut(0)[i] = share * mean;
        if let Divergence::Jsd { beta } = kind {
            value.row_mut(0)[i] += beta * log_p.iter().zip(&log_m).map(|(p, m)| p.exp() * (p - m)).sum::<f32>();
        }
        for (j, d) in d_logits.row_mut(i).iter_mut().enumerate() {
            *d += scale * share * log_q[j].exp() * (excess[j] - mean);
        }
    }
}

fn log_softmax(row: &[f32], temperature: f32) -> Vec<f32> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| ((x - max) / temperature).exp()).sum();
    row.iter().map(|x| (x - max) / temperature - sum.ln()).collect()
}

/// Forward KL from a teacher known by its most likely tokens, the rest of its mass being one bucket.
///
/// Σ_top p ln(p/q) + p_tail ln(p_tail/q_tail), with p_tail = 1 − Σ_top p: a lower bound of the full divergence, exact where
/// the teacher's tail has the student's shape.
///
/// # Shapes and units
/// * `student`: logits, `[R, V]`; `ids`, `logprobs`: `[R, k]`, the teacher's, taken at the same temperature; ids of a row differ.
/// * `weight`: `[1, R]`; `value`: `[1, R]`, overwritten, unweighted, in nats; `d_logits`: `[R, V]`, += weight · gradient.
///
/// # Panics
/// When shapes disagree or an id is not below V.
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
    let (mut value, mut d_logits) = (value, d_logits);
    let _ = queue;
    let (r, vocabulary) = (student.rows(), student.cols());
    assert_eq!((ids.rows(), logprobs.rows()), (r, r), "sparse_forward_kl_rows: ids and logprobs against rows");
    assert_eq!(ids.cols(), logprobs.cols(), "sparse_forward_kl_rows: ids against logprobs");
    assert_eq!((d_logits.rows(), d_logits.cols()), (r, vocabulary), "sparse_forward_kl_rows: d_logits against student");
    assert_eq!((weight.cols(), value.cols()), (r, r), "sparse_forward_kl_rows: weight and value against rows");
    for i in 0..r {
        let log_q = log_softmax(student.row(i), temperature);
        let mut kept = vec![false; vocabulary];
        let (mut sum, mut mass) = (0.0f32, 0.0f32);
        for (&id, &log_p) in ids.row(i).iter().zip(logprobs.row(i)) {
            assert!((id as usize) < vocabulary, "sparse_forward_kl_rows: id {id} of a vocabulary of {vocabulary}");
            kept[id as usize] = true;
            mass += log_p.exp();
            sum += log_p.exp() * (log_p - log_q[id as usize]);
        }
        let p_tail = (1.0 - mass).max(0.0);
        let q_tail: f32 = log_q.iter().zip(&kept).filter(|(_, kept)| !**kept).map(|(q, _)| q.exp()).sum();
        let ratio = if p_tail > 0.0 && q_tail > 0.0 { p_tail / q_tail } else { 0.0 };
        if ratio > 0.0 {
            sum += p_tail * ratio.ln();
        }
        value.row_mut(0)[i] = sum;
        let scale = weight.row(0)[i] / temperature;
        let total = mass + ratio * q_tail;
        let d = d_logits.row_mut(i);
        for j in 0..vocabulary {
            d[j] += scale * log_q[j].exp() * (total - if kept[j] { 0.0 } else { ratio });
        }
        for (&id, &log_p) in ids.row(i).iter().zip(logprobs.row(i)) {
            d[id as usize] -= scale * log_p.exp();
        }
    }
}
