//! Where work runs: [`Device`], the instruction path [`Isa`], and the [`Queue`] that every operation takes first.
//!
//! The list of devices is closed. A new device is a new variant of [`Device`]. The compiler then reports every place
//! that must handle it: where memory is allocated and copied, and where operations start their work.
//!
//! Read next: `pool/mod.rs`, the threads of the CPU.

mod pool;

use std::sync::Arc;

use pool::Pool;

/// A place where memory lives and work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// Host memory, and the processor's cores.
    Cpu,
}

/// An instruction path. Results are equal bit for bit within one path, and close between two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 F/BW/DQ/VL with `vdpbf16ps`.
    Avx512Bf16,
    /// AVX-512 F/BW/DQ/VL without `vdpbf16ps`; bf16 pairs are widened to f32.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// The 128-bit NEON that every aarch64 processor has.
    Neon,
    /// Plain Rust with fused multiply-add.
    Portable,
}

impl Isa {
    /// Every path this machine can run, best first.
    pub fn available() -> Vec<Isa> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 {
                paths.push(Isa::Avx512);
            }
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                // Intel's cores start one `vdpbf16ps` every second cycle, but two f32 multiply-adds every cycle, so
                // widening is faster there. AMD's cores start one `vdpbf16ps` every cycle. The vendor decides, not a
                // measurement, so that a machine always chooses the same path.
                let first = if is_intel() { paths.len() } else { 0 };
                paths.insert(first, Isa::Avx512Bf16);
            }
            if avx2 {
                paths.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Isa::Neon);
        paths.push(Isa::Portable);
        paths
    }

    /// The name used by `FERULE_ISA`, in checkpoints and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// The path that `FERULE_ISA` names, or else the best path of this machine.
    ///
    /// # Errors
    /// A message for the user when `FERULE_ISA` names a path that does not exist or that this machine cannot run.
    pub fn choose() -> Result<Isa, String> {
        let available = Isa::available();
        match std::env::var("FERULE_ISA") {
            Err(_) => Ok(available[0]),
            Ok(wanted) => available.iter().copied().find(|isa| isa.name() == wanted).ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                format!("FERULE_ISA={wanted}: this machine can run {}", names.join(", "))
            }),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// Where operations are enqueued. Clones share the same threads. On the CPU an operation has finished when it returns.
#[derive(Clone)]
pub struct Queue {
    device: Device,
    isa: Isa,
    pool: Arc<Pool>,
}

impl Queue {
    /// A queue on `threads` threads of the CPU (the caller's thread counts as one) that uses the instruction path
    /// `isa`.
    ///
    /// # Panics
    /// When `threads` is 0 or the machine cannot run `isa`.
    pub fn cpu(threads: usize, isa: Isa) -> Queue {
        assert!(threads > 0, "a queue needs a thread");
        assert!(Isa::available().contains(&isa), "this machine cannot run {}", isa.name());
        Queue { device: Device::Cpu, isa, pool: Arc::new(Pool::new(threads)) }
    }

    /// The device on which its buffers live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Its instruction path.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Its number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `task(0) … task(tasks - 1)` on all threads, in any order. It returns when all have finished. A task must
    /// not call `parallel` itself: it would wait for its own job for ever.
    ///
    /// # Panics
    /// When a task panics.
    pub(crate) fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.pool.run(tasks, &task);
    }
}
