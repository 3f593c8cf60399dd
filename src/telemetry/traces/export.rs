//! Export of spans: a bounded queue, and a thread that sends them in batches.
//!
//! The thread has its own runtime, so a slow or unreachable collector does not affect calls: the
//! queue fills up, further spans are dropped and counted, and the start and end of the outage are
//! logged once.

use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter},
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use super::KeyValue;
use crate::telemetry::{
    logging::chain,
    metrics::{self, SpanLoss},
};

/// Maximum duration of the export at the shutdown of the server.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(3);
/// Capacity of the queue in spans, about 2 MB.
const QUEUE_CAPACITY: usize = 4096;
/// Maximum number of spans in one request to the collector.
const MAX_BATCH: usize = 512;
/// Maximum time that a span waits for a batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// Timeout of the export of a batch, including retries.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "otlp_endpoint must be http://host:port or https://host:port, got {endpoint:?}: {source}"
    )]
    Endpoint {
        endpoint: String,
        source: ExporterBuildError,
    },
    #[error("failed to start the thread that exports traces: {0}")]
    Thread(#[from] std::io::Error),
}

#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

impl Queue {
    /// Queues a span, or drops it if the queue is full.
    pub(super) fn send(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            metrics::trace_spans_lost(SpanLoss::QueueFull, 1);
        }
    }
}

#[cfg(test)]
impl Queue {
    pub(super) fn for_test() -> (Self, mpsc::Receiver<SpanData>) {
        let (queue, spans) = mpsc::channel(16);
        (Queue(queue), spans)
    }
}

#[derive(Debug)]
pub(crate) struct ExporterThread {
    shutdown: CancellationToken,
    finished: oneshot::Receiver<()>,
}

impl ExporterThread {
    /// Exports the queued spans and stops the thread, or gives up at the deadline. Spans recorded
    /// after this call are dropped.
    pub(crate) async fn finish(self, deadline: Duration) {
        self.shutdown.cancel();
        if timeout(deadline, self.finished).await.is_err() {
            tracing::warn!(
                seconds = deadline.as_secs(),
                "the collector does not respond; spans were lost at shutdown"
            );
        }
    }
}

pub(super) fn start(endpoint: &str) -> Result<(Queue, ExporterThread), Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut exporter = {
        let _inside = runtime.enter();
        let mut builder = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT);
        if endpoint.starts_with("https://") {
            // The authorities of the system, or those of `SSL_CERT_FILE`.
            builder = builder.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        builder.build().map_err(|source| Error::Endpoint {
            endpoint: endpoint.to_owned(),
            source,
        })?
    };
    exporter.set_resource(&resource());
    let (queue, spans) = mpsc::channel(QUEUE_CAPACITY);
    let shutdown = CancellationToken::new();
    let (finished_sender, finished) = oneshot::channel();
    let sending = Sender {
        exporter,
        spans,
        is_losing: false,
    };
    let cancelled = shutdown.clone();
    let thread = std::thread::Builder::new().name("traces".to_owned());
    // Not joined, because it may hang in the resolution of a name; `finished` has a deadline.
    drop(thread.spawn(move || {
        runtime.block_on(sending.run(cancelled));
        finished_sender.send(()).ok();
    })?);
    Ok((Queue(queue), ExporterThread { shutdown, finished }))
}

fn resource() -> Resource {
    Resource::builder()
        .with_service_name("visage")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

struct Sender<E> {
    exporter: E,
    spans: mpsc::Receiver<SpanData>,
    /// The last batch was lost; an outage is logged once.
    is_losing: bool,
}

impl<E: SpanExporter> Sender<E> {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Some(Some(first)) = shutdown.run_until_cancelled(self.spans.recv()).await {
            batch.push(first);
            let due = Instant::now() + BATCH_DELAY;
            while batch.len() < MAX_BATCH && !shutdown.is_cancelled() {
                let room = MAX_BATCH - batch.len();
                let more = shutdown.run_until_cancelled(self.spans.recv_many(&mut batch, room));
                match timeout_at(due, more).await {
                    Ok(Some(count)) if count > 0 => {}
                    Ok(_) | Err(_) => break,
                }
            }
            self.export(std::mem::take(&mut batch)).await;
        }
        // Rejects further spans and exports the queued ones.
        self.spans.close();
        while self.spans.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.export(std::mem::take(&mut batch)).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                metrics::trace_spans_sent(count);
                if self.is_losing {
                    tracing::info!("the collector accepts traces again");
                }
                self.is_losing = false;
            }
            Err(error) => {
                metrics::trace_spans_lost(SpanLoss::ExportFailed, count);
                if !self.is_losing {
                    tracing::warn!(error = %chain(&error), "failed to export traces; spans are dropped until the collector responds");
                }
                self.is_losing = true;
            }
        }
    }
}
