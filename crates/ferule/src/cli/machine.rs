//! The machine's free resources, as the system reports them.

use std::num::NonZeroUsize;

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// A line of `/proc/meminfo` or `/proc/self/status`, in bytes; none if the system has no such file.
fn proc_bytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The total memory.
pub fn memory_bytes() -> Option<u64> {
    proc_bytes("/proc/meminfo", "MemTotal")
}

/// Memory that programs can still get without swapping, the control group's limit included.
pub fn available_bytes() -> Option<u64> {
    let machine = proc_bytes("/proc/meminfo", "MemAvailable")?;
    let read = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let group = read("/sys/fs/cgroup/memory.max")
        .map(|limit| limit.saturating_sub(read("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// The process's peak resident memory since [`forget_peak`], or since its start.
pub fn peak_resident_bytes() -> Option<u64> {
    proc_bytes("/proc/self/status", "VmHWM")
}

/// Resets the peak to the present resident memory. Returns whether the system supports that.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find(|line| line.starts_with("model name"))?;
    Some(name.split_once(':')?.1.trim().to_string())
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
    fn bytes_read_well() {
        let cases =
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5120.0 GiB")];
        cases.iter().for_each(|&(bytes, text)| assert_eq!(super::readable(bytes), text));
    }
}
