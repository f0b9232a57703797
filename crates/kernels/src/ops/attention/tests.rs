//! Attention against f64, and the equalities that it promises.

use super::reference::Shape;
use super::*;
use crate::testing::{assert_close, assert_same_bits, central_differences, queues, random, tolerance, wide};
use crate::{Buffer, Device, bf16};

fn segment(start: usize, len: usize, parent: Option<usize>) -> Segment {
    Segment { start, len, parent }
}

/// Batches that are likely to show errors: single tokens, borders inside a block, siblings, chains, empty segments.
fn batches() -> Vec<Vec<Segment>> {
    vec![
        vec![],
        vec![segment(0, 1, None)],
        vec![segment(0, 1, None), segment(1, 70, None), segment(71, 5, None), segment(76, 64, None)],
        vec![segment(30, 100, None), segment(0, 7, Some(0)), segment(7, 1, Some(0)), segment(8, 22, Some(1))],
        vec![segment(0, 64, None), segment(64, 65, Some(0)), segment(129, 3, Some(1)), segment(132, 4, Some(1))],
        vec![segment(0, 0, None), segment(0, 3, Some(0)), segment(3, 0, Some(1)), segment(3, 150, Some(2))],
    ]
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (i, segments) in batches().into_iter().enumerate() {
        for (j, head_dim) in [12, 20, 32, 64, 80, 128, 33, 256].into_iter().enumerate() {
            if (i + j) % 2 == 1 {
                continue;
            }
            let (heads, kv_heads) = [(1, 1), (6, 2), (4, 4), (7, 1), (2, 1)][(i + 2 * j) % 5];
            shapes.push(Shape {
                segments: segments.clone(),
                heads,
                kv_heads,
                head_dim,
                scale: 1.7 / (head_dim as f64).sqrt(),
            });
        }
    }
    shapes
}

fn rows(shape: &Shape) -> usize {
    shape.segments.iter().map(|s| s.start + s.len).max().unwrap_or(0)
}

/// Queries, keys and values side by side in one matrix, as the projection writes them.
struct Problem<T: Real> {
    shape: Shape,
    n: usize,
    qkv: Vec<T>,
    d_out: Vec<f32>,
}

/// The results of the operations.
struct Solution<T> {
    out: Vec<T>,
    lse: Vec<f32>,
    d_qkv: Vec<f32>,
}

impl<T: Real> Problem<T> {
    fn new(shape: Shape) -> Self {
        let n = rows(&shape);
        let (width, q_width) = ((shape.heads + 2 * shape.kv_heads) * shape.head_dim, shape.heads * shape.head_dim);
        Self { shape, n, qkv: random(7, n * width), d_out: random(8, n * q_width) }
    }

    fn widths(&self) -> (usize, usize) {
        (self.shape.heads * self.shape.head_dim, self.shape.kv_heads * self.shape.head_dim)
    }

    fn views(&self) -> [View<'_, T>; 3] {
        let (q, kv) = self.widths();
        let all = View::of(&self.qkv, self.n, q + 2 * kv);
        [all.col_range(0..q), all.col_range(q..q + kv), all.col_range(q + kv..q + 2 * kv)]
    }

    /// q, k and v in f64, without gaps.
    fn wide(&self) -> [Vec<f64>; 3] {
        self.views().map(|view| (0..self.n).flat_map(|i| wide(view.row(i))).collect())
    }

    fn solve(&self, queue: &Queue) -> Solution<T> {
        let Shape { segments, heads, head_dim, scale, .. } = &self.shape;
        let ((q_width, kv_width), [q, k, v], scale) = (self.widths(), self.views(), *scale as f32);
        let mut out = vec![T::default(); self.n * q_width];
        let mut lse = vec![0.0; self.n * heads];
        let mut scratch = Scratch::new(Device::Cpu);
        scratch.elements::<f32>(1 << 16).fill(f32::NAN);
        let view = ViewMut::of(&mut out, self.n, q_width);
        let lse_view = ViewMut::of(&mut lse, self.n, *heads);
        attention_forward(queue, q, k, v, segments, *head_dim, scale, view, lse_view, &mut scratch);
        let mut d_qkv = vec![f32::NAN; self.qkv.len()];
        let (d_q, rest) = ViewMut::of(&mut d_qkv, self.n, q_width + 2 * kv_width).split_cols(q_width);
        let (d_k, d_v) = rest.split_cols(kv_width);
        let (out_view, lse_view) = (View::of(&out, self.n, q_width), View::of(&lse, self.n, *heads));
        let d_out = View::of(&self.d_out, self.n, q_width);
        attention_backward(
            queue,
            q,
            k,
            v,
            out_view,
            lse_view,
            d_out,
            segments,
            *head_dim,
            scale,
            d_q,
            d_k,
            d_v,
            &mut scratch,
        );
        Solution { out, lse, d_qkv }
    }

