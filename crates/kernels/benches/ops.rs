//! Speed of each operation at two shapes: the reference of `bench/` (hidden 256, 8 heads of 32) and SmolLM2-135M's.
//!
//! `cargo bench -p kernels --bench ops [-- FILTER]`; `FERULE_ISA` picks the instruction path, `FERULE_THREADS` the threads
//! (2 by default). Every figure is the best of many short runs, so that a busy machine disturbs little. Operations that
//! compute are given in GFLOP/s and as a share of the fused multiply-add peak measured here; those that move data in
//! GB/s of the bytes they must read and write.

use std::time::Instant;

use kernels::ops::attention::{
    KEY_BLOCK, PagedCache, PagedRow, Segment, attention_backward, attention_forward, attention_paged,
};
use kernels::peak;
use kernels::{Buffer, DType, Device, Isa, Queue, Real, Scratch, bf16};

struct Bench {
    queue: Queue,
    filter: String,
    peak_gflops: f64,
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

/// Seconds of the fastest run, of as many as fit in 0.4 s.
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
    let (sequences, t) = (8, 256);
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
    let cache = PagedCache::<T>::new(Device::Cpu, rows * pages, kv_heads, d);
    let tables: Vec<Vec<u32>> = (0..rows).map(|i| (0..pages).map(|p| (i * pages + p) as u32).collect()).collect();
    let tables: Vec<&[u32]> = tables.iter().map(|t| &t[..]).collect();
    let paged: Vec<_> = (0..rows).map(|sequence| PagedRow { sequence, position }).collect();
    let q = random::<T>(rows * heads * d);
    let mut out = Buffer::<T>::zeros(Device::Cpu, rows * heads * d);
    let mut scratch = Scratch::new(Device::Cpu);
    let bytes = rows * (position + 1) * kv_heads * d * 2 * size_of::<T>();
    let name = format!("attention_paged {dtype} {heads}/{kv_heads} heads of {d}, {rows} rows");
    bench.bytes(&name, bytes, || {
        let (q, out) = (q.matrix(rows, heads * d), out.matrix_mut(rows, heads * d));
        attention_paged(&bench.queue, q, &paged, &tables, &cache, d, 0.2, out, &mut scratch);
    });
}

fn main() {
    let threads = std::env::var("FERULE_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let isa = Isa::choose().expect("FERULE_ISA");
    let queue = Queue::cpu(threads, isa);
    let peak_gflops = peak::measure(&queue, DType::F32);
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!("{} on {threads} threads, peak {peak_gflops:.0} GFLOP/s", isa.name());
    let bench = Bench { queue, filter, peak_gflops };
    attention::<f32>(&bench, "f32", 8, 8, 32);
    attention::<bf16>(&bench, "bf16", 8, 8, 32);
    attention::<f32>(&bench, "f32", 9, 3, 64);
    attention::<bf16>(&bench, "bf16", 9, 3, 64);
}
