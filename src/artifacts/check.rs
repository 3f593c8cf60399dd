//! Verification of stored bytes at a bounded rate.

use std::{
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use fs_err as fs;
use tokio::sync::oneshot;

use crate::priority;

use super::{
    Artifacts, Error,
    digest::{Hasher, key},
};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

impl Artifacts {
    /// Returns whether an artifact exists and has the bytes that its name says. A thread of the
    /// idle scheduling policy, whose reads have idle priority too, reads at most `rate` bytes per
    /// second.
    ///
    /// # Errors
    /// [`Error::BadDigest`], [`Error::File`].
    pub(crate) async fn check(&self, sha256: &str, rate: u64) -> Result<bool, Error> {
        let path = self.store.path_to_filesystem(&key(sha256)?)?;
        let (done, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("verification".to_owned())
            .spawn(move || {
                if let Err(error) = priority::set_idle_policy() {
                    tracing::debug!(%error, "failed to lower the priority of the verification");
                }
                drop(done.send(hash_slowly(&path, rate)));
            })?;
        let found = result
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the verifying thread panicked")));
        match found {
            Ok(found) => Ok(found == sha256),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn hash_slowly(path: &Path, rate: u64) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK];
    let (start, mut total) = (Instant::now(), 0_u64);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(hasher.finish().sha256);
        }
        hasher.update(&chunk[..read]);
        total += read as u64;
        let due = Duration::from_secs_f64(total as f64 / rate.max(1) as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}