    /// Runs each segment, with its chain of parents, as a sequence of its own in a cache, `rows_per_call` rows at a
    /// time.
    fn solve_paged(&self, queue: &Queue, rows_per_call: usize) -> Vec<T> {
        let Shape { segments, kv_heads, head_dim, scale, .. } = &self.shape;
        let (width, first) = (self.widths().0, first_positions(segments));
        let mut out = vec![T::default(); self.n * width];
        let [q, k, v] = self.views();
        for (i, segment) in segments.iter().enumerate() {
            let total = first[i] + segment.len;
            let pages = total.div_ceil(KEY_BLOCK) + 1;
            let mut cache = PagedCache::<T>::new(Device::Cpu, pages, *kv_heads, *head_dim);
            // The pages are in reverse order, so that code which ignores the table fails.
            let table: Vec<u32> = (0..pages as u32).rev().collect();
            let mut chain = vec![i];
            while let Some(parent) = segments[chain[chain.len() - 1]].parent {
                chain.push(parent);
            }
            for &part in chain.iter().rev() {
                let (rows, first) = (segments[part].rows(), first[part]);
                let slots: Vec<(u32, u32)> =
                    (first..first + rows.len()).map(|p| (table[p / KEY_BLOCK], (p % KEY_BLOCK) as u32)).collect();
                cache_write(queue, k.row_range(rows.clone()), v.row_range(rows), &slots, &mut cache);
            }
            for start in (0..segment.len).step_by(rows_per_call) {
                let count = rows_per_call.min(segment.len - start);
                let paged: Vec<PagedRow> =
                    (start..start + count).map(|o| PagedRow { sequence: 0, position: first[i] + o }).collect();
                let at = segment.start + start;
                let view = ViewMut::of(&mut out, self.n, width).row_range(at..at + count);
                let (q, scale) = (q.row_range(at..at + count), *scale as f32);
                attention_paged(queue, q, &paged, &[&table], &cache, *head_dim, scale, view);
            }
        }
        out
    }

    fn check_values(&self) {
        let [q, k, v] = self.wide();
        let (out, lse) = self.shape.forward(&q, &k, &v);
        let gradients = self.shape.backward(&q, &k, &v, &wide(&self.d_out));
        let (q_width, kv_width) = self.widths();
        // One queue of each path. Another test checks that the number of threads changes nothing.
        for queue in queues().iter().step_by(2) {
            let what = format!("{} {:?}", queue.isa().name(), self.shape);
            let got = self.solve(queue);
            assert_close(&format!("out {what}"), &got.out, &out, tolerance::<T>());
            assert_close(&format!("lse {what}"), &got.lse, &lse, 5e-6);
            let mut start = 0;
            for (name, (wanted, width)) in
                ["d_q", "d_k", "d_v"].iter().zip(gradients.iter().zip([q_width, kv_width, kv_width]))
            {
                let d = View::of(&got.d_qkv, self.n, q_width + 2 * kv_width).col_range(start..start + width);
                let d: Vec<f32> = (0..self.n).flat_map(|i| d.row(i).to_vec()).collect();
                // δ is computed from the stored output, and in bf16 the rounding of that output enters every gradient.
                assert_close(&format!("{name} {what}"), &d, wanted, 4.0 * tolerance::<T>());
                start += width;
            }
        }
    }

    fn check_equalities(&self) {
        for pair in queues().chunks(2) {
            let (one, three) = (self.solve(&pair[0]), self.solve(&pair[1]));
            let what = format!("{} {:?}", pair[0].isa().name(), self.shape);
            assert_same_bits(&format!("out by threads {what}"), &three.out, &one.out);
            assert_same_bits(&format!("gradients by threads {what}"), &three.d_qkv, &one.d_qkv);
            for rows_per_call in [1, 5, 1000] {
                let paged = self.solve_paged(&pair[1], rows_per_call);
                assert_same_bits(&format!("paged by {rows_per_call} {what}"), &paged, &one.out);
            }
        }
    }
}

