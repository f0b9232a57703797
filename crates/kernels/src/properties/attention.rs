//! Attention over random packed sequences (segments), and over a cache whose pages lie anywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Case, Draw, Kind, check, explore};
use crate::ops::attention::reference::Shape;
use crate::ops::attention::{
    KEY_BLOCK, PagedCache, PagedRow, Segment, attention_backward, attention_forward, attention_paged, cache_copy_page,
    cache_write,
};
use crate::testing::{tolerance, wide};
use crate::{Buffer, Device, Isa, Queue, Real, Scratch, bf16};

/// Segments in any order and with gaps between them, each without a parent or behind an earlier one; and the batch's
/// rows.
fn segments(draw: &Draw) -> (Vec<Segment>, usize) {
    let lens: Vec<usize> =
        (0..draw.below(6)).map(|_| [draw.below(4), draw.below(20), draw.below(150)][draw.below(3)]).collect();
    let mut order: Vec<usize> = (0..lens.len()).collect();
    (1..order.len()).for_each(|i| order.swap(i, draw.below(i + 1)));
    let (mut starts, mut end) = (vec![0; lens.len()], 0);
    for &i in &order {
        starts[i] = end + draw.below(3);
        end = starts[i] + lens[i];
    }
    let segment = |i: usize| {
        let parent = (i > 0 && draw.chance()).then(|| draw.below(i));
        Segment { start: starts[i], len: lens[i], parent }
    };
    ((0..lens.len()).map(segment).collect(), end + draw.below(3))
}

fn shape(draw: &Draw, segments: Vec<Segment>) -> Shape {
    let (kv_heads, group) = (draw.within(1..=3), draw.within(1..=4));
    let head_dim = [draw.within(1..=12), 16, 32, draw.within(17..=80)][draw.below(4)];
    Shape { segments, heads: kv_heads * group, kv_heads, head_dim, scale: 1.3 / (head_dim as f64).sqrt() }
}

/// Replaces the values in rows of no segment with NaN, which means "as before".
fn in_segments(values: Vec<f64>, segments: &[Segment], width: usize) -> Vec<f64> {
    let mut result = vec![f64::NAN; values.len()];
    for segment in segments {
        let at = segment.start * width..(segment.start + segment.len) * width;
        result[at.clone()].copy_from_slice(&values[at]);
    }
    result
}

fn forward_case<T: Real + Kind>(draw: &Draw) -> Case {
    let (segments, n) = segments(draw);
    let shape = shape(draw, segments.clone());
    let (d, scale) = (shape.head_dim, shape.scale as f32);
    let (width, kv_width) = (shape.heads * d, shape.kv_heads * d);
    let (q, k, v) = (draw.numbers::<T>(n * width), draw.numbers::<T>(n * kv_width), draw.numbers::<T>(n * kv_width));
    let (out, lse) = shape.forward(&wide(&q), &wide(&k), &wide(&v));
    let (out, lse) = (in_segments(out, &segments, width), in_segments(lse, &segments, shape.heads));
    let case = Case::new(move |queue, operands| {
        let [q, k, v, out, lse] = operands else { unreachable!() };
        let (q, k, v, out, scratch) =
            (q.view::<T>(), k.view(), v.view(), out.view_mut(), &mut Scratch::new(Device::Cpu));
        attention_forward(queue, q, k, v, &segments, d, scale, out, lse.view_mut(), scratch);
    });
    case.reads(draw, (n, width), &q)
        .reads(draw, (n, kv_width), &k)
        .reads(draw, (n, kv_width), &v)
        .writes::<T>(draw, (n, width), out, tolerance::<T>())
        .writes::<f32>(draw, (n, shape.heads), lse, 5e-6)
}

fn backward_case<T: Real + Kind>(draw: &Draw) -> Case {
    let (segments, n) = segments(draw);
    let shape = shape(draw, segments.clone());
    let (d, scale) = (shape.head_dim, shape.scale as f32);
    let (width, kv_width) = (shape.heads * d, shape.kv_heads * d);
    let (q, k, v) = (draw.numbers::<T>(n * width), draw.numbers::<T>(n * kv_width), draw.numbers::<T>(n * kv_width));
    let d_out = draw.numbers::<f32>(n * width);
    let (out, lse) = shape.forward(&wide(&q), &wide(&k), &wide(&v));
    let out: Vec<T> = out.iter().map(|&x| T::from_f32(x as f32)).collect();
    let lse: Vec<f32> = lse.iter().map(|&x| x as f32).collect();
    let [d_q, d_k, d_v] = shape.backward(&wide(&q), &wide(&k), &wide(&v), &wide(&d_out));
    let (d_q, d_k) = (in_segments(d_q, &segments, width), in_segments(d_k, &segments, kv_width));
    let d_v = in_segments(d_v, &segments, kv_width);
    let case = Case::new(move |queue, operands| {
        let [q, k, v, out, lse, d_out, d_q, d_k, d_v] = operands else { unreachable!() };
        let (q, k, v, out) = (q.view::<T>(), k.view(), v.view(), out.view());
        let (d_q, d_k, d_v) = (d_q.view_mut(), d_k.view_mut(), d_v.view_mut());
        let (lse, d_out, scratch) = (lse.view(), d_out.view(), &mut Scratch::new(Device::Cpu));
        attention_backward(queue, q, k, v, out, lse, d_out, &segments, d, scale, d_q, d_k, d_v, scratch);
    });
    case.reads(draw, (n, width), &q)
        .reads(draw, (n, kv_width), &k)
        .reads(draw, (n, kv_width), &v)
        .reads(draw, (n, width), &out)
        .reads(draw, (n, shape.heads), &lse)
        .reads(draw, (n, width), &d_out)
        .writes::<f32>(draw, (n, width), d_q, 4.0 * tolerance::<T>())
        .writes::<f32>(draw, (n, kv_width), d_k, 4.0 * tolerance::<T>())
        .writes::<f32>(draw, (n, kv_width), d_v, 4.0 * tolerance::<T>())
}

