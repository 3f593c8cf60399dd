//! Processes that an earlier server left behind.
//!
//! A worker ends by itself when its server is gone. One that is stopped or stuck in the kernel does not; so its process id lies in its work directory, with
//! the time it was started, which together name one process for as long as the machine runs.

use std::{collections::HashSet, io, path::Path, time::Duration};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::files::write_atomic;

const PID_FILE: &str = "worker.pid";

/// Writes down which process works in a directory.
pub(super) fn remember(work_dir: &Path, pid: u32) -> io::Result<()> {
    let started = start_time(pid).unwrap_or_default();
    write_atomic(
        &work_dir.join(PID_FILE),
        format!("{pid} {started} {}\n", boot_id()).as_bytes(),
    )
}

/// Forgets a process that was waited for: its number may be another's from now on.
pub(super) async fn forget(work_dir: &Path) {
    match fs::tokio::remove_file(work_dir.join(PID_FILE)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "failed to forget an ended process");
        }
        _ => {}
    }
}

/// Tells this start of the machine from others, after which numbers begin anew; empty when that cannot be found out.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Kills a process and all of its group.
pub(super) fn kill_group(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process_group(pid, Signal::KILL) {
        tracing::debug!(%error, "the process is gone already");
    }
}

/// Ends the processes of all work directories and removes the directories, but for those of trainings that can go on.
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
            tracing::warn!(%error, "failed to remove the files of an interrupted training");
        }
    }
}

async fn end(work_dir: &Path, grace: Duration) {
    let Some(pid) = remembered(work_dir) else {
        return;
    };
    tracing::warn!(pid, "a process of an earlier server is still there");
    // It has noticed that its pipes are closed, unless it is stuck.
    let deadline = tokio::time::Instant::now() + grace;
    while is_alive(pid) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if is_alive(pid) {
        tracing::warn!(pid, "it does not end by itself and is killed");
        kill_group(pid);
    }
}

/// The process that still works in a directory; `None` when it is gone and its number perhaps another's.
fn remembered(work_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(work_dir.join(PID_FILE)).ok()?;
    let mut words = text.split_whitespace();
    let (pid, started) = (words.next()?.parse().ok()?, words.next()?);
    if words.next().unwrap_or_default() != boot_id() {
        return None;
    }
    match start_time(pid) {
        Some(found) => (found == started).then_some(pid),
        // The first of its group, such as a launcher, may be gone before the others. As long as a group lives, no process gets its number.
        None => is_alive(pid).then_some(pid),
    }
}

/// Whether a process of the group lives. Those that are dead and only wait to be collected do not count, which the kernel's own answer to a
/// signal would include.
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

/// Field 22 of `/proc/{pid}/stat`: ticks from the machine's start to the process'. `None` when there is no such process, or it is dead.
fn start_time(pid: u32) -> Option<String> {
    stat(pid)?.get(19).cloned()
}

/// The fields of `/proc/{pid}/stat` from the third on, which is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may contain anything.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let fields: Vec<String> = fields.map(str::to_owned).collect();
    let is_dead = matches!(fields.first().map(String::as_str), Some("Z" | "X"));
    (!is_dead).then_some(fields)
}
