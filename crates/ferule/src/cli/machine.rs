//! The machine's free resources, as the crate `sysinfo` reports them on Linux, macOS and Windows.
//!
//! The crate does not report the peak of a process's resident memory, so that figure comes from `/proc` and exists on
//! Linux only.

use std::num::NonZeroUsize;

use sysinfo::{CpuRefreshKind, Process, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let mut system = System::new().ok()?;
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let name = system.cpus().first()?.brand().trim();
    (!name.is_empty()).then(|| name.to_string())
}

/// The system, with its memory measured now; none if `sysinfo` does not know the system.
fn measured() -> Option<System> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    (system.total_memory() > 0).then_some(system)
}

/// The total memory.
pub fn memory_bytes() -> Option<u64> {
    Some(measured()?.total_memory())
}

/// Memory that programs can still get without swapping, the limits of the process's control groups included.
pub fn available_bytes() -> Option<u64> {
    let mut system = measured()?;
    let own = get_current_pid().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, ProcessRefreshKind::nothing());
    let group = system.process(own).and_then(Process::cgroup_limits);
    Some(group.map_or(u64::MAX, |group| group.free_memory).min(system.available_memory()))
}

/// The process's peak resident memory since [`forget_peak`], or since its start.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"))?;
    Some(peak.trim().parse::<u64>().ok()? * 1024)
}

/// Resets the peak to the present resident memory. Returns whether the system supports that.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes in a readable unit: `1.5 GiB`.
pub fn readable(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << shift)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_measured() {
        let total = super::memory_bytes().expect("a known system");
        assert!((1..=total).contains(&super::available_bytes().expect("a known system")));
        assert_eq!(super::peak_resident_bytes().is_some_and(|peak| peak > 1 << 20), cfg!(target_os = "linux"));
    }

    #[test]
    fn bytes_read_well() {
        let cases =
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5120.0 GiB")];
        cases.iter().for_each(|&(bytes, text)| assert_eq!(super::readable(bytes), text));
    }
}
