//! Reserved disk space, so that the end of a training can be recorded on a disk that it has filled.

use std::{io, path::PathBuf};

use fs_err::tokio as fs;

/// Many times the size of the database pages that recording an end writes.
const BYTES: usize = 4 << 20;

/// A file whose removal frees space.
#[derive(Debug, Clone)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Reserve { path }
    }

    /// Writes the file unless it exists; removes it if the disk has no space for it.
    pub(super) async fn allocate(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).await;
        if found.is_ok_and(|found| found.len() == BYTES as u64) {
            return Ok(());
        }
        // Not zeros, which some file systems do not store.
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

    pub(super) async fn release(&self) {
        match fs::remove_file(&self.path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "failed to release the reserved disk space");
            }
            _ => {}
        }
    }
}
