//! Times each operation at two shapes: the reference of `bench/` (hidden 256, 8 heads of 32), and SmolLM2-135M's.
//!
//! `cargo bench -p kernels --bench ops [-- FILTER]`; `FERULE_ISA` selects the instruction path, `FERULE_THREADS` the
//! number of threads (2 by default), `FERULE_SEQUENCES` the number of sequences of 256 tokens (8 by default; use 1 on a
//! busy machine, for shorter runs). Every figure is the best of many short runs, so that other work on the machine
//! matters little. For operations that compute, the figures are GFLOP/s and the share of the peak of fused
//! multiply-adds that is measured here. For operations that move data, they are GB/s of the bytes that must be read and
//! written.

use std::hint::black_box;
use std::time::Instant;

use kernels::ops::adamw::{AdamW, adamw, squared_norm};
use kernels::ops::attention::{
    KEY_BLOCK, PagedCache, PagedRow, Segment, attention_backward, attention_forward, attention_paged, cache_write,
};
use kernels::ops::elementwise::{add, convert};
use kernels::ops::embedding::embedding_backward;
use kernels::ops::head::{
    Divergence, divergence_rows, head_gradient, head_statistics, sparse_forward_kl_rows, top_k_rows,
};
use kernels::ops::head_norm::head_norm_forward;
use kernels::ops::rmsnorm::{rmsnorm_backward, rmsnorm_forward};
use kernels::ops::rotary::{rotary_forward, rotary_table};
use kernels::ops::swiglu::{swiglu_backward, swiglu_forward};
use kernels::peak;
use kernels::{Buffer, DType, Device, Isa, Queue, Real, Scratch, bf16};

struct Bench {
    queue: Queue,
    filter: String,
    peak_gflops: f64,
    sequences: usize,
}

fn random<T: Real>(len: usize) -> Buffer<T> {
    let mut state = 1u64;
    let values: Vec<T> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            T::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect();
    Buffer::from_host(Device::Cpu, &values)
}

