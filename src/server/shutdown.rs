use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::error::Error;
use crate::{store::Store, training::supervisor};

/// The tasks that the shutdown waits for.
pub(super) struct Running {
    pub(super) grpc: JoinHandle<()>,
    pub(super) http: JoinHandle<()>,
    pub(super) supervising: JoinHandle<Result<(), supervisor::Error>>,
    pub(super) tasks: TaskTracker,
    pub(super) store: Store,
}

impl Running {
    /// Waits for the token or the failure of a port, then for all tasks, up to the grace period.
    pub(super) async fn wait(
        mut self,
        shutdown: &CancellationToken,
        grace: Duration,
    ) -> Result<(), Error> {
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = &mut self.grpc => flatten(ended.map(Ok)),
            ended = &mut self.http => flatten(ended.map(Ok)),
            ended = &mut self.supervising => flatten(ended).map_err(Error::from),
        };
        shutdown.cancel();
        tracing::info!("shutting down");
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            if !self.supervising.is_finished() {
                drop((&mut self.supervising).await);
            }
            if !self.grpc.is_finished() {
                drop((&mut self.grpc).await);
            }
            if !self.http.is_finished() {
                drop((&mut self.http).await);
            }
        };
        // Twice the grace period, because the worker has one of its own.
        if tokio::time::timeout(grace * 2, all).await.is_err() {
            tracing::warn!(
                seconds = (grace * 2).as_secs_f64(),
                "calls did not finish within the grace period and are dropped"
            );
            self.grpc.abort();
        }
        self.store.close().await?;
        result
    }
}

/// Resumes the panic of a task, which the panic hook has already logged.
fn flatten<E>(ended: Result<Result<(), E>, JoinError>) -> Result<(), E> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

/// Cancels the token on the first SIGINT or SIGTERM; exits the process on the second.
pub(super) async fn cancel_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "failed to listen for signals; stop the server with SIGKILL");
            return;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.cancel();
    // A second Ctrl-C does not wait for the grace period.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::warn!("the server exits immediately on a second signal");
    std::process::exit(130);
}
