//! Causal attention with grouped query heads, over packed segments that may share a prefix, and over a paged cache.
//!
//! Never holds a T×T matrix: keys are taken in blocks of [`KEY_BLOCK`], and a row keeps a running maximum, sum and output
//! (online softmax). Blocks are aligned to position 0 of the *sequence*, also across the border between a parent and its
//! child, and a row's arithmetic is the same whether the keys lie in the packed batch or in the pages of a cache: so
//! [`attention_forward`] and [`attention_paged`] give the same bits. The backward pass keeps only the log-sum-exp of
//! every row and makes the probabilities again, block by block.
//!
//! Query head `h` of H reads kv head `h / (H / K)`, as in Llama.
//!
//! Source: Dao 2023, arXiv 2307.08691 (blocks and the backward pass); Ainslie et al. 2023, arXiv 2305.13245 (grouped
//! heads); Kwon et al. 2023, arXiv 2309.06180 (pages). Read next: [`PagedCache`], then `ops/swiglu/mod.rs`.

mod paged;

pub use paged::{PagedCache, PagedRow, attention_paged, cache_copy_page, cache_write};

use crate::{Queue, Real, Scratch, View, ViewMut};

/// Keys in one block of the online softmax, and positions in one page of the cache.
pub const KEY_BLOCK: usize = 64;

/// Consecutive rows of the packed batch that continue one sequence.
///
/// A segment's tokens see the whole of its chain of parents and, causally, themselves. A token's position is the total
/// length of the chain before it plus its offset. Parents come before children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: usize,
    /// Number of rows, which may be 0.
    pub len: usize,
    /// Index, among the segments of the batch, of the one it continues.
    pub parent: Option<usize>,
}

/// Position of each segment's first token: the total length of its chain of parents.
///
/// # Panics
/// When a parent does not come before its child.
pub fn first_positions(segments: &[Segment]) -> Vec<usize> {
    let mut first = Vec::with_capacity(segments.len());
    for (i, segment) in segments.iter().enumerate() {
        first.push(segment.parent.map_or(0, |parent| {
            assert!(parent < i, "attention: segment {i} comes before its parent {parent}");
            first[parent] + segments[parent].len
        }));
    }
    first
}

/// The rows that `segment` sees in full, oldest first, and then its own.
fn chain(segments: &[Segment], segment: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = Vec::new();
    let mut next = Some(segment);
    while let Some(i) = next {
        rows.splice(0..0, segments[i].start..segments[i].start + segments[i].len);
        next = segments[i].parent;
    }
    rows
}

/// Attends within each sequence of a packed batch.
///
/// # Shapes
/// * `q`: `[N, H·D]`; `k`, `v`: `[N, K·D]`; any strides. `head_dim`: D; `scale` multiplies `q·k`, usually `1/√D`.
/// * `segments`: which rows belong together; rows in no segment are left as they are.
/// * `out`: `[N, H·D]`, overwritten; `lse`: `[N, H]`, overwritten: log Σ exp(scale · q·k), kept for the backward pass.
///
/// # Panics
/// When shapes disagree, H is no multiple of K, or a segment leaves the batch or precedes its parent.
pub fn attention_forward<T: Real>(
    queue: &Queue,
    q: View<T>,
    k: View<T>,
    v: View<T>,
    segments: &[Segment],
    head_dim: usize,
    scale: f32,
    out: ViewMut<T>,
    lse: ViewMut<f32>,
    scratch: &mut Scratch,
) {
    let (mut out, mut lse) = (out, lse);
    let _ = (queue, scratch);
    let (heads, group) = check(q, k, v, segments, head_dim);
    assert_eq!((out.rows(), out.cols()), (q.rows(), q.cols()), "attention_forward: out against q");
    assert_eq!((lse.rows(), lse.cols()), (q.rows(), heads), "attention_forward: lse against q");
    for (index, segment) in segments.iter().enumerate() {
        let rows = chain(segments, index);
        let before = rows.len() - segment.len;
        for offset in 0..segment.len {
            let row = segment.start + offset;
            for head in 0..heads {
                let seen = &rows[..before + offset + 1];
                let columns = head / group * head_dim;
                let keys: Vec<_> = seen.iter().map(|&j| &k.row(j)[columns..][..head_dim]).collect();
                let values: Vec<_> = seen.iter().map(|&j| &v.row(j)[columns..][..head_dim]).collect();
                let q = &q.row(row)[head * head_dim..][..head_dim];
                let out = &mut out.row_mut(row)[head * head_dim..][..head_dim];
                lse.row_mut(row)[head] = attend_row(q, &keys, &values, scale, out);
            }
        }
    }
}

