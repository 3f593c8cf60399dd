use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::{
    server::network::{self, PortOptions, Sockets},
    telemetry::exporter,
};

/// Serves the pages until `shutdown` and maintains the metrics meanwhile. Running requests may
/// finish within `grace`.
pub(in crate::server) async fn serve(
    sockets: Sockets,
    router: Router,
    options: PortOptions,
    metrics: exporter::Handle,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let serving = network::serve(sockets, router, options, &shutdown);
    let grace_expired = async {
        metrics.upkeep(&shutdown).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = serving => {}
        () = grace_expired => {
            tracing::warn!(
                seconds = grace.as_secs_f64(),
                "HTTP requests did not finish within the grace period and are dropped"
            );
        }
    }
}
