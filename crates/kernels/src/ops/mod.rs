//! One folder per operation: `mod.rs` says what it computes and holds the f64 reference, `cpu.rs` the SIMD code.
