//! The tasks of attention: runs of rows over pages of keys and values.

use std::ops::Range;

use super::cpu::forward::{Attend, Attention, heads_together};
use crate::{DType, Queue, Real};

/// Consecutive rows of one sequence that go to one task: for one kv head, or for several kv heads if the rows are few.
pub(super) struct Run<'a> {
    pub rows: Range<usize>,
    pub table: &'a [u32],
}

/// Most rows of a run. It is small enough that one long sequence still keeps all threads busy.
const RUN: usize = 96;

/// Cuts the rows of one sequence into runs.
pub(super) fn push_runs<'a>(runs: &mut Vec<Run<'a>>, rows: Range<usize>, table: &'a [u32]) {
    for start in rows.clone().step_by(RUN) {
        runs.push(Run { rows: start..rows.end.min(start + RUN), table });
    }
}

/// Computes attention for runs of rows over pages of T. [`super::attention_forward`] and [`super::attention_paged`]
/// both end here.
pub(super) fn attend<T: Real>(queue: &Queue, attention: &Attention, runs: &[Run]) {
    assert!(attention.scale > 0.0, "attention: a scale of {}", attention.scale);
    let kv_heads = attention.pages.kv_heads;
    // Make about eight tasks for each thread, so that no thread waits long for another.
    let fair = (runs.len() * kv_heads).div_ceil(8 * queue.threads()).min(kv_heads);
    let mut tasks = Vec::with_capacity(runs.len());
    for run in runs {
        let most = heads_together(run.rows.len() * attention.group).min(fair);
        tasks.extend((0..kv_heads).step_by(most).map(|head| (run, head..kv_heads.min(head + most))));
    }
    queue.parallel(tasks.len(), |task| {
        let (Run { rows, table }, kv_heads) = tasks[task].clone();
        let rows = rows.clone();
        match T::DTYPE {
            DType::Bf16 => queue.isa().run(Attend::<true> { of: attention, rows, kv_heads, table }),
            _ => queue.isa().run_without_pairs(Attend::<false> { of: attention, rows, kv_heads, table }),
        }
    });
}
