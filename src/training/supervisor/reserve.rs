//! Bytes set aside, so that what became of a training can be recorded on a disk that it has filled.

use std::{io, path::PathBuf};

use fs_err::tokio as fs;

/// Room for many times the database pages that an ending takes.
const BYTES: usize = 4 << 20;

/// A file that is there to be removed.
#[derive(Debug, Clone)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Reserve { path }
    }

    /// Sets the bytes aside unless they are already; on a disk without room for them this fails and leaves nothing.
    pub(super) async fn keep(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).await;
        if found.is_ok_and(|found| found.len() == BYTES as u64) {
            return Ok(());
        }
        // Not zeros, which some file systems store as nothing.
        let bytes: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8 | 1).collect();
        let written = async {
            fs::write(&self.path, bytes).await?;
            fs::File::open(&self.path).await?.sync_all().await
        };
        if let Err(error) = written.await {
            self.release().await;
            return Err(error);
        }
        Ok(())
    }

    /// Gives the bytes back to the disk.
    pub(super) async fn release(&self) {
        match fs::remove_file(&self.path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "failed to give back the bytes that were set aside");
            }
            _ => {}
        }
    }
}
