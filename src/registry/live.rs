use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{error::Error, resolve::Registry};
use crate::{names::DEFAULT_MODEL, telemetry::metrics};

/// Pause before the next attempt after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The state of the live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveStatus {
    /// Not yet resolved.
    Unknown,
    Missing,
    /// It serves; requests wait while it loads.
    Served,
    /// It does not load, with the cause.
    Failed(String),
}

impl Registry {
    /// Keeps the live version loaded and the metrics current until the token is cancelled.
    pub(crate) async fn follow_aliases(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.keep_live_loaded(&shutdown),
            self.count_versions(&shutdown)
        );
    }

    /// The state of the live version while [`Registry::follow_aliases`] runs.
    pub(crate) fn subscribe_live(&self) -> watch::Receiver<LiveStatus> {
        self.inner.live.subscribe()
    }

    async fn keep_live_loaded(&self, shutdown: &CancellationToken) {
        let mut moved = self.inner.store.subscribe_aliases();
        let mut reported = None;
        loop {
            moved.mark_unchanged();
            let loaded = self.load_live().await;
            match &loaded {
                Ok(number) => {
                    metrics::live_model_changed(DEFAULT_MODEL, reported, *number);
                    reported = *number;
                }
                Err(error) => {
                    tracing::error!(%error, "failed to load the live version");
                    // A database error is not about the version.
                    if !matches!(error, Error::Store(_)) {
                        self.set_live_status(LiveStatus::Failed(error.to_string()));
                    }
                }
            }
            tokio::select! {
                changed = moved.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY_PAUSE), if loaded.is_err() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Loads and pins the live version; returns its number, `None` if there is no live version.
    async fn load_live(&self) -> Result<Option<u64>, Error> {
        let live = match self.resolve_number(&Registry::live_name()).await {
            Ok(live) => live,
            Err(Error::NoLiveVersion { .. }) => {
                self.set_live_status(LiveStatus::Missing);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !matches!(*self.inner.live.borrow(), LiveStatus::Failed(_)) {
            self.set_live_status(LiveStatus::Served);
        }
        self.inner.predictor.load_pinned(live.model).await?;
        self.set_live_status(LiveStatus::Served);
        Ok(Some(live.number))
    }

    fn set_live_status(&self, new: LiveStatus) {
        self.inner.live.send_if_modified(|live| {
            let is_new = *live != new;
            *live = new;
            is_new
        });
    }

    async fn count_versions(&self, shutdown: &CancellationToken) {
        let mut count = self.inner.store.subscribe_versions();
        loop {
            metrics::model_versions(*count.borrow_and_update());
            tokio::select! {
                changed = count.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }
}
