//! PredictBatch: any number of images on one stream, each answered with its age or with what is wrong with it.
//!
//! Nothing is kept but the few images that are on their way: the next one is read from the stream when there is room for it, and HTTP/2 tells the client to wait
//! meanwhile. The images go last where somebody waits for others, and wait for places in the queue instead of being refused.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use crate::{
    inference::{self, Client, Image, PredictOptions, ServedModel},
    proto::v1::{
        self, BatchImage, PredictBatchOptions, PredictBatchRequest, PredictBatchResponse,
        predict_batch_request::Part, predict_batch_response::Result as Outcome,
    },
};

use super::{
    caller::Caller,
    interval::interval_level,
    prediction::{PredictionApi, prediction},
    spawn_abort_on_drop, status, uncompressed,
};

/// Images of a call that are on their way at once: twice what the engine computes together of images that nobody waits for, so that it never waits for the next.
const IN_FLIGHT: usize = 16;
/// Calls at once, so that what they have in memory is bounded.
const MOST_CALLS: usize = 16;
/// Longest wait for a client to take an answer, or to send something while none of its images is on its way, so that none holds a call's place for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the calls have in common. Cheap to clone.
#[derive(Clone)]
pub struct BatchCalls {
    free: Arc<Semaphore>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl BatchCalls {
    /// `shutdown` ends them with UNAVAILABLE; `tasks` owns them.
    pub fn new(shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        BatchCalls {
            free: Arc::new(Semaphore::new(MOST_CALLS)),
            shutdown,
            tasks,
        }
    }
}

/// The answers of a call.
pub type Answers = Pin<Box<dyn Stream<Item = Result<PredictBatchResponse, Status>> + Send>>;

/// How the images of a call are predicted.
struct Batch {
    api: PredictionApi,
    model: Arc<ServedModel>,
    options: PredictOptions,
    client: Client,
    /// The call's place among all calls.
    _slot: OwnedSemaphorePermit,
}

impl PredictionApi {
    /// Answers a stream of images, in order.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for options that cannot be met, RESOURCE_EXHAUSTED when too many such calls run, and those of [`PredictionApi::served`].
    pub(super) async fn answer_batch(
        &self,
        request: Request<Streaming<PredictBatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = Caller::of(&request)?;
        let BatchCalls {
            free,
            shutdown,
            tasks,
        } = self.batch_calls.clone();
        let slot = free
            .try_acquire_owned()
            .map_err(|_| status::too_many_batches(MOST_CALLS))?;
        let mut requests = request.into_inner();
        let first = tokio::select! {
            first = next(&mut requests, PATIENCE, || false) => first.transpose()?,
            () = shutdown.cancelled() => return Err(status::stream_ends()),
        };
        let (options, first) = match first.map(|request| request.part) {
            Some(Some(Part::Options(options))) => (options, None),
            Some(part) => (PredictBatchOptions::default(), Some(part)),
            None => (PredictBatchOptions::default(), None),
        };
        let model = self.named(&options.model).await?;
        let batch = Arc::new(Batch {
            api: self.clone(),
            options: predict_options(&model, &options)?,
            model,
            client: caller.client,
            _slot: slot,
        });
        let on_their_way = TaskTracker::new();
        let images = on_their_way.clone();
        let rest = stream::unfold((requests, images), |(mut requests, images)| async {
            let request = next(&mut requests, PATIENCE, || !images.is_empty()).await?;
            Some((request.map(|request| request.part), (requests, images)))
        });
        let answer = move |(index, part): (usize, Result<Option<Part>, Status>)| {
            let batch = Arc::clone(&batch);
            let token = on_their_way.token();
            spawn_abort_on_drop(async move {
                let answer = batch.answer(index, image(index, part?)?).await;
                drop(token);
                answer
            })
        };
        // What has been read is still answered when the server ends.
        let answers = stream::iter(first.map(Ok))
            .chain(rest)
            .take_until(shutdown.clone().cancelled_owned())
            .enumerate()
            .map(answer)
            .buffered(IN_FLIGHT);
        let last = stream::once(async move { shutdown.is_cancelled() })
            .filter(|is_ending| ready(*is_ending))
            .map(|_| Err(status::stream_ends()));
        let sent = sent(answers.chain(last), PATIENCE, &tasks);
        Ok(uncompressed(Box::pin(sent)))
    }
}

/// The next message, or an error when the client has sent nothing for as long as `patience` while it was not `busy`.
async fn next<T>(
    requests: &mut (impl Stream<Item = Result<T, Status>> + Unpin),
    patience: Duration,
    busy: impl Fn() -> bool,
) -> Option<Result<T, Status>> {
    loop {
        match tokio::time::timeout(patience, requests.next()).await {
            Ok(message) => return message,
            Err(_) if busy() => {}
            Err(_) => return Some(Err(status::not_sent(patience))),
        }
    }
}

/// Hands a stream on in a task of its own, which ends, and everything that it holds with it, when the client leaves or takes nothing for as long as `patience`.
fn sent<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    patience: Duration,
    tasks: &TaskTracker,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    let out_of_patience = Arc::new(AtomicBool::new(false));
    let is_out = Arc::clone(&out_of_patience);
    tasks.spawn(async move {
        let mut answers = std::pin::pin!(answers);
        loop {
            let answer = tokio::select! {
                answer = answers.next() => answer,
                () = sender.closed() => return,
            };
            let Some(answer) = answer else {
                return;
            };
            match tokio::time::timeout(patience, sender.send(answer)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    out_of_patience.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
    // A client that comes back must not take what it got for everything.
    let last = stream::once(async move { is_out.load(Ordering::Relaxed) })
        .filter(|is_out| ready(*is_out))
        .map(move |_| Err(status::not_taken(patience)));
    ReceiverStream::new(receiver).chain(last)
}

impl Batch {
    /// The answer for one image; what is wrong with the image is an answer too.
    async fn answer(
        &self,
        index: usize,
        image: BatchImage,
    ) -> Result<PredictBatchResponse, Status> {
        let encoded = Image::Encoded(image.image);
        let predictor = &self.api.predictor;
        let answer = predictor
            .predict_queued(
                index,
                encoded,
                &self.model,
                self.options,
                self.client.clone(),
            )
            .await;
        let outcome = match answer {
            Ok(answer) => Outcome::Prediction(prediction(answer)),
            Err(error @ (inference::Error::Image { .. } | inference::Error::Pixels { .. })) => {
                Outcome::Error(image_error(&status::from_inference(&error)))
            }
            Err(error) => return Err(status::from_inference(&error)),
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

/// The image of a message.
///
/// # Errors
/// INVALID_ARGUMENT for one without, which ends the call: a client that sends such has lost count.
fn image(index: usize, part: Option<Part>) -> Result<BatchImage, Status> {
    match part {
        Some(Part::Image(image)) => Ok(image),
        Some(Part::Options(_)) => Err(status::invalid(
            "options",
            &format!(
                "they come behind {index} images; send them first and once, or begin another call for other options"
            ),
        )),
        None => Err(status::invalid(
            "image",
            &format!("message {index} after the options has none; give an encoded image"),
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
    async fn client_that_takes_nothing_is_given_up_and_told_so() {
        let tasks = TaskTracker::new();
        let answers = stream::iter((0..10).map(Ok));
        let held = Arc::new(());
        let holding = Arc::clone(&held);
        let answers = answers.inspect(move |_| drop(Arc::clone(&holding)));
        let sent = sent(answers, Duration::from_millis(20), &tasks);
        tasks.close();
        tasks.wait().await;
        assert_eq!(Arc::strong_count(&held), 1, "something is held on to");
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
        let answers = stream::iter((0..10).map(Ok));
        let sent = sent(answers, Duration::from_secs(60), &tasks);
        let found: Vec<i32> = sent.map(Result::unwrap).collect().await;
        assert_eq!(found, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn client_that_sends_nothing_is_given_up_once_it_has_all_answers() {
        let patience = Duration::from_millis(20);
        let mut silent = Box::pin(stream::pending::<Result<(), Status>>());
        let begun = std::time::Instant::now();
        let asked = std::cell::Cell::new(0);
        let busy = || asked.replace(asked.get() + 1) < 2;
        let last = next(&mut silent, patience, busy).await;
        let status = last.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Aborted);
        // Busy twice, then idle.
        assert_eq!(asked.get(), 3);
        assert!(begun.elapsed() >= 3 * patience);
        let mut sending = stream::iter([Ok(7)]);
        let first = next(&mut sending, patience, || false).await;
        assert_eq!(first.unwrap().unwrap(), 7);
        assert!(next(&mut sending, patience, || false).await.is_none());
    }
}