/// Seconds of the fastest run, out of as many as fit in 0.4 s.
fn best(mut run: impl FnMut()) -> f64 {
    let (mut best, begin) = (f64::INFINITY, Instant::now());
    let mut runs = 0;
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

impl Bench {
    fn flops(&self, name: &str, flops: f64, run: impl FnMut()) {
        if name.contains(&self.filter) {
            let seconds = best(run);
            let gflops = flops / seconds / 1e9;
            println!(
                "{name:<44} {:9.1} µs {gflops:7.1} GFLOP/s {:5.1}%",
                seconds * 1e6,
                100.0 * gflops / self.peak_gflops
            );
        }
    }

    fn bytes(&self, name: &str, bytes: usize, run: impl FnMut()) {
        if name.contains(&self.filter) {
            let seconds = best(run);
            println!("{name:<44} {:9.1} µs {:7.1} GB/s", seconds * 1e6, bytes as f64 / seconds / 1e9);
        }
    }
}

fn attention<T: Real>(bench: &Bench, dtype: &str, heads: usize, kv_heads: usize, d: usize) {
    let (sequences, t) = (bench.sequences, 256);
    let n = sequences * t;
    let segments: Vec<_> = (0..sequences).map(|i| Segment { start: i * t, len: t, parent: None }).collect();
    let (q_width, kv_width) = (heads * d, kv_heads * d);
    let width = q_width + 2 * kv_width;
    let qkv = random::<T>(n * width);
    let all = qkv.matrix(n, width);
    let (q, k) = (all.col_range(0..q_width), all.col_range(q_width..q_width + kv_width));
    let v = all.col_range(q_width + kv_width..width);
    let mut out = Buffer::<T>::zeros(Device::Cpu, n * q_width);
    let mut lse = Buffer::<f32>::zeros(Device::Cpu, n * heads);
    let mut scratch = Scratch::new(Device::Cpu);
    let scale = 1.0 / (d as f32).sqrt();
    let pairs = (sequences * heads * t * (t + 1) / 2) as f64;
    let name = |what: &str| format!("attention_{what} {dtype} {heads}/{kv_heads} heads of {d}");
    let queue = &bench.queue;
    let mut forward = |out: &mut Buffer<T>, lse: &mut Buffer<f32>| {
        let (out, lse) = (out.matrix_mut(n, q_width), lse.matrix_mut(n, heads));
        attention_forward(queue, q, k, v, &segments, d, scale, out, lse, &mut scratch);
    };
    forward(&mut out, &mut lse);
    bench.flops(&name("forward"), pairs * 4.0 * d as f64, || forward(&mut out, &mut lse));
    let d_out = random::<f32>(n * q_width);
    let mut d_qkv = Buffer::<f32>::zeros(Device::Cpu, n * width);
    bench.flops(&name("backward"), pairs * 10.0 * d as f64, || {
        let (d_q, rest) = d_qkv.matrix_mut(n, width).split_cols(q_width);
        let (d_k, d_v) = rest.split_cols(kv_width);
        let (out, lse, d_out) = (out.matrix(n, q_width), lse.matrix(n, heads), d_out.matrix(n, q_width));
        attention_backward(queue, q, k, v, out, lse, d_out, &segments, d, scale, d_q, d_k, d_v, &mut scratch);
    });
    for (rows, position) in [(1, 159), (32, 159), (256, 159)] {
        decode::<T>(bench, dtype, heads, kv_heads, d, rows, position);
    }
}

fn decode<T: Real>(bench: &Bench, dtype: &str, heads: usize, kv_heads: usize, d: usize, rows: usize, position: usize) {
    let pages = position / KEY_BLOCK + 1;
    // Written before it is read: pages that were never written are all the same physical page of zeros.
    let mut cache = PagedCache::<T>::new(Device::Cpu, rows * pages, kv_heads, d);
    let (place, width) = (KEY_BLOCK as u32, kv_heads * d);
    let slots: Vec<(u32, u32)> = (0..(rows * pages) as u32 * place).map(|i| (i / place, i % place)).collect();
    let content = random::<T>(slots.len() * width);
    let content = content.matrix(slots.len(), width);
    cache_write(&bench.queue, content, content, &slots, &mut cache);
    let tables: Vec<Vec<u32>> = (0..rows).map(|i| (0..pages).map(|p| (i * pages + p) as u32).collect()).collect();
    let tables: Vec<&[u32]> = tables.iter().map(|t| &t[..]).collect();
    let paged: Vec<_> = (0..rows).map(|sequence| PagedRow { sequence, position }).collect();
    let q = random::<T>(rows * heads * d);
    let mut out = Buffer::<T>::zeros(Device::Cpu, rows * heads * d);
    let bytes = rows * (position + 1) * kv_heads * d * 2 * size_of::<T>();
    let name = format!("attention_paged {dtype} {heads}/{kv_heads} heads of {d}, {rows} rows");
    bench.bytes(&name, bytes, || {
        let (q, out) = (q.matrix(rows, heads * d), out.matrix_mut(rows, heads * d));
        attention_paged(&bench.queue, q, &paged, &tables, &cache, d, 0.2, out);
    });
}

/// Operations on rows: N rows of C (or 2F, or heads·D, or V) elements.
fn rows<T: Real>(bench: &Bench, dtype: &str, c: usize, f: usize, heads: usize, d: usize, v: usize) {
    let (queue, n, width) = (&bench.queue, 256 * bench.sequences, size_of::<T>());
    let name = |what: &str, cols: usize| format!("{what} {dtype} {n}×{cols}");
    let (x, mut y) = (random::<f32>(n * c), random::<f32>(n * c));
    let weight = random::<f32>(c);
    let mut out = Buffer::<T>::zeros(Device::Cpu, n * c);
    let mut rstd = Buffer::<f32>::zeros(Device::Cpu, n * heads);
    let x = x.matrix(n, c);
    bench.bytes(&name("rmsnorm_forward", c), n * c * (4 + width), || {
        rmsnorm_forward(queue, x, weight.view(), 1e-5, out.matrix_mut(n, c), rstd.matrix_mut(1, n));
    });
    let mut d_weight = Buffer::<f32>::zeros(Device::Cpu, c);
    let d_out = random::<f32>(n * c);
    bench.bytes(&name("rmsnorm_backward", c), n * c * 24, || {
        let (d_x, d_weight) = (y.matrix_mut(n, c), d_weight.view_mut());
        rmsnorm_backward(queue, x, weight.view(), rstd.matrix(1, n), d_out.matrix(n, c), d_x, d_weight);
    });
    let mut q = random::<T>(n * heads * d);
    let norm = random::<f32>(d);
    let mut normal = Buffer::<T>::zeros(Device::Cpu, n * heads * d);
    bench.bytes(&name("head_norm_forward", heads * d), n * heads * d * 2 * width, || {
        let (out, rstd) = (normal.matrix_mut(n, heads * d), rstd.matrix_mut(n, heads));
        head_norm_forward(queue, q.matrix(n, heads * d), norm.view(), 1e-5, out, rstd);
    });
    let frequencies: Vec<f64> = (0..d / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / d as f64)).collect();
    let table = rotary_table(Device::Cpu, &frequencies, 256);
    let positions: Vec<u32> = (0..n as u32).map(|i| i % 256).collect();
    let positions = queue.upload(&positions);
    bench.bytes(&name("rotary_forward", heads * d), n * heads * d * 2 * width, || {
        rotary_forward(queue, q.matrix_mut(n, heads * d), positions.view(), table.matrix(256, d));
    });
    let gate_up = random::<T>(n * 2 * f);
    let mut gated = Buffer::<T>::zeros(Device::Cpu, n * f);
    bench.bytes(&name("swiglu_forward", f), n * f * 3 * width, || {
        swiglu_forward(queue, gate_up.matrix(n, 2 * f), gated.matrix_mut(n, f));
    });
    let d_gated = random::<f32>(n * f);
    // The operation works in place, so each run first copies the values that the last run overwrote.
    let (values, mut both) = (gate_up.to_host(), Buffer::<T>::zeros(Device::Cpu, n * 2 * f));
    bench.bytes(&name("swiglu_backward and a copy", f), n * f * (8 * width + 4), || {
        both.view_mut().copy_from_host(&values);
        swiglu_backward(queue, d_gated.matrix(n, f), both.matrix_mut(n, 2 * f));
    });
    let ids: Vec<u32> = (0..n as u32).map(|i| i * 7919 % v as u32).collect();
    let ids = queue.upload(&ids);
    let mut embedding = random::<f32>(v * c);
    bench.bytes(&name("embedding_backward", c), n * c * 12, || {
        embedding_backward(queue, ids.view(), d_out.matrix(n, c), embedding.matrix_mut(v, c));
    });
    head::<T>(bench, dtype, v);
}

