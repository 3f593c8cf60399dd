//! File access outside the async threads.

use std::io;

use super::Error;

/// Runs file access on the runtime's blocking pool; a panic becomes an error.
#[expect(
    clippy::disallowed_methods,
    reason = "reading and writing files is what the blocking pool is for, which serves one dataset at a time"
)]
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            tracing::error!(%error, "work on a dataset panicked");
            Err(io::Error::other("the work on the files panicked").into())
        }
    }
}
