//! Calls that work on a dataset for a while and stream their progress.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::status;
use crate::{
    dataset::Roots, imaging::Limits, inference::Predictor, registry::Registry, store::Store,
};

/// Minimum pause between two progress messages.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// Maximum wait for a client to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// The components that jobs use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct JobContext {
    pub(crate) predictor: Predictor,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) data_roots: Roots,
    /// Limits on one image.
    pub(crate) limits: Limits,
    /// Owns the jobs.
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl JobContext {
    /// Starts a job that sends the responses of its call.
    pub(super) fn start<R, F>(
        &self,
        job: impl FnOnce(Sender<R>) -> F,
    ) -> ReceiverStream<Result<R, Status>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(4);
        self.tasks.spawn(Box::pin(job(sender)));
        ReceiverStream::new(receiver)
    }
}

pub(super) type Sender<R> = mpsc::Sender<Result<R, Status>>;

/// Sends progress until the work is done, then delivers its result. Stops when the client
/// disconnects or the server shuts down.
pub(super) async fn drive<P: Clone, R, T, D: Future<Output = bool>>(
    sender: &Sender<R>,
    shutdown: &CancellationToken,
    (progress, response): (watch::Receiver<P>, impl Fn(P) -> R),
    work: impl Future<Output = Result<T, Status>>,
    deliver: impl FnOnce(T) -> D,
) {
    let result = tokio::select! {
        result = work => result,
        () = send_progress(progress, sender, response) => return,
        () = sender.closed() => return,
        () = shutdown.cancelled() => Err(status::shutting_down()),
    };
    let sending = async {
        match result {
            Ok(result) => deliver(result).await,
            Err(status) => send(sender, Err(status)).await,
        }
    };
    tokio::select! {
        // A client that does not read everything needs no error.
        _ = sending => {}
        () = shutdown.cancelled() => drop(sender.try_send(Err(status::shutting_down()))),
    }
}

/// Sends the latest progress periodically; returns when the client has disconnected.
async fn send_progress<P: Clone, R>(
    mut progress: watch::Receiver<P>,
    sender: &Sender<R>,
    response: impl Fn(P) -> R,
) {
    loop {
        let latest = progress.borrow_and_update().clone();
        if !send(sender, Ok(response(latest))).await {
            return;
        }
        tokio::time::sleep(PROGRESS_PAUSE).await;
        if progress.changed().await.is_err() {
            // The work is done; `drive` delivers the result.
            std::future::pending::<()>().await;
        }
    }
}

/// Sends one message; returns false if the client has disconnected or does not read it in time.
pub(super) async fn send<R>(sender: &Sender<R>, message: Result<R, Status>) -> bool {
    let sent = tokio::time::timeout(SEND_TIMEOUT, sender.send(message)).await;
    sent.is_ok_and(|sent| sent.is_ok())
}
