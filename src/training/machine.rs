//! How much memory and disk the machine has for a training.

use std::path::Path;

/// Memory that can be had without swapping, less where a control group allows less; in bytes.
pub fn free_memory() -> u64 {
    let group = || {
        let limit = of_group("memory.max")?;
        // What was read from files counts as used, but goes when memory is wanted.
        let used = of_group("memory.current")?.saturating_sub(cached_files());
        Some(limit.saturating_sub(used))
    };
    meminfo("MemAvailable:").min(group().unwrap_or(u64::MAX))
}

/// Memory of the machine, less where a control group allows less; in bytes, 0 when that cannot be found out.
pub fn total_memory() -> u64 {
    meminfo("MemTotal:").min(of_group("memory.max").unwrap_or(u64::MAX))
}

/// Bytes that the file system of a directory has left for this user; 0 when that cannot be found out.
pub fn free_disk(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// A line of `/proc/meminfo` in bytes; 0 when there is none.
fn meminfo(name: &str) -> u64 {
    let text = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Bytes of files that the control group has in memory and that nobody has used for a while.
fn cached_files() -> u64 {
    let text = fs_err::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

/// A figure of the control group in bytes; `None` where there is no group or no limit.
fn of_group(name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
    text.trim().parse().ok()
}