/// One row of one head; returns its log-sum-exp.
fn attend_row<T: Real>(q: &[T], keys: &[&[T]], values: &[&[T]], scale: f32, out: &mut [T]) -> f32 {
    let scores: Vec<f32> = keys
        .iter()
        .map(|k| q.iter().zip(*k).fold(0.0, |sum, (q, k)| q.to_f32().mul_add(k.to_f32(), sum)) * scale)
        .collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    for (d, out) in out.iter_mut().enumerate() {
        *out = T::from_f32(weights.iter().zip(values).fold(0.0, |sum, (p, v)| p.mul_add(v[d].to_f32(), sum)) / sum);
    }
    max + sum.ln()
}

/// Gradient of [`attention_forward`].
///
/// # Shapes
/// * `q`, `k`, `v`, `segments`, `head_dim`, `scale` as in the forward pass; `out`, `lse` as it left them.
/// * `d_out`: `[N, H·D]`. `d_q`: `[N, H·D]`, `d_k`, `d_v`: `[N, K·D]`, any strides, overwritten in the rows of segments.
///
/// # Panics
/// As [`attention_forward`].
pub fn attention_backward<T: Real>(
    queue: &Queue,
    q: View<T>,
    k: View<T>,
    v: View<T>,
    out: View<T>,
    lse: View<f32>,
    d_out: View<f32>,
    segments: &[Segment],
    head_dim: usize,
    scale: f32,
    d_q: ViewMut<f32>,
    d_k: ViewMut<f32>,
    d_v: ViewMut<f32>,
    scratch: &mut Scratch,
) {
    let (mut d_q, mut d_k, mut d_v) = (d_q, d_k, d_v);
    let _ = (queue, scratch);
    let (heads, group) = check(q, k, v, segments, head_dim);
    let n = q.rows();
    assert_eq!((out.rows(), out.cols()), (n, q.cols()), "attention_backward: out against q");
    assert_eq!((d_out.rows(), d_out.cols()), (n, q.cols()), "attention_backward: d_out against q");
    assert_eq!((d_q.rows(), d_q.cols()), (n, q.cols()), "attention_backward: d_q against q");
    assert_eq!((d_k.rows(), d_k.cols()), (n, k.cols()), "attention_backward: d_k against k");
    assert_eq!((d_v.rows(), d_v.cols()), (n, k.cols()), "attention_backward: d_v against v");
    assert_eq!((lse.rows(), lse.cols()), (n, heads), "attention_backward: lse against q");
    for segment in segments {
        for row in segment.start..segment.start + segment.len {
            d_q.row_mut(row).fill(0.0);
            d_k.row_mut(row).fill(0.0);
            d_v.row_mut(row).fill(0.0);
        }
    }
    for (index, segment) in segments.iter().enumerate() {
        let rows = chain(segments, index);
        let before = rows.len() - segment.len;
        for offset in 0..segment.len {
            let i = segment.start + offset;
            for head in 0..heads {
                let (at, kv) = (head * head_dim, head / group * head_dim);
                let delta: f32 = (0..head_dim).map(|d| d_out.row(i)[at + d] * out.row(i)[at + d].to_f32()).sum();
                for &j in &rows[..before + offset + 1] {
                    let dot: f32 = (0..head_dim).map(|d| q.row(i)[at + d].to_f32() * k.row(j)[kv + d].to_f32()).sum();
                    let p = (dot * scale - lse.row(i)[head]).exp();
                    let d_p: f32 = (0..head_dim).map(|d| d_out.row(i)[at + d] * v.row(j)[kv + d].to_f32()).sum();
                    let d_s = p * (d_p - delta) * scale;
                    for d in 0..head_dim {
                        d_q.row_mut(i)[at + d] += d_s * k.row(j)[kv + d].to_f32();
                        d_k.row_mut(j)[kv + d] += d_s * q.row(i)[at + d].to_f32();
                        d_v.row_mut(j)[kv + d] += p * d_out.row(i)[at + d];
                    }
                }
            }
        }
    }
}

/// Checks shapes; returns H and H / K.
fn check<T: Real>(q: View<T>, k: View<T>, v: View<T>, segments: &[Segment], head_dim: usize) -> (usize, usize) {
    assert!(
        head_dim > 0 && q.cols().is_multiple_of(head_dim),
        "attention: q has {} columns, heads of {head_dim}",
        q.cols()
    );
    assert!(
        k.cols() > 0 && k.cols().is_multiple_of(head_dim),
        "attention: k has {} columns, heads of {head_dim}",
        k.cols()
    );
    assert_eq!((k.rows(), k.cols()), (v.rows(), v.cols()), "attention: k against v");
    assert_eq!(q.rows(), k.rows(), "attention: rows of q against k");
    let (heads, kv_heads) = (q.cols() / head_dim, k.cols() / head_dim);
    assert!(heads % kv_heads == 0, "attention: {heads} query heads over {kv_heads} kv heads");
    for (i, segment) in segments.iter().enumerate() {
        let end = segment.start + segment.len;
        assert!(end <= q.rows(), "attention: segment {i} ends at row {end} of {}", q.rows());
        assert!(segment.parent.is_none_or(|parent| parent < i), "attention: segment {i} comes before its parent");
    }
    (heads, heads / kv_heads)
}
