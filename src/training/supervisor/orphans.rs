//! Worker processes of an earlier server.
//!
//! A worker exits when its server is gone, unless it is stopped or blocked in the kernel. Its work
//! directory therefore holds its process id and start time, which together identify one process
//! until the machine is rebooted.

use std::{collections::HashSet, io, path::Path, time::Duration};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::files::write_atomic;

const PID_FILE: &str = "worker.pid";

pub(super) fn write_pid_file(work_dir: &Path, pid: u32) -> io::Result<()> {
    let started = start_time(pid).unwrap_or_default();
    write_atomic(
        &work_dir.join(PID_FILE),
        format!("{pid} {started} {}\n", boot_id()).as_bytes(),
    )
}

/// Removes the file of a process that was waited for, whose id may be reused.
pub(super) async fn remove_pid_file(work_dir: &Path) {
    match fs::tokio::remove_file(work_dir.join(PID_FILE)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "failed to remove the process id file of an ended worker");
        }
        _ => {}
    }
}

/// Identifies this boot of the machine; process ids are reused after another. Empty if unknown.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Kills all processes of a group.
pub(super) fn kill_group(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process_group(pid, Signal::KILL) {
        tracing::debug!(%error, "failed to kill a process group; it has ended");
    }
}

/// Ends the processes of all work directories, and removes the directories of trainings that are
/// not live.
pub(super) async fn end_all(work_root: &Path, live: &HashSet<String>, grace: Duration) {
    let Ok(directories) = fs::read_dir(work_root) else {
        return;
    };
    for directory in directories.flatten() {
        end(&directory.path(), grace).await;
        if live.contains(directory.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(directory.path()) {
            tracing::warn!(%error, "failed to remove a work directory");
        }
    }
}

async fn end(work_dir: &Path, grace: Duration) {
    let Some(pid) = read_pid_file(work_dir) else {
        return;
    };
    tracing::warn!(pid, "worker process of an earlier server is still running");
    // It exits when it notices the closed pipe.
    let deadline = tokio::time::Instant::now() + grace;
    while is_alive(pid) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if is_alive(pid) {
        tracing::warn!(
            pid,
            "worker process did not exit within the grace period; killing it"
        );
        kill_group(pid);
    }
}

/// Returns the process of a work directory, or `None` if it has ended and its id may be reused.
fn read_pid_file(work_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(work_dir.join(PID_FILE)).ok()?;
    let mut words = text.split_whitespace();
    let (pid, started) = (words.next()?.parse().ok()?, words.next()?);
    if words.next().unwrap_or_default() != boot_id() {
        return None;
    }
    match start_time(pid) {
        Some(found) => (found == started).then_some(pid),
        // The group leader, such as a launcher, may end before the others. The id of a group is not
        // reused while it has members.
        None => is_alive(pid).then_some(pid),
    }
}

/// Returns whether a process of the group is alive. Zombies, which a signal would reach, do not
/// count.
fn is_alive(group: u32) -> bool {
    let group = group.to_string();
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let pid = process.file_name().to_string_lossy().parse();
        let stat = pid.ok().and_then(stat);
        stat.is_some_and(|fields| fields.get(2) == Some(&group))
    })
}

/// Returns the start time of a process in ticks since boot, field 22 of `/proc/{pid}/stat`; `None`
/// if it is not alive.
fn start_time(pid: u32) -> Option<String> {
    stat(pid)?.get(19).cloned()
}

/// Returns the fields of `/proc/{pid}/stat` from the third on, the state; `None` for a zombie.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may contain spaces and parentheses.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let fields: Vec<String> = fields.map(str::to_owned).collect();
    let is_dead = matches!(fields.first().map(String::as_str), Some("Z" | "X"));
    (!is_dead).then_some(fields)
}
