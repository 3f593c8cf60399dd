//! Appends the bytes of a request to an upload.

use std::{io::SeekFrom, sync::Arc};

use fs_err::tokio as async_fs;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::{
    super::{Error, blocking::blocking},
    directory::{Claim, Upload, Uploads, parse},
    scope::Scope,
};

/// Bytes between two checks of the free disk space.
const CHECK_BYTES: u64 = 16 << 20;

impl Uploads {
    /// Opens an upload for writing at an offset, which must be its current one.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Busy`] and [`Error::WrongOffset`].
    pub(crate) async fn write_at(
        &self,
        upload: &str,
        given: u64,
        scope: &Scope,
    ) -> Result<Writer, Error> {
        // Before the claim, because a busy upload outside the scope does not exist either.
        self.get(upload, scope).await?;
        let claim = self.claim(parse(upload)?)?;
        // After the claim, because no other request writes to it now.
        let found = self.get(upload, scope).await?;
        let (id, offset) = (found.id, found.offset);
        if given != offset {
            return Err(Error::WrongOffset {
                upload: id.to_string(),
                offset,
                given,
            });
        }
        let file = async_fs::OpenOptions::new()
            .write(true)
            .open(self.inner.data(id))
            .await?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.disk.check(0)).await??;
        let mut file = file.into_parts().0;
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(Writer {
            upload: found,
            file,
            unchecked: 0,
            claim,
        })
    }
}

/// Appends to an upload.
#[derive(Debug)]
pub(crate) struct Writer {
    upload: Upload,
    file: tokio::fs::File,
    /// Bytes written since the last check of the disk.
    unchecked: u64,
    claim: Claim,
}

impl Writer {
    /// Number of missing bytes.
    #[must_use]
    pub(crate) fn missing(&self) -> u64 {
        self.upload.length - self.upload.offset
    }

    /// Writes the next bytes, or nothing if there are more than the missing ones.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::DiskLow`], or a failure of the file system.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let missing = self.missing();
        if bytes.len() as u64 > missing {
            return Err(self.too_long());
        }
        self.unchecked += bytes.len() as u64;
        if self.unchecked >= CHECK_BYTES {
            self.unchecked = 0;
            let inner = Arc::clone(&self.claim.inner);
            blocking(move || inner.disk.check(0)).await??;
        }
        self.file.write_all(bytes).await?;
        self.upload.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes the written bytes durable and returns the state.
    ///
    /// # Errors
    /// A failure of the file system.
    pub(crate) async fn finish(mut self) -> Result<Upload, Error> {
        self.file.flush().await?;
        self.file.sync_data().await?;
        Ok(self.upload)
    }

    /// Returns the error for more bytes than announced.
    #[must_use]
    pub(crate) fn too_long(&self) -> Error {
        Error::TooLong {
            upload: self.upload.id.to_string(),
            length: self.upload.length,
        }
    }
}
