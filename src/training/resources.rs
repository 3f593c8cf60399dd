//! Memory and disk space of the machine.

use std::path::Path;

use crate::files;

/// Memory available without swapping, within the limit of the control group; in bytes.
pub(super) fn free_memory() -> u64 {
    let group = || {
        let limit = control_group("memory.max")?;
        // Cached files count as used, but the kernel evicts them when memory is needed.
        let used = control_group("memory.current")?.saturating_sub(cached_files());
        Some(limit.saturating_sub(used))
    };
    meminfo("MemAvailable:").min(group().unwrap_or(u64::MAX))
}

/// Memory of the machine, within the limit of the control group; in bytes, 0 if unknown.
pub(crate) fn total_memory() -> u64 {
    meminfo("MemTotal:").min(control_group("memory.max").unwrap_or(u64::MAX))
}

/// Free bytes in the file system of a directory; 0 if unknown.
pub(crate) fn free_disk(directory: &Path) -> u64 {
    files::free_space(directory).unwrap_or(0)
}

/// Returns a value of `/proc/meminfo` in bytes; 0 if it is missing.
fn meminfo(name: &str) -> u64 {
    let text = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Bytes of inactive cached files in the control group.
fn cached_files() -> u64 {
    let text = fs_err::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

/// Returns a value of the control group in bytes; `None` without a group or a limit.
fn control_group(name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
    text.trim().parse().ok()
}
