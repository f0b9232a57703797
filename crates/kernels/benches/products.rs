//! Times products at the shapes of real models, and prints them as a share of the machine's peak.
//! `crates/kernels/benches/peer` adds the figures of the `gemm` crate.
//!
//! `cargo bench -p kernels --bench products [-- FILTER]`; `FERULE_ISA` selects the instruction path, `FERULE_THREADS`
//! the number of threads (1 by default). Each figure is the best of many short runs.

use std::time::Instant;

use kernels::gemm::{Epilogue, Packed, matmul, matmul_transposed_a};
use kernels::{Buffer, DType, Device, Isa, Queue, Real, Scratch, bf16, peak};

/// (name, M, K, N)
const SHAPES: [(&str, usize, usize, usize); 25] = [
    ("reference qkv", 2048, 256, 384),
    ("reference output", 2048, 256, 256),
    ("reference gate_up", 2048, 256, 1408),
    ("reference down", 2048, 704, 256),
    ("reference head", 2048, 256, 4096),
    ("reference d_hidden", 2048, 4096, 256),
    ("reference decode qkv", 1, 256, 384),
    ("reference decode gate_up", 1, 256, 1408),
    ("reference decode head", 1, 256, 4096),
    ("reference decode gate_up", 16, 256, 1408),
    ("reference decode gate_up", 64, 256, 1408),
    ("smollm2 gate_up", 1, 576, 3072),
    ("smollm2 down", 1, 1536, 576),
    ("smollm2 head", 1, 576, 49152),
    ("smollm2 gate_up", 2, 576, 3072),
    ("smollm2 gate_up", 4, 576, 3072),
    ("smollm2 gate_up", 8, 576, 3072),
    ("smollm2 gate_up", 16, 576, 3072),
    ("smollm2 head", 16, 576, 49152),
    ("smollm2 gate_up", 32, 576, 3072),
    ("smollm2 down", 16, 1536, 576),
    ("smollm2 gate_up", 512, 576, 3072),
    ("smollm2 down", 512, 1536, 576),
    ("smollm2 output", 512, 576, 576),
    ("smollm2 head", 512, 576, 8192),
];

fn numbers<T: Real>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::from_f32(((i * 7919) % 1009) as f32 / 504.5 - 1.0)).collect()
}

/// Seconds of the fastest run, out of as many as fit into a quarter of a second, but at least five.
fn best_seconds(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.25 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn product<T: Real>(queue: &Queue, m: usize, k: usize, n: usize) -> f64 {
    let a = Buffer::<T>::from_host(Device::Cpu, &numbers(m * k));
    let w = Buffer::<f32>::from_host(Device::Cpu, &numbers(k * n));
    let mut b = Packed::<T>::zeros(Device::Cpu, k, n);
    b.pack(queue, w.matrix(n, k), 1);
    let mut out = Buffer::<f32>::zeros(Device::Cpu, m * n);
    best_seconds(|| matmul(queue, a.matrix(m, k), b.at(1), Epilogue::default(), out.matrix_mut(m, n)))
}

fn transposed<T: Real>(queue: &Queue, m: usize, k: usize, n: usize) -> f64 {
    let a = Buffer::<T>::from_host(Device::Cpu, &numbers(m * n));
    let b = Buffer::<T>::from_host(Device::Cpu, &numbers(m * k));
    let mut out = Buffer::<f32>::zeros(Device::Cpu, n * k);
    let mut scratch = Scratch::new(Device::Cpu);
    best_seconds(|| {
        matmul_transposed_a(queue, a.matrix(m, n), b.matrix(m, k), out.matrix_mut(n, k), true, &mut scratch)
    })
}

fn pack<T: Real>(queue: &Queue, k: usize, n: usize) -> f64 {
    let w = Buffer::<f32>::from_host(Device::Cpu, &numbers(k * n));
    let mut b = Packed::<T>::zeros(Device::Cpu, k, n);
    best_seconds(|| b.pack(queue, w.matrix(n, k), 1))
}

fn main() {
    let threads = std::env::var("FERULE_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let isa = Isa::choose().expect("FERULE_ISA");
    let queue = Queue::cpu(threads, isa);
    let (f32_peak, bf16_peak) = (peak::measure(&queue, DType::F32), peak::measure(&queue, DType::Bf16));
    println!("{} threads {threads}: peak f32 {f32_peak:.0}, bf16 {bf16_peak:.0} GFLOP/s", isa.name());
    for mib in [1, 16, 64] {
        println!("read {mib} MiB: {:.1} GB/s", peak::bandwidth(&queue, mib << 20));
    }
    println!("shape M K N | f32 us, % of peak, GB/s | bf16 us, % of peak, GB/s | dW f32 us % bf16 us %");
    for (name, m, k, n) in SHAPES {
        if !format!("{name} {m}").contains(&filter) {
            continue;
        }
        let operations = 2.0 * (m * k * n) as f64 / 1e9;
        let report = |seconds: f64, peak: f64, bytes: usize| {
            let share = 100.0 * operations / seconds / peak;
            format!("{:9.1} {share:5.1}% {:5.1}", seconds * 1e6, (bytes * k * n) as f64 / seconds / 1e9)
        };
        let f32_part = report(product::<f32>(&queue, m, k, n), f32_peak, 4);
        let bf16_part = report(product::<bf16>(&queue, m, k, n), bf16_peak, 2);
        print!("{name:24} {m:4} {k:4} {n:5} | {f32_part} | {bf16_part}");
        if m >= 512 {
            let (first, second) = (transposed::<f32>(&queue, m, k, n), transposed::<bf16>(&queue, m, k, n));
            print!(" | {} | {}", report(first, f32_peak, 0), report(second, bf16_peak, 0));
        }
        println!();
    }
    let (k, n) = (576, 3072);
    println!(
        "pack {k}×{n}: f32 {:.1} us, bf16 {:.1} us",
        pack::<f32>(&queue, k, n) * 1e6,
        pack::<bf16>(&queue, k, n) * 1e6
    );
}