/// One block of rows of logits, as the head computes them.
fn head<T: Real>(bench: &Bench, dtype: &str, v: usize) {
    let (queue, r) = (&bench.queue, 64);
    let name = |what: &str| format!("{what} {dtype} {r}×{v}");
    let (logits, teacher) = (random::<f32>(r * v), random::<f32>(r * v));
    let (logits, teacher) = (logits.matrix(r, v), teacher.matrix(r, v));
    let targets: Vec<u32> = (0..r as u32).collect();
    let targets = queue.upload(&targets);
    let targets = targets.view();
    let [mut logprob, mut logsumexp, mut entropy] = [(); 3].map(|()| Buffer::<f32>::zeros(Device::Cpu, r));
    bench.bytes(&name("head_statistics"), r * v * 8, || {
        let (logprob, logsumexp, entropy) = (logprob.view_mut(), logsumexp.view_mut(), entropy.view_mut());
        head_statistics(queue, logits, targets, 1.0, logprob, logsumexp, entropy);
    });
    let weight = random::<f32>(r);
    let mut d_logits = Buffer::<T>::zeros(Device::Cpu, r * v);
    bench.bytes(&name("head_gradient"), r * v * (4 + size_of::<T>()), || {
        let out = d_logits.matrix_mut(r, v);
        head_gradient(queue, logits, targets, logsumexp.view(), weight.view(), 1.0, out);
    });
    if dtype != "f32" {
        return;
    }
    let mut d = Buffer::<f32>::zeros(Device::Cpu, r * v);
    for kind in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::Jsd { beta: 0.5 }] {
        bench.bytes(&name(&format!("divergence_rows {kind:?}")), r * v * 16, || {
            let (value, d) = (logprob.view_mut(), d.matrix_mut(r, v));
            divergence_rows(queue, logits, teacher, kind, 1.0, weight.view(), value, d);
        });
    }
    let (mut top, mut top_logprobs) = (Buffer::<u32>::zeros(Device::Cpu, r * 64), random::<f32>(r * 64));
    bench.bytes(&name("top_k_rows 64"), r * v * 4, || {
        top_k_rows(queue, teacher, 1.0, 64, top.matrix_mut(r, 64), top_logprobs.matrix_mut(r, 64));
    });
    bench.bytes(&name("sparse_forward_kl_rows 64"), r * v * 12, || {
        let (ids, logprobs, value) = (top.matrix(r, 64), top_logprobs.matrix(r, 64), logprob.view_mut());
        sparse_forward_kl_rows(queue, logits, ids, logprobs, 1.0, weight.view(), value, d.matrix_mut(r, v));
    });
}

