use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Tls, TlsError};

/// Interval of the checks whether the files have changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Uses new files on SIGHUP and when their contents change, until `shutdown`. Files that cannot be
/// used are reported once, and the previous ones stay in use.
pub(in crate::server) async fn follow(tls: Tls, shutdown: CancellationToken) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "failed to listen for SIGHUP; certificates are not reloaded");
            return;
        }
    };
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reload = Reload { tls, refused: None };
    loop {
        let is_requested = tokio::select! {
            _ = checks.tick() => false,
            received = hangup.recv() => received.is_some(),
            () = shutdown.cancelled() => return,
        };
        reload.check(is_requested).await;
    }
}

pub(super) struct Reload {
    pub(super) tls: Tls,
    /// Reason of the last refusal, which is not repeated.
    pub(super) refused: Option<String>,
}

impl Reload {
    pub(super) async fn check(&mut self, is_requested: bool) {
        match self.load().await {
            Ok(is_replaced) => {
                self.refused = None;
                if is_replaced || is_requested {
                    tracing::info!(tls_cert = %self.tls.files.cert.display(), "loaded the TLS certificate");
                }
            }
            Err(error) => {
                let reason = Some(error.to_string());
                if is_requested || self.refused != reason {
                    tracing::warn!(%error, "refused the new TLS files; the previous ones stay in use");
                }
                self.refused = reason;
            }
        }
    }

    /// Returns whether the files in use were replaced.
    async fn load(&self) -> Result<bool, TlsError> {
        let contents = self.tls.files.read().await?;
        if contents.digest() == self.tls.digest() {
            return Ok(false);
        }
        self.tls
            .replace(self.tls.files.check(&contents)?, &contents);
        Ok(true)
    }
}
