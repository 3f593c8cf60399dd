//! Signals, files and waiting.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use visage::testing::{SynthOptions, write_faces};

/// Longer than any wait on a machine that runs other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {signal} {pid}: {status}");
}

/// Returns true if the process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// The images of a directory, sorted.
pub(crate) fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs_err::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "png" || end == "jpg")
        })
        .collect();
    files.sort();
    files
}

/// Draws faces whose file names start with their ages.
pub(crate) fn faces(directory: &Path, count: usize, seed: u64) -> PathBuf {
    let options = SynthOptions {
        count,
        seed,
        size: 64,
        ..Default::default()
    };
    write_faces(directory, &options, |_| {}).unwrap();
    directory.to_owned()
}

/// Stdout, then stderr.
pub(crate) fn text_of(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    )
}
