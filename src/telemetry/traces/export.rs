//! The way of spans out of the process: a bounded queue, and a thread that sends what waits in batches.
//!
//! The thread has a runtime of its own, so an endpoint that is slow, away or wrong takes nothing from the calls: the queue fills, what does not fit is
//! dropped and counted, and the log says once that spans are lost and once that they are not any more.

use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
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

use super::KeyValue;
use crate::telemetry::{
    logging::chain,
    metrics::{self, SpanLoss},
};

/// Spans that may wait; some 2 MB.
const MOST_WAITING: usize = 4096;
/// Spans in one message to the collector.
const MOST_IN_BATCH: usize = 512;
/// How long a span waits for others to go with it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long the collector may take for a batch, repetitions included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The endpoint is no address.
    #[error("otlp_endpoint {endpoint:?} cannot be used: {source}; give http://host:port")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        source: ExporterBuildError,
    },
    /// The operating system refuses a thread.
    #[error("failed to start the thread that sends traces: {0}")]
    Thread(#[from] std::io::Error),
}

/// Where spans are put.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

impl Queue {
    /// Puts a span into the queue, or drops it where there is no room.
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

/// The thread that sends spans.
#[derive(Debug)]
pub(crate) struct ExporterThread {
    ending: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl ExporterThread {
    /// Sends what waits and ends, or gives up at the deadline; what is told after this call is dropped.
    pub(crate) async fn finish(self, deadline: Duration) {
        self.ending.cancel();
        if timeout(deadline, self.ended).await.is_err() {
            tracing::warn!(
                seconds = deadline.as_secs(),
                "left spans unsent at shutdown: the collector does not answer"
            );
        }
    }
}

/// Starts the thread.
pub(super) fn start(endpoint: &str) -> Result<(Queue, ExporterThread), Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut exporter = {
        let _inside = runtime.enter();
        opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|source| Error::Endpoint {
                endpoint: endpoint.to_owned(),
                source,
            })?
    };
    exporter.set_resource(&resource());
    let (queue, spans) = mpsc::channel(MOST_WAITING);
    let ending = CancellationToken::new();
    let (told, ended) = oneshot::channel();
    let sending = Sender {
        exporter,
        spans,
        is_losing: false,
    };
    let end = ending.clone();
    let thread = std::thread::Builder::new().name("traces".to_owned());
    // Not waited for but by the one who is told of its end: it may hang in the resolution of a name.
    drop(thread.spawn(move || {
        runtime.block_on(sending.run(end));
        told.send(()).ok();
    })?);
    Ok((Queue(queue), ExporterThread { ending, ended }))
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
    /// Whether the last batch was lost, so that the log tells of an outage once.
    is_losing: bool,
}

impl<E: SpanExporter> Sender<E> {
    async fn run(mut self, ending: CancellationToken) {
        let mut batch = Vec::with_capacity(MOST_IN_BATCH);
        while let Some(Some(first)) = ending.run_until_cancelled(self.spans.recv()).await {
            batch.push(first);
            let due = Instant::now() + LONGEST_WAIT;
            while batch.len() < MOST_IN_BATCH && !ending.is_cancelled() {
                let room = MOST_IN_BATCH - batch.len();
                let more = ending.run_until_cancelled(self.spans.recv_many(&mut batch, room));
                match timeout_at(due, more).await {
                    Ok(Some(count)) if count > 0 => {}
                    Ok(_) | Err(_) => break,
                }
            }
            self.export(std::mem::take(&mut batch)).await;
        }
        // Nothing more comes in, and what waits goes out.
        self.spans.close();
        while self.spans.recv_many(&mut batch, MOST_IN_BATCH).await > 0 {
            self.export(std::mem::take(&mut batch)).await;
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                metrics::trace_spans_sent(count);
                if self.is_losing {
                    tracing::info!("traces reach the collector again");
                }
                self.is_losing = false;
            }
            Err(error) => {
                metrics::trace_spans_lost(SpanLoss::ExportFailed, count);
                if !self.is_losing {
                    tracing::warn!(error = %chain(&error), "failed to send traces; spans are dropped until the collector answers");
                }
                self.is_losing = true;
            }
        }
    }
}