#[test]
fn packed_attention() {
    check(forward_case::<f32>);
    check(forward_case::<bf16>);
}

#[test]
fn packed_attention_backwards() {
    check(backward_case::<f32>);
    check(backward_case::<bf16>);
}

/// A few sequences, one after the other in the rows of k and v, in pages in random order. The last rows of each have
/// queries.
fn paged_case<T: Real + Kind>(draw: &Draw) -> Case {
    let lens: Vec<usize> =
        (0..draw.below(5)).map(|_| [draw.within(1..=5), draw.within(1..=200)][draw.below(2)]).collect();
    let start = |i: usize| lens[..i].iter().sum::<usize>();
    let rows = start(lens.len());
    let one = |i: usize| Segment { start: start(i), len: lens[i], parent: None };
    let shape = shape(draw, (0..lens.len()).map(one).collect());
    let (d, kv_heads, scale) = (shape.head_dim, shape.kv_heads, shape.scale as f32);
    let (width, kv_width) = (shape.heads * d, kv_heads * d);
    let (q, k, v) =
        (draw.numbers::<T>(rows * width), draw.numbers::<T>(rows * kv_width), draw.numbers::<T>(rows * kv_width));
    let all = shape.forward(&wide(&q), &wide(&k), &wide(&v)).0;

    let needed: usize = lens.iter().map(|len| len.div_ceil(KEY_BLOCK)).sum();
    // There is one page more, to which the last page of a sequence is moved.
    let pages = needed + 1 + draw.below(3);
    let mut free: Vec<u32> = (0..pages as u32).collect();
    (1..pages).for_each(|i| free.swap(i, draw.below(i + 1)));
    let mut take = || free.pop().expect("a page");
    let mut tables: Vec<Vec<u32>> =
        lens.iter().map(|len| (0..len.div_ceil(KEY_BLOCK)).map(|_| take()).collect()).collect();
    let slot = |i: usize, p: usize| (tables[i][p / KEY_BLOCK], (p % KEY_BLOCK) as u32);
    let slots: Vec<(u32, u32)> =
        (0..lens.len()).flat_map(|i| (0..lens[i]).map(move |p| (i, p))).map(|(i, p)| slot(i, p)).collect();
    let moved = tables.iter_mut().flatten().last().map(|page| (std::mem::replace(page, take()), *page));

    let mut asked: Vec<PagedRow> = Vec::new();
    for (sequence, &len) in lens.iter().enumerate() {
        let count = draw.within(1..=len.min(7));
        asked.extend((len - count..len).map(|position| PagedRow { sequence, position }));
    }
    let row =
        |at: &PagedRow| (start(at.sequence) + at.position) * width..(start(at.sequence) + at.position + 1) * width;
    let queries: Vec<T> = asked.iter().flat_map(|at| q[row(at)].to_vec()).collect();
    let wanted: Vec<f64> = asked.iter().flat_map(|at| all[row(at)].to_vec()).collect();
    let count = asked.len();
    let case = Case::new(move |queue, operands| {
        let [k, v, q, out] = operands else { unreachable!() };
        let mut cache = PagedCache::<T>::new(Device::Cpu, pages, kv_heads, d);
        cache_write(queue, k.view(), v.view(), &slots, &mut cache);
        if let Some((from, to)) = moved {
            cache_copy_page(queue, &mut cache, from, to);
        }
        let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        attention_paged(queue, q.view::<T>(), &asked, &tables, &cache, d, scale, out.view_mut());
    });
    case.reads(draw, (rows, kv_width), &k)
        .reads(draw, (rows, kv_width), &v)
        .reads(draw, (count, width), &queries)
        .writes::<T>(draw, (count, width), wanted, tolerance::<T>())
}

#[test]
fn paged_attention() {
    check(paged_case::<f32>);
    check(paged_case::<bf16>);
}