/// Operations on all parameters; their number is about that of the reference shape.
fn parameters(bench: &Bench) {
    let (queue, len) = (&bench.queue, 6_500_000);
    let (mut weight, gradient) = (random::<f32>(len), random::<f32>(len));
    let (mut m, mut v) = (Buffer::<f32>::zeros(Device::Cpu, len), random::<f32>(len));
    let squares: Vec<f32> = v.to_host().iter().map(|v| v.abs()).collect();
    v.view_mut().copy_from_host(&squares);
    let config = AdamW { lr: 1e-6, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 10 };
    bench.bytes("adamw 6.5M", len * 28, || {
        let (weight, m, v) = (weight.view_mut(), m.view_mut(), v.view_mut());
        adamw(queue, weight, gradient.view(), m, v, &config, 1.0);
    });
    bench.bytes("squared_norm 6.5M", len * 4, || {
        black_box(squared_norm(queue, gradient.view()));
    });
    let mut narrow = Buffer::<bf16>::zeros(Device::Cpu, len);
    bench.bytes("convert 6.5M f32 to bf16", len * 6, || convert(queue, gradient.view(), narrow.view_mut()));
    bench.bytes("add 6.5M", len * 12, || add(queue, gradient.view(), weight.view_mut()));
}

fn main() {
    let threads = std::env::var("FERULE_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let isa = Isa::choose().expect("FERULE_ISA");
    let queue = Queue::cpu(threads, isa);
    let peak_gflops = peak::measure(&queue, DType::F32);
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!("{} on {threads} threads, peak {peak_gflops:.0} GFLOP/s", isa.name());
    let sequences = std::env::var("FERULE_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let bench = Bench { queue, filter, peak_gflops, sequences };
    attention::<f32>(&bench, "f32", 8, 8, 32);
    attention::<bf16>(&bench, "bf16", 8, 8, 32);
    attention::<f32>(&bench, "f32", 9, 3, 64);
    attention::<bf16>(&bench, "bf16", 9, 3, 64);
    rows::<f32>(&bench, "f32", 256, 704, 8, 32, 4096);
    rows::<bf16>(&bench, "bf16", 256, 704, 8, 32, 4096);
    rows::<f32>(&bench, "f32", 576, 1536, 9, 64, 49152);
    rows::<bf16>(&bench, "bf16", 576, 1536, 9, 64, 49152);
    parameters(&bench);
}
