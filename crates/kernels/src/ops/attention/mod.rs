//! Causal attention with grouped query heads, over packed segments that may share a prefix, and over a paged cache.
//!
//! This is FlashAttention: no T×T matrix is ever stored. The pass goes over keys and values in blocks of [`KEY_BLOCK`]
//! positions. Each query keeps a running maximum m, a running sum, and a running output (online softmax):
//!
//! ```text
//!     for each block of keys:   s    = q·kᵀ for visible keys, −∞ for the others
//!                               m'   = max(m, max s)
//!                               sum' = sum · exp(scale·(m − m')) + Σ exp(scale·(s − m'))
//!                               out' = out · exp(scale·(m − m')) + exp(scale·(s − m')) · v
//!     in the end:               out / sum, and lse = scale·m + ln sum
//! ```
//!
//! # Blocks begin at position 0 of the sequence
//! A block does not begin where a segment or a page begins; it begins at a multiple of [`KEY_BLOCK`] positions from the
//! start of the sequence. So a query's arithmetic is the same wherever its keys are stored: in the packed sequences of
//! [`attention_forward`], behind a shared prompt, or in the pages that [`attention_paged`] reads. The results are equal
//! bit for bit. In this example, block 1 holds the end of the prompt and the beginning of the completion:
//!
//! ```text
//!     prompt, 100 tokens                        completion, 50 tokens
//!     ├──────── block 0 ────────┼──────── block 1 ────────┼──── block 2 ────┤
//!     0                         64        100             128               150     position
//! ```
//!
//! To achieve this, the forward pass first copies the batch's keys and values into pages, as if each segment were a
//! sequence in a cache (`segments.rs`). Then it runs the same code as decoding.
//!
//! The forward pass keeps only the output and the log-sum-exp of every query for the backward pass. The backward pass
//! computes the probabilities again, block by block.
//!
//! Query head `h` of H reads kv head `h / (H / K)`, as in Llama. Packed sequences are several sequences in one batch of
//! N rows, one after the other, without padding; this has nothing to do with the packed weights of [`crate::gemm`].
//!
//! Source: Dao 2023, arXiv 2307.08691 (FlashAttention-2: Algorithm 1, the forward pass, and Algorithm 2, the backward
//! pass); Ainslie et al. 2023, arXiv 2305.13245 (grouped heads); Kwon et al. 2023, arXiv 2309.06180 (pages). Read next:
//! `segments.rs`, `paged.rs`, then `cpu/forward.rs`.

mod cpu;
mod limits;
mod paged;
mod runs;
mod segments;

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;

pub use limits::{KEY_BLOCK, MAX_HEAD_DIM};
pub use paged::{PagedCache, PagedRow, attention_paged, cache_copy_page, cache_write};
pub use segments::Segment;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::check::expect;
use crate::{DType, Isa, Queue, Real, Scratch, View, ViewMut};
use cpu::backward::{Differentiate, Passes, scratch_elements};
use cpu::forward::{Attention, FillPage};
use cpu::{Pages, Rows, RowsMut};
use runs::{attend, push_runs};
use segments::{PagePlan, check_segments, first_positions, trees};

/// Causal attention within each sequence of a batch of packed sequences.
///
/// # Shapes
/// * `q`: `[N, H·D]`; `k`, `v`: `[N, K·D]`; any strides. `head_dim` is D. `scale` multiplies `q·k`; it is positive,
///   usually `1/√D`.
/// * `segments`: which rows belong to the same sequence. Rows that belong to no segment are not written.
/// * `out`: `[N, H·D]`, overwritten. `lse`: `[N, H]`, overwritten with log Σ exp(scale · q·k), which the backward pass
///   needs.
///
/// # Panics
/// When shapes disagree, H is no multiple of K, a head is longer than [`MAX_HEAD_DIM`], the scale is not positive, a
/// segment lies partly outside the batch or comes before its parent, or two segments share a row.
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
    let (heads, group) = check(queue, q, k, v, segments, head_dim);
    expect(queue, "attention_forward: out", &out, q.shape());
    expect(queue, "attention_forward: lse", &lse, (q.rows(), heads));
    let kv_heads = heads / group;
    let first = first_positions(segments);
    let plan = PagePlan::new(segments, &first);
    let page_elements = PagedCache::<T>::page_bytes(kv_heads, head_dim) / size_of::<T>();
    let memory = scratch.elements::<T>(plan.pages.len() * page_elements);
    let pages = Pages::of(memory.as_mut_ptr(), kv_heads, head_dim);
    let (keys, values) = (Rows::of(k), Rows::of(v));
    queue.parallel(plan.pages.len() * kv_heads, |task| {
        let (page, kv_head) = (task / kv_heads, task % kv_heads);
        let (rows, to) = (&plan.pages[page], pages.head(page, kv_head));
        match T::DTYPE {
            DType::Bf16 => queue.isa().run(FillPage::<true> { keys, values, rows, kv_head, head_dim, to }),
            _ => queue.isa().run_without_pairs(FillPage::<false> { keys, values, rows, kv_head, head_dim, to }),
        }
    });
    let mut positions = vec![0; q.rows()];
    let mut runs = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        for (offset, position) in positions[segment.rows()].iter_mut().enumerate() {
            *position = (first[i] + offset) as u32;
        }
        push_runs(&mut runs, segment.rows(), &plan.tables[i]);
    }
    let (out, lse) = (RowsMut::of(&out), RowsMut::of(&lse));
    let attention = Attention { q: Rows::of(q), out, lse: Some(lse), positions: &positions, pages, group, scale };
    attend::<T>(queue, &attention, &runs);
}

