//! PredictBatch: any number of images on one stream, each answered with its age or its error.
//!
//! Only the few images in flight are kept in memory: the next one is read from the stream when
//! there is room for it, and HTTP/2 flow control makes the client wait meanwhile. The images have
//! batch priority, and wait for permits instead of being refused.

use std::{
    future::ready,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use super::{interval::interval_level, message::prediction, resolver::PredictionResolver};
use crate::{
    inference::{self, Client, Image, PredictOptions, Predictor, ServedModel},
    proto::v1::{
        self, BatchImage, PredictBatchOptions, PredictBatchRequest, PredictBatchResponse,
        predict_batch_request::Part, predict_batch_response::Result as Outcome,
    },
    services::{
        caller::Caller,
        compression::uncompressed,
        limit::CallLimit,
        status::{self, Calls},
        task::spawn_abort_on_drop,
    },
};

/// Images of a stream in flight: twice what the engine computes together at batch priority, so that
/// it never waits for the next ones.
const IN_FLIGHT: usize = 16;
/// Streams at once, which bounds their memory.
const MAX_STREAMS: usize = 16;
/// Longest wait for a client to receive a response, or to send a message while none of its images
/// is in flight, so that an idle client does not occupy a stream forever.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// All streams of the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BatchStreams {
    limit: CallLimit,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

pub(crate) type BatchResponses =
    Pin<Box<dyn Stream<Item = Result<PredictBatchResponse, Status>> + Send>>;

/// One stream.
struct Batch {
    predictor: Predictor,
    model: Arc<ServedModel>,
    options: PredictOptions,
    client: Client,
    _permit: OwnedSemaphorePermit,
}

impl BatchStreams {
    /// `shutdown` ends the streams with UNAVAILABLE; `tasks` owns them.
    pub(crate) fn new(shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        BatchStreams {
            limit: CallLimit::new(Calls::Batches, MAX_STREAMS),
            shutdown,
            tasks,
        }
    }

    /// Predicts a stream of images, in order.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for invalid options, RESOURCE_EXHAUSTED for too many streams, and those of
    /// [`PredictionResolver::resolve`].
    pub(super) async fn predict(
        &self,
        resolver: &PredictionResolver,
        request: Request<Streaming<PredictBatchRequest>>,
    ) -> Result<Response<BatchResponses>, Status> {
        let caller = Caller::of(&request)?;
        let BatchStreams {
            limit,
            shutdown,
            tasks,
        } = self.clone();
        let permit = limit.acquire()?;
        let mut requests = request.into_inner();
        let first = tokio::select! {
            first = next(&mut requests, CLIENT_TIMEOUT, || false) => first.transpose()?,
            () = shutdown.cancelled() => return Err(status::stream_ends()),
        };
        let (options, first) = match first.map(|request| request.part) {
            Some(Some(Part::Options(options))) => (options, None),
            Some(part) => (PredictBatchOptions::default(), Some(part)),
            None => (PredictBatchOptions::default(), None),
        };
        let model = resolver.resolve_field(&options.model).await?;
        let batch = Arc::new(Batch {
            predictor: resolver.predictor.clone(),
            options: predict_options(&model, &options)?,
            model,
            client: caller.client,
            _permit: permit,
        });
        let in_flight = TaskTracker::new();
        let images = in_flight.clone();
        let rest = stream::unfold((requests, images), |(mut requests, images)| async {
            let request = next(&mut requests, CLIENT_TIMEOUT, || !images.is_empty()).await?;
            Some((request.map(|request| request.part), (requests, images)))
        });
        let predict = move |(index, part): (usize, Result<Option<Part>, Status>)| {
            let batch = Arc::clone(&batch);
            let token = in_flight.token();
            spawn_abort_on_drop(async move {
                let response = batch.predict(index, image(index, part?)?).await;
                drop(token);
                response
            })
        };
        // Images that have been read are still predicted when the server shuts down.
        let responses = stream::iter(first.map(Ok))
            .chain(rest)
            .take_until(shutdown.clone().cancelled_owned())
            .enumerate()
            .map(predict)
            .buffered(IN_FLIGHT);
        let last = stream::once(async move { shutdown.is_cancelled() })
            .filter(|is_cancelled| ready(*is_cancelled))
            .map(|_| Err(status::stream_ends()));
        let sent = send(responses.chain(last), CLIENT_TIMEOUT, &tasks);
        Ok(uncompressed(Box::pin(sent)))
    }
}

/// Returns the next message, or an error if the client has sent nothing for `timeout` while it was
/// not `busy`.
async fn next<T>(
    requests: &mut (impl Stream<Item = Result<T, Status>> + Unpin),
    timeout: Duration,
    busy: impl Fn() -> bool,
) -> Option<Result<T, Status>> {
    loop {
        match tokio::time::timeout(timeout, requests.next()).await {
            Ok(message) => return message,
            Err(_) if busy() => {}
            Err(_) => return Some(Err(status::batch_not_sent(timeout))),
        }
    }
}

/// Forwards a stream in a task of its own. The task ends, and drops the stream, when the client
/// leaves or receives nothing for `timeout`.
fn send<T: Send + 'static>(
    responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    timeout: Duration,
    tasks: &TaskTracker,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    let timed_out = Arc::new(AtomicBool::new(false));
    let has_timed_out = Arc::clone(&timed_out);
    tasks.spawn(async move {
        let mut responses = std::pin::pin!(responses);
        loop {
            let response = tokio::select! {
                response = responses.next() => response,
                () = sender.closed() => return,
            };
            let Some(response) = response else {
                return;
            };
            match tokio::time::timeout(timeout, sender.send(response)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    timed_out.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
    // A client that reads again must not mistake what it received for all responses.
    let last = stream::once(async move { has_timed_out.load(Ordering::Relaxed) })
        .filter(|has_timed_out| ready(*has_timed_out))
        .map(move |_| Err(status::batch_not_read(timeout)));
    ReceiverStream::new(receiver).chain(last)
}

impl Batch {
    /// Predicts one image; an image that cannot be read has an error of its own in the response.
    async fn predict(
        &self,
        index: usize,
        image: BatchImage,
    ) -> Result<PredictBatchResponse, Status> {
        let encoded = Image::Encoded(image.image);
        let client = self.client.clone();
        let result = self
            .predictor
            .predict_queued(index, encoded, &self.model, self.options, client)
            .await;
        let outcome = match result {
            Ok(found) => Outcome::Prediction(prediction(found)),
            Err(error @ (inference::Error::Image { .. } | inference::Error::Pixels { .. })) => {
                Outcome::Error(image_error(&Status::from(error)))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(PredictBatchResponse {
            index: index as u64,
            id: image.id,
            model_version: self.model.name.clone(),
            result: Some(outcome),
        })
    }
}

fn predict_options(
    model: &ServedModel,
    options: &PredictBatchOptions,
) -> Result<PredictOptions, Status> {
    Ok(PredictOptions {
        annotate: options.annotate,
        explain: options.explain,
        detect_faces: options.detect_faces,
        average_flip: options.average_flip,
        interval_level: interval_level(model, options.interval_level, "options.interval_level")?,
    })
}

/// Returns the image of a message.
///
/// # Errors
/// INVALID_ARGUMENT for a message without one, which ends the stream: its client has lost track of
/// the indices.
fn image(index: usize, part: Option<Part>) -> Result<BatchImage, Status> {
    match part {
        Some(Part::Image(image)) => Ok(image),
        Some(Part::Options(_)) => Err(status::invalid(
            "options",
            format!(
                "options must be the first message, got {index} images before them; start another stream for other options"
            ),
        )),
        None => Err(status::invalid(
            "image",
            format!("message {index} after the options must contain an encoded image"),
        )),
    }
}

fn image_error(status: &Status) -> v1::ImageError {
    let reason = status.get_details_error_info().map(|info| info.reason);
    v1::ImageError {
        code: status.code() as i32,
        reason: reason.unwrap_or_default(),
        message: status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn client_that_receives_nothing_times_out_with_an_error() {
        let tasks = TaskTracker::new();
        let responses = stream::iter((0..10).map(Ok));
        let held = Arc::new(());
        let holding = Arc::clone(&held);
        let responses = responses.inspect(move |_| drop(Arc::clone(&holding)));
        let sent = send(responses, Duration::from_millis(20), &tasks);
        tasks.close();
        tasks.wait().await;
        assert_eq!(
            Arc::strong_count(&held),
            1,
            "the stream has not been dropped"
        );
        let found: Vec<Result<i32, Status>> = sent.collect().await;
        // One is in the channel.
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].as_ref().unwrap(), &0);
        let status = found[1].as_ref().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Aborted);
    }

    #[tokio::test]
    async fn client_that_reads_gets_all_and_no_error() {
        let tasks = TaskTracker::new();
        let responses = stream::iter((0..10).map(Ok));
        let sent = send(responses, Duration::from_secs(60), &tasks);
        let found: Vec<i32> = sent.map(Result::unwrap).collect().await;
        assert_eq!(found, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn client_that_sends_nothing_times_out_once_it_has_all_responses() {
        let timeout = Duration::from_millis(20);
        let mut silent = Box::pin(stream::pending::<Result<(), Status>>());
        let started = std::time::Instant::now();
        let checks = std::cell::Cell::new(0);
        let busy = || checks.replace(checks.get() + 1) < 2;
        let last = next(&mut silent, timeout, busy).await;
        let status = last.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Aborted);
        // Busy twice, then idle.
        assert_eq!(checks.get(), 3);
        assert!(started.elapsed() >= 3 * timeout);
        let mut sending = stream::iter([Ok(7)]);
        let first = next(&mut sending, timeout, || false).await;
        assert_eq!(first.unwrap().unwrap(), 7);
        assert!(next(&mut sending, timeout, || false).await.is_none());
    }
}