fn is_refused(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// Segments that may leave the batch, overflow, share rows or come before their parents. They must be refused if and
/// only if they do.
#[test]
fn impossible_segments_are_refused() {
    let (queue, n) = (Queue::cpu(2, Isa::available()[0]), 12);
    explore(20, |draw| {
        let size = |most: usize| if draw.below(16) == 15 { usize::MAX - draw.below(3) } else { draw.below(most) };
        let parent = |i: usize| draw.chance().then(|| draw.below(if draw.below(8) == 7 { i + 1 } else { i.max(1) }));
        let segment = |i: usize| Segment { start: size(13), len: size(5), parent: parent(i).filter(|_| i > 0) };
        let segments: Vec<Segment> = (0..draw.below(4)).map(segment).collect();
        let mut taken = [false; 12];
        let possible = segments.iter().enumerate().all(|(i, segment)| {
            let inside = segment.start <= n && segment.len <= n - segment.start;
            let later = segment.parent.is_none_or(|parent| parent < i);
            inside && later && segment.rows().all(|row| !std::mem::replace(&mut taken[row], true))
        });
        let x = Buffer::<f32>::zeros(Device::Cpu, n * 4);
        let (mut out, mut lse) = (Buffer::<f32>::zeros(Device::Cpu, n * 4), Buffer::<f32>::zeros(Device::Cpu, n));
        let (x, scratch) = (x.matrix(n, 4), &mut Scratch::new(Device::Cpu));
        let refused = is_refused(|| {
            let (out, lse) = (out.matrix_mut(n, 4), lse.matrix_mut(n, 1));
            attention_forward(&queue, x, x, x, &segments, 4, 0.5, out, lse, scratch);
        });
        assert_eq!(refused, !possible, "forward over {segments:?}");
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|()| Buffer::<f32>::zeros(Device::Cpu, n * 4));
        let refused = is_refused(|| {
            let (d_q, d_k, d_v) = (d_q.matrix_mut(n, 4), d_k.matrix_mut(n, 4), d_v.matrix_mut(n, 4));
            let lse = lse.matrix(n, 1);
            attention_backward(&queue, x, x, x, x, lse, x, &segments, 4, 0.5, d_q, d_k, d_v, scratch);
        });
        assert_eq!(refused, !possible, "backward over {segments:?}");
    });
}

/// Slots, tables and rows that may name places outside the cache, or the same place twice. They must be refused if and
/// only if they do.
#[test]
fn impossible_places_in_a_cache_are_refused() {
    let (queue, d) = (Queue::cpu(2, Isa::available()[0]), 3);
    explore(20, |draw| {
        let pages = draw.within(1..=3);
        let mut cache = PagedCache::<bf16>::new(Device::Cpu, pages, 1, d);
        let rows = draw.below(5);
        let x = Buffer::<bf16>::zeros(Device::Cpu, rows * d);
        let slots: Vec<(u32, u32)> =
            (0..rows).map(|_| (draw.below(4) as u32, [draw.below(4), draw.below(70)][draw.below(2)] as u32)).collect();
        let inside = slots.iter().all(|slot| (slot.0 as usize) < pages && (slot.1 as usize) < KEY_BLOCK);
        let ordered = (0..rows).all(|i| {
            (0..i).all(|j| {
                let same = slots[i].0 == slots[j].0;
                !same || slots[j].1 < slots[i].1 && slots[j..i].iter().all(|slot| slot.0 == slots[i].0)
            })
        });
        let refused = is_refused(|| cache_write(&queue, x.matrix(rows, d), x.matrix(rows, d), &slots, &mut cache));
        assert_eq!(refused, !(inside && ordered), "writing {slots:?} of {pages} pages");

        let table: Vec<u32> = (0..draw.below(3)).map(|_| draw.below(4) as u32).collect();
        let asked: Vec<PagedRow> = (0..rows)
            .map(|_| PagedRow {
                sequence: [0, 0, 0, 1][draw.below(4)],
                position: [draw.below(70), draw.below(200)][draw.below(2)],
            })
            .collect();
        let possible = table.iter().all(|&page| (page as usize) < pages)
            && asked.iter().all(|row| row.sequence == 0 && row.position / KEY_BLOCK < table.len());
        let mut out = Buffer::<bf16>::zeros(Device::Cpu, rows * d);
        let refused = is_refused(|| {
            let (q, out) = (x.matrix(rows, d), out.matrix_mut(rows, d));
            attention_paged(&queue, q, &asked, &[&table], &cache, d, 0.5, out);
        });
        assert_eq!(refused, !possible, "asking {asked:?} over {table:?} of {pages} pages");

        let (from, to) = (draw.below(4), draw.below(4));
        let refused = is_refused(|| cache_copy_page(&queue, &mut cache, from as u32, to as u32));
        assert_eq!(refused, from.max(to) >= pages, "copying {from} to {to} of {pages} pages");
    });
}
