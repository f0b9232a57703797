//! Reads the output of `cargo bench -p kernels --bench products`, times the `gemm` crate in f32 at the same shapes, and
//! prints its figures beside those of the input.
//!
//! `cargo bench -p kernels --bench products | cargo run --release --manifest-path crates/kernels/benches/peer/Cargo.toml [THREADS]`

use std::time::Instant;

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Microseconds of the fastest run, out of as many as fit into a quarter of a second, but at least five.
fn best_us(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.25 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best * 1e6
}

fn product_us(threads: usize, m: usize, k: usize, n: usize) -> f64 {
    let (a, w) = (numbers(m * k), numbers(k * n));
    let mut out = vec![0f32; m * n];
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let (to, rows, columns) = (out.as_mut_ptr(), k as isize, n as isize);
    best_us(|| {
        // SAFETY: the three matrices have the shapes and strides that are given.
        unsafe {
            gemm::gemm(
                m, n, k, to, 1, columns, false, a.as_ptr(), 1, rows, w.as_ptr(), rows, 1, 0.0f32, 1.0f32, false, false,
                false, parallelism,
            )
        }
    })
}

/// The last three words before the first `|`, if they are numbers.
fn shape(line: &str) -> Option<[usize; 3]> {
    let words: Vec<&str> = line.split('|').next()?.split_whitespace().collect();
    let last = words.len().checked_sub(3)?;
    let numbers: Vec<usize> = words[last..].iter().map_while(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

fn main() {
    let threads = std::env::args().nth(1).map_or(1, |threads| threads.parse().expect("a number of threads"));
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        match shape(&line) {
            Some([m, k, n]) => println!("{line} | gemm crate f32 {:9.1}", product_us(threads, m, k, n)),
            None => println!("{line}"),
        }
    }
}
