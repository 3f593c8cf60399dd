//! A part of the archive as the body of a request.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering},
};

/// Counts the bytes, and keeps a read error, which ureq would report as a connection error.
pub(super) struct Chunk<'a, R, F> {
    pub(super) inner: R,
    /// Receives the number of bytes of each read.
    pub(super) on_read: F,
    pub(super) is_stopped: &'a AtomicBool,
    pub(super) failure: Option<io::Error>,
}

impl<R: Read, F: FnMut(u64)> Read for Chunk<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the upload was interrupted"));
        }
        match self.inner.read(buffer) {
            Ok(read) => {
                (self.on_read)(read as u64);
                Ok(read)
            }
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(error);
                Err(copy)
            }
        }
    }
}
