//! The way of a request through admission, decoding, the engine and back.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, oneshot},
};

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
    explain::{self, Explanation},
    faces,
    statistics::Statistics,
};

pub use super::{decoding::Picture, faces::FaceAnswer};

/// What one call asks.
#[derive(Debug)]
pub struct Request {
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// The pictures.
    pub images: Vec<Picture>,
    /// What is wanted of each picture.
    pub wishes: Wishes,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Whether somebody waits for it.
    pub priority: Priority,
}

/// What is wanted of each picture beside its age.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// Also draw the age on the picture, where there is one to draw on.
    pub annotate: bool,
    /// Also say what each part of it adds to the age.
    pub explain: bool,
    /// Find the faces first, and predict each of them in place of the whole picture.
    pub detect_faces: bool,
    /// The level of the intervals, one of the model's calibration; `None` for no intervals.
    pub interval_level: Option<f64>,
}

/// An explanation, as numbers and as a picture.
#[derive(Debug)]
pub struct Explained {
    /// What each part adds to the age.
    pub explanation: Explanation,
    /// The same laid over the picture, PNG, where there is one to draw on.
    pub png: Option<Vec<u8>>,
}

/// The answer for one picture.
#[derive(Debug)]
pub struct Answer {
    /// Age in years; not a number where faces were looked for and there is none.
    pub age: f64,
    /// Lower and upper end in years, and the share of true ages between them.
    pub interval: Option<(f64, f64, f64)>,
    /// Width and height of the oriented picture in pixels.
    pub dimensions: (u32, u32),
    /// The picture with the age drawn on it, PNG.
    pub annotated_png: Option<Vec<u8>>,
    /// Where the age comes from; with faces they have their own.
    pub explanation: Option<Explained>,
    /// The faces, if they were looked for; the age is that of the first.
    pub faces: Option<Vec<FaceAnswer>>,
    /// Decoding, orientation and resizing; with faces also the search.
    pub decode: Duration,
    /// Waiting for the engine.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Predictor {
    pub(super) engine: Engine,
    pub(super) pool: Arc<rayon::ThreadPool>,
    pub(super) door: Door,
    pub(super) limits: Limits,
    /// Pictures whose faces are in memory at once.
    pub(super) searches: Arc<Semaphore>,
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
            searches: Arc::new(Semaphore::new(faces::MOST_SEARCHES)),
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
            explain: false,
            deadline: None,
            priority: Priority::Batch,
            place,
        };
        let done = self.start(job).await.map_err(|_| Error::EngineGone)??;
        finite_age(&model, index, done.output.age, done.decoded.is_prepared)
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
        let Wishes {
            annotate, explain, ..
        } = request.wishes;
        let mut places = admission;
        let mut jobs = Vec::with_capacity(request.images.len());
        for (index, picture) in request.images.into_iter().enumerate() {
            jobs.push(DecodeJob {
                index,
                picture,
                model: Arc::clone(&request.model),
                keep_picture: annotate || (explain && !request.wishes.detect_faces),
                explain,
                deadline: request.deadline,
                priority: request.priority,
                place: places.split().ok_or(Error::EngineGone)?,
            });
        }
        let mut answers = Vec::with_capacity(jobs.len());
        if request.wishes.detect_faces {
            let mut pending = stream::iter(jobs)
                .map(|job| self.predict_faces(job, request.wishes))
                .buffered(faces::MOST_SEARCHES);
            while let Some(answer) = pending.next().await {
                tally.finish(outcome(&answer));
                answers.push(answer);
            }
        } else {
            let pending: Vec<_> = jobs.into_iter().map(|job| self.start(job)).collect();
            for (index, answer) in pending.into_iter().enumerate() {
                let answer = answer.await.map_err(|_| Error::EngineGone).flatten();
                let answer = match answer {
                    Ok(done) => {
                        self.finish(&request.model, request.wishes, index, done)
                            .await
                    }
                    Err(error) => Err(error),
                };
                tally.finish(outcome(&answer));
                answers.push(answer);
            }
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
            let (deadline, priority, explain, place) =
                (job.deadline, job.priority, job.explain, job.place);
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
                        explain,
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
        wishes: Wishes,
        index: usize,
        done: Done,
    ) -> Result<Answer, Error> {
        let is_prepared = done.decoded.is_prepared;
        let age = finite_age(model, index, done.output.age, is_prepared)?;
        // Given back at the end: until it is drawn, the picture takes memory.
        let Done {
            decoded,
            output,
            place: _place,
        } = done;
        let interval = interval(model, wishes.interval_level, age);
        let (picture, explanation) = (decoded.picture, output.explanation);
        let draw = move || {
            let pngs = picture.map(|picture| {
                let explained = explanation
                    .as_ref()
                    .map(|explanation| explain::draw(picture.clone(), explanation));
                let annotated = wishes
                    .annotate
                    .then(|| annotate::draw(picture, age, interval));
                (annotated, explained)
            });
            let (annotated_png, png) = pngs.unwrap_or_default();
            let explained = explanation.map(|explanation| Explained { explanation, png });
            (annotated_png, explained)
        };
        let (annotated_png, explanation) = match wishes.annotate || wishes.explain {
            true => self.compute(draw).await?,
            false => (None, None),
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
            explanation,
            faces: None,
            decode: decoded.seconds,
            queue: output.queue,
            inference: output.inference,
        })
    }
}

/// Lower and upper end in years, and the share, where the version has the level.
pub(super) fn interval(
    model: &ServedModel,
    level: Option<f64>,
    age: f64,
) -> Option<(f64, f64, f64)> {
    let level = level?;
    let (lower, upper) = model.calibration.as_ref()?.interval(level, age)?;
    Some((lower, upper, level))
}

/// The age, unless it is no number.
pub(super) fn finite_age(
    model: &ServedModel,
    index: usize,
    age: f64,
    is_prepared: bool,
) -> Result<f64, Error> {
    if age.is_finite() {
        return Ok(age);
    }
    if is_prepared {
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

pub(super) struct DecodeJob {
    pub(super) index: usize,
    pub(super) picture: Picture,
    pub(super) model: Arc<ServedModel>,
    /// To draw on it.
    pub(super) keep_picture: bool,
    pub(super) explain: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) priority: Priority,
    pub(super) place: Place,
}

/// A picture that was computed.
struct Done {
    decoded: Decoded,
    output: Output,
    place: Place,
}
