//! The way of a request through admission, decoding, the engine and back.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{io::AsyncReadExt, sync::oneshot};

use crate::{
    imaging::Limits,
    telemetry::metrics::{self, ImageOutcome, RejectionReason},
};

use super::{
    Error, Priority, ServedModel,
    admission::{Admission, Door, Place},
    annotate,
    decoding::{Decoded, decode},
    engine::{Engine, Item, Output},
    statistics::Statistics,
};

pub use super::decoding::Picture;

/// What one call asks.
#[derive(Debug)]
pub struct Request {
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// The pictures.
    pub images: Vec<Picture>,
    /// Also draw the age on each picture, where there is one to draw on.
    pub annotate: bool,
    /// The level of the intervals, one of the model's calibration; `None` for no intervals.
    pub interval_level: Option<f64>,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Whether somebody waits for it.
    pub priority: Priority,
}

/// The answer for one picture.
#[derive(Debug)]
pub struct Answer {
    /// Age in years.
    pub age: f64,
    /// Lower and upper end in years, and the share of true ages between them.
    pub interval: Option<(f64, f64, f64)>,
    /// Width and height of the oriented picture in pixels.
    pub dimensions: (u32, u32),
    /// The picture with the age drawn on it, PNG.
    pub annotated_png: Option<Vec<u8>>,
    /// Decoding, orientation and resizing.
    pub decode: Duration,
    /// Waiting for the engine.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Predictor {
    engine: Engine,
    pool: Arc<rayon::ThreadPool>,
    door: Door,
    limits: Limits,
}

impl Predictor {
    /// Joins an engine with a pool of `decode_threads` threads (0: one for each core).
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(
        engine: Engine,
        decode_threads: usize,
        max_queued: usize,
        limits: Limits,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(decode_threads)
            .thread_name(|index| format!("decode-{index}"))
            .panic_handler(|_| tracing::error!("a decoding thread panicked"))
            .build()?;
        Ok(Predictor {
            engine,
            pool: Arc::new(pool),
            door: Door::new(max_queued),
            limits,
        })
    }

    /// Loads and warms a version beside the predictions.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn load(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        self.engine.load(model, false).await
    }

    /// The same for the version that is served by default, which stays loaded until another one is.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn load_live(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        self.engine.load(model, true).await
    }

    /// Takes places for the pictures of a request, or refuses at once.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn admit(
        &self,
        model: &ServedModel,
        images: usize,
        priority: Priority,
    ) -> Result<Admission, Error> {
        self.door.admit(images, priority).inspect_err(|_| {
            // One that is refused has failed.
            drop(self.statistics().begin(&model.name));
        })
    }

    /// What the versions have done.
    pub fn statistics(&self) -> &Statistics {
        self.engine.statistics()
    }

    /// Places that background work may hold at once.
    pub fn background_places(&self) -> usize {
        self.door.background_places()
    }

    /// Predicts one picture that lies in a file, when there is a place for background work. It is in none of Predict's counts.
    ///
    /// # Errors
    /// A picture that cannot be read (`File`, `Image`), or a model that does not compute.
    pub async fn predict_file(
        &self,
        model: Arc<ServedModel>,
        index: usize,
        path: &Path,
    ) -> Result<f64, Error> {
        self.engine.ensure_loaded(&model).await?;
        let place = self.door.admit_background().await?;
        let bytes = read(path, self.limits.max_bytes).await;
        let job = DecodeJob {
            index,
            picture: Picture::Encoded(bytes.map_err(|source| Error::File { index, source })?),
            model: Arc::clone(&model),
            keep_picture: false,
            deadline: None,
            priority: Priority::Batch,
            place,
        };
        let done = self.start(job).await.map_err(|_| Error::EngineGone)??;
        finite_age(&model, index, &done)
    }

    /// Runs a computation on the decoding threads; dropping the future does not end it.
    ///
    /// # Errors
    /// `EngineGone` when it panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // Nobody may wait for it any more.
        self.pool.spawn(move || drop(reply.send(work())));
        answer.await.map_err(|_| Error::EngineGone)
    }

    /// Predicts all pictures of a request, in order; the first failure is the call's failure.
    ///
    /// # Errors
    /// A picture that cannot be read, a deadline that passed, or a model that does not compute.
    pub async fn predict(
        &self,
        request: Request,
        admission: Admission,
    ) -> Result<Vec<Answer>, Error> {
        let counted = self.statistics().begin(&request.model.name);
        let mut tally = Tally::new(request.images.len(), request.deadline);
        // Before anything is decoded: a version that is not loaded takes its time, and others go on meanwhile.
        let loaded = self.engine.ensure_loaded(&request.model).await;
        loaded.inspect_err(|_| tally.finish_all(ImageOutcome::Failed))?;
        let mut places = admission;
        let mut pending = Vec::with_capacity(request.images.len());
        for (index, picture) in request.images.into_iter().enumerate() {
            let place = places.split().ok_or(Error::EngineGone)?;
            let job = DecodeJob {
                index,
                picture,
                model: Arc::clone(&request.model),
                keep_picture: request.annotate,
                deadline: request.deadline,
                priority: request.priority,
                place,
            };
            pending.push(self.start(job));
        }
        let mut answers = Vec::with_capacity(pending.len());
        for (index, answer) in pending.into_iter().enumerate() {
            let answer = answer.await.map_err(|_| Error::EngineGone).flatten();
            let answer = match answer {
                Ok(done) => {
                    self.finish(&request.model, request.interval_level, index, done)
                        .await
                }
                Err(error) => Err(error),
            };
            tally.finish(outcome(&answer));
            answers.push(answer);
        }
        let answers = answers.into_iter().collect::<Result<Vec<_>, Error>>()?;
        counted.succeeded(&answers);
        Ok(answers)
    }

    /// Decodes on the pool and hands over to the engine; dropping the receiver drops the work.
    fn start(
        &self,
        job: DecodeJob,
    ) -> impl Future<Output = Result<Result<Done, Error>, oneshot::error::RecvError>> + use<> {
        let (reply, answer) = oneshot::channel();
        let (decoded_reply, decoded) = oneshot::channel();
        let engine = self.engine.clone();
        let limits = self.limits;
        self.pool.spawn(move || {
            if decoded_reply.is_closed() {
                metrics::prediction_rejected(RejectionReason::ClientGone);
                return;
            }
            let model = Arc::clone(&job.model);
            let (deadline, priority, place) = (job.deadline, job.priority, job.place);
            let outcome = decode(
                job.index,
                &job.picture,
                &model,
                job.keep_picture,
                deadline,
                limits,
            );
            let sent = match outcome {
                Ok((pixels, picture)) => {
                    let item = Item {
                        pixels,
                        model,
                        deadline,
                        reply,
                        priority,
                        enqueued: Instant::now(),
                        place,
                    };
                    decoded_reply.send(engine.submit(item).map(|()| picture))
                }
                Err(error) => decoded_reply.send(Err(error)),
            };
            // A client that has left needs no answer.
            drop(sent);
        });
        async move {
            let decoded = match decoded.await? {
                Ok(decoded) => decoded,
                Err(error) => return Ok(Err(error)),
            };
            Ok(answer.await?.map(|(output, place)| Done {
                decoded,
                output,
                place,
            }))
        }
    }

    async fn finish(
        &self,
        model: &ServedModel,
        interval_level: Option<f64>,
        index: usize,
        done: Done,
    ) -> Result<Answer, Error> {
        let age = finite_age(model, index, &done)?;
        // Given back at the end: until it is drawn, the picture takes memory.
        let Done {
            decoded,
            output,
            place: _place,
        } = done;
        let interval = interval_level.and_then(|level| {
            let (lower, upper) = model.calibration.as_ref()?.interval(level, age)?;
            Some((lower, upper, level))
        });
        let annotated_png = match decoded.picture {
            None => None,
            Some(picture) => {
                let drawn = self.compute(move || annotate::draw(picture, age, interval));
                Some(drawn.await?)
            }
        };
        if !decoded.is_prepared {
            metrics::image_decoded(decoded.seconds);
        }
        metrics::image_dequeued(output.queue);
        Ok(Answer {
            age,
            interval,
            dimensions: decoded.dimensions,
            annotated_png,
            decode: decoded.seconds,
            queue: output.queue,
            inference: output.inference,
        })
    }
}

