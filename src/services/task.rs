use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::status;
use crate::telemetry::traces;

/// Starts the work for one message of a stream, which continues even if the client does not read
/// the previous responses: otherwise a slow client would hold permits that others wait for.
/// Dropping the future aborts the work.
///
/// # Errors
/// INTERNAL if the work panics.
pub(super) fn spawn_abort_on_drop<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> impl Future<Output = Result<T, Status>> {
    let work = traces::instrument(traces::current(), work);
    let work = AbortOnDropHandle::new(tokio::spawn(work));
    async move { work.await.unwrap_or_else(|_| Err(status::panicked())) }
}

/// Reads files, or waits for a response of the hub, on the blocking pool.
///
/// # Errors
/// INTERNAL if the work panics.
#[expect(
    clippy::disallowed_methods,
    reason = "the blocking pool is for work that mostly waits, and only a limited number of calls do so"
)]
pub(super) async fn read_files<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let read = tokio::task::spawn_blocking(work).await;
    read.map_err(|error| {
        tracing::error!(%error, "reading files panicked");
        status::panicked()
    })
}