/// Gradient of [`attention_forward`].
///
/// # Shapes
/// * `q`, `k`, `v`, `segments`, `head_dim`, `scale`: as in the forward pass. `out`, `lse`: as the forward pass left
///   them.
/// * `d_out`: `[N, H·D]`. `d_q`: `[N, H·D]`; `d_k`, `d_v`: `[N, K·D]`; any strides; overwritten in the rows of
///   segments.
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
    let (heads, group) = check(queue, q, k, v, segments, head_dim);
    expect(queue, "attention_backward: out", &out, q.shape());
    expect(queue, "attention_backward: lse", &lse, (q.rows(), heads));
    expect(queue, "attention_backward: d_out", &d_out, q.shape());
    expect(queue, "attention_backward: d_q", &d_q, q.shape());
    expect(queue, "attention_backward: d_k", &d_k, k.shape());
    expect(queue, "attention_backward: d_v", &d_v, k.shape());
    let trees = trees(segments);
    let kv_heads = heads / group;
    let tasks = trees.len() * kv_heads;
    let workers = queue.threads().min(tasks);
    let pairs = T::DTYPE == DType::Bf16 && queue.isa() == Isa::Avx512Bf16;
    let largest = trees.iter().map(|tree| scratch_elements(pairs, tree.rows, group, head_dim)).max().unwrap_or(0);
    let scratch = SendPtr(scratch.elements::<f32>(workers * largest).as_mut_ptr());
    let next = AtomicUsize::new(0);
    let passes = Passes {
        q: Rows::of(q),
        k: Rows::of(k),
        v: Rows::of(v),
        out: Rows::of(out),
        lse: Rows::of(lse),
        d_out: Rows::of(d_out),
        d_q: RowsMut::of(&d_q),
        d_k: RowsMut::of(&d_k),
        d_v: RowsMut::of(&d_v),
        segments,
        head_dim,
        group,
        scale,
    };
    // Each worker has its own part of the scratch. It takes tasks until none is left.
    queue.parallel(workers, |worker| {
        let scratch = scratch.get().wrapping_add(worker * largest);
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            let (tree, kv_head) = (&trees[task / kv_heads], task % kv_heads);
            if pairs {
                queue.isa().run(Differentiate::<true> { of: &passes, tree, kv_head, scratch });
            } else {
                queue.isa().run_without_pairs(Differentiate::<false> { of: &passes, tree, kv_head, scratch });
            }
        }
    });
}

/// A pointer to the scratch. Each worker uses a part of its own.
struct SendPtr(*mut f32);

// SAFETY: it is only a pointer, and each worker writes its own part.
unsafe impl Sync for SendPtr {}

impl SendPtr {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

/// Checks operands and segments. Returns H and H / K.
fn check<T: Real>(
    queue: &Queue,
    q: View<T>,
    k: View<T>,
    v: View<T>,
    segments: &[Segment],
    head_dim: usize,
) -> (usize, usize) {
    assert!((1..=MAX_HEAD_DIM).contains(&head_dim), "attention: heads of {head_dim}, not of 1 to {MAX_HEAD_DIM}");
    let heads_of = |cols: usize, what: &str| {
        let whole = cols > 0 && cols.is_multiple_of(head_dim);
        assert!(whole, "attention: {cols} columns of {what} are not whole heads of {head_dim}");
        cols / head_dim
    };
    let (heads, kv_heads) = (heads_of(q.cols(), "q"), heads_of(k.cols(), "k"));
    assert!(heads.is_multiple_of(kv_heads), "attention: {heads} query heads over {kv_heads} kv heads");
    expect(queue, "attention: q", &q, q.shape());
    expect(queue, "attention: k", &k, (q.rows(), k.cols()));
    expect(queue, "attention: v", &v, k.shape());
    check_segments(segments, q.rows());
    (heads, heads / kv_heads)
}