#[test]
fn values_and_gradients_equal_the_reference() {
    for shape in shapes() {
        Problem::<f32>::new(shape.clone()).check_values();
        Problem::<bf16>::new(shape).check_values();
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_on_the_cache() {
    for shape in shapes() {
        Problem::<f32>::new(shape.clone()).check_equalities();
        Problem::<bf16>::new(shape).check_equalities();
    }
}

#[test]
fn bits_do_not_depend_on_packing_or_on_sharing_the_prompt() {
    // Two completions that share one prompt are compared with each completion alone behind its own copy of the prompt.
    let shape = |segments| Shape { segments, heads: 4, kv_heads: 2, head_dim: 20, scale: 0.2 };
    let shared =
        Problem::<f32>::new(shape(vec![segment(0, 90, None), segment(90, 9, Some(0)), segment(99, 50, Some(0))]));
    let width = shared.qkv.len() / shared.n;
    for queue in queues() {
        let whole = shared.solve(&queue).out;
        for rows in [90..99, 99..149] {
            let mut single = Problem::<f32>::new(shape(vec![segment(0, 90 + rows.len(), None)]));
            single.qkv = [&shared.qkv[..90 * width], &shared.qkv[rows.start * width..rows.end * width]].concat();
            let out = single.solve(&queue).out;
            assert_same_bits("completion", &out[90 * 80..], &whole[rows.start * 80..rows.end * 80]);
            assert_same_bits("prompt", &out[..90 * 80], &whole[..90 * 80]);
        }
    }
}

#[test]
fn the_reference_gradient_is_the_derivative_of_the_reference() {
    let segments = vec![segment(0, 3, None), segment(3, 2, Some(0)), segment(5, 2, Some(0)), segment(7, 2, None)];
    let shape = Shape { segments, heads: 2, kv_heads: 1, head_dim: 3, scale: 0.7 };
    let problem = Problem::<f32>::new(shape.clone());
    let ([q, k, v], d_out) = (problem.wide(), wide(&problem.d_out));
    let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
        shape.forward(q, k, v).0.iter().zip(&d_out).map(|(out, d)| out * d).sum()
    };
    let [d_q, d_k, d_v] = shape.backward(&q, &k, &v, &d_out);
    assert_close("d_q", &narrow(&d_q), &central_differences(&q, |q| loss(q, &k, &v)), 1e-6);
    assert_close("d_k", &narrow(&d_k), &central_differences(&k, |k| loss(&q, k, &v)), 1e-6);
    assert_close("d_v", &narrow(&d_v), &central_differences(&v, |v| loss(&q, &k, v)), 1e-6);
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

#[test]
fn sequences_of_a_decode_step_do_not_touch_each_other() {
    let (queue, d) = (Queue::cpu(2, crate::Isa::available()[0]), 16);
    let mut cache = PagedCache::<f32>::new(Device::Cpu, 4, 1, d);
    let kv: Vec<f32> = random(3, 4 * d);
    let slots = [(2, 0), (2, 1), (0, 0), (1, 5)];
    cache_write(&queue, View::of(&kv, 4, d), View::of(&kv, 4, d), &slots, &mut cache);
    let step = |tables: &[&[u32]], rows: &[PagedRow], cache: &PagedCache<f32>| {
        let q: Vec<f32> = random(4, d).repeat(rows.len());
        let mut out = Buffer::<f32>::zeros(Device::Cpu, rows.len() * d);
        let (q, view) = (View::of(&q, rows.len(), d), out.matrix_mut(rows.len(), d));
        attention_paged(&queue, q, rows, tables, cache, d, 0.3, view);
        out.to_host()
    };
    let row = |sequence, position| PagedRow { sequence, position };
    let both = step(&[&[2], &[0, 3]], &[row(0, 1), row(1, 0)], &cache);
    assert_same_bits("first", &both[..d], &step(&[&[2]], &[row(0, 1)], &cache));
    assert_same_bits("second", &both[d..], &step(&[&[0]], &[row(0, 0)], &cache));
    assert_same_bits("one key", &both[d..], &kv[2 * d..3 * d]);
    cache_copy_page(&queue, &mut cache, 2, 3);
    assert_same_bits("copied", &both[..d], &step(&[&[3]], &[row(0, 1)], &cache));
}

/// Compares a decode step of many sequences, in which tasks take several kv heads at a time, with each of its rows
/// alone.
fn check_many_sequences<T: Real>(heads: usize, kv_heads: usize, d: usize) {
    let lengths: Vec<usize> = (0..40).map(|i| 1 + i * 29 % 150).collect();
    for queue in queues() {
        let pages = 3 * lengths.len();
        let mut cache = PagedCache::<T>::new(Device::Cpu, pages, kv_heads, d);
        let tables: Vec<[u32; 3]> = (0..lengths.len() as u32).map(|i| [i, 119 - i, i + 40]).collect();
        for (table, &len) in tables.iter().zip(&lengths) {
            let slots: Vec<(u32, u32)> = (0..len).map(|p| (table[p / KEY_BLOCK], (p % KEY_BLOCK) as u32)).collect();
            let [k, v]: [Vec<T>; 2] = [5, 6].map(|salt| random(salt + table[0] as u64, len * kv_heads * d));
            let view = |x| View::of(x, len, kv_heads * d);
            cache_write(&queue, view(&k), view(&v), &slots, &mut cache);
        }
        let tables: Vec<&[u32]> = tables.iter().map(|table| &table[..]).collect();
        let rows: Vec<PagedRow> =
            lengths.iter().enumerate().map(|(sequence, len)| PagedRow { sequence, position: len - 1 }).collect();
        let q: Vec<T> = random(4, rows.len() * heads * d);
        let q = View::of(&q, rows.len(), heads * d);
        let attend = |rows: &[PagedRow], q: View<T>| {
            let mut out = vec![T::default(); rows.len() * heads * d];
            let view = ViewMut::of(&mut out, rows.len(), heads * d);
            attention_paged(&queue, q, rows, &tables, &cache, d, 0.3, view);
            out
        };
        let together = attend(&rows, q);
        for (i, row) in rows.iter().enumerate() {
            let alone = attend(&[*row], q.row_range(i..i + 1));
            assert_same_bits(queue.isa().name(), &together[i * heads * d..][..heads * d], &alone);
        }
    }
}

#[test]
fn bits_of_a_decode_step_do_not_depend_on_its_other_sequences() {
    for (heads, kv_heads, d) in [(9, 3, 33), (4, 4, 32), (10, 2, 1), (8, 4, 64)] {
        check_many_sequences::<f32>(heads, kv_heads, d);
        check_many_sequences::<bf16>(heads, kv_heads, d);
    }
}

#[test]
fn a_page_that_is_used_again_shows_nothing_of_what_it_held() {
    for queue in queues() {
        let d = 20;
        let mut cache = PagedCache::<bf16>::new(Device::Cpu, 1, 1, d);
        let [broken, kv] = [vec![bf16::INFINITY; 2 * d], random(3, d)];
        let view = View::of(&broken, 2, d);
        cache_write(&queue, view, view, &[(0, 0), (0, 1)], &mut cache);
        let view = View::of(&kv, 1, d);
        cache_write(&queue, view, view, &[(0, 0)], &mut cache);
        let (row, mut out) = (PagedRow { sequence: 0, position: 0 }, vec![bf16::ZERO; d]);
        let (q, out_view) = (View::of(&kv, 1, d), ViewMut::of(&mut out, 1, d));
        attention_paged(&queue, q, &[row], &[&[0]], &cache, d, 0.3, out_view);
        assert_same_bits(queue.isa().name(), &out, &kv);
    }
}

#[test]
#[should_panic(expected = "rows of one page apart from each other")]
fn rows_of_one_page_are_written_together() {
    write_to(&[(0, 0), (1, 0), (0, 1)]);
}

#[test]
#[should_panic(expected = "offsets of one page in another order")]
fn rows_of_one_page_are_written_in_order() {
    write_to(&[(1, 0), (0, 1), (0, 0)]);
}

fn write_to(slots: &[(u32, u32)]) {
    let mut cache = PagedCache::<f32>::new(Device::Cpu, 2, 1, 1);
    let view = View::of(&[1.0; 3], 3, 1);
    let queue = Queue::cpu(1, crate::Isa::available()[0]);
    cache_write(&queue, view, view, slots, &mut cache);
}