fn finite_age(model: &ServedModel, index: usize, done: &Done) -> Result<f64, Error> {
    let age = done.output.age;
    if age.is_finite() {
        return Ok(age);
    }
    if done.decoded.is_prepared {
        // The network can overflow on numbers that no picture becomes, and its weights are not to blame.
        metrics::prediction_rejected(RejectionReason::InvalidImage);
        return Err(Error::Pixels {
            index,
            reason: format!("the numbers are too large to compute with: the age is {age}"),
        });
    }
    Err(Error::NotFinite {
        model: model.name.clone(),
        value: age,
        index,
    })
}

/// Reads a file up to one byte past the limit, by which decoding refuses it.
async fn read(path: &Path, limit: u64) -> std::io::Result<Bytes> {
    let file = fs_err::tokio::File::open(path).await?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes.into())
}

fn outcome(answer: &Result<Answer, Error>) -> ImageOutcome {
    match answer {
        Ok(_) => ImageOutcome::Ok,
        Err(Error::Image { .. } | Error::File { .. } | Error::Pixels { .. }) => {
            ImageOutcome::InvalidImage
        }
        Err(Error::QueueFull { .. }) => ImageOutcome::Overloaded,
        Err(Error::DeadlineExceeded) => ImageOutcome::Expired,
        Err(Error::Model { .. } | Error::NotFinite { .. } | Error::EngineGone) => {
            ImageOutcome::Failed
        }
    }
}

/// Counts every picture of a request once, also when the request is dropped because its client left or its deadline passed.
struct Tally {
    left: usize,
    deadline: Option<Instant>,
}

impl Tally {
    fn new(images: usize, deadline: Option<Instant>) -> Self {
        Tally {
            left: images,
            deadline,
        }
    }

    fn finish(&mut self, outcome: ImageOutcome) {
        self.left -= 1;
        metrics::image_finished(outcome);
    }

    fn finish_all(&mut self, outcome: ImageOutcome) {
        while self.left > 0 {
            self.finish(outcome);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let is_late = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let outcome = if is_late {
            ImageOutcome::Expired
        } else {
            ImageOutcome::Cancelled
        };
        for _ in 0..self.left {
            metrics::image_finished(outcome);
        }
    }
}

struct DecodeJob {
    index: usize,
    picture: Picture,
    model: Arc<ServedModel>,
    keep_picture: bool,
    deadline: Option<Instant>,
    priority: Priority,
    place: Place,
}

/// A picture that was computed.
struct Done {
    decoded: Decoded,
    output: Output,
    place: Place,
}
