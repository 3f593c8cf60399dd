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
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use crate::{
    imaging::Limits,
    telemetry::{
        metrics::{self, ImageOutcome, RejectionReason},
        traces::{self, Trace},
    },
};

use super::{
    Error, PrecisionReport, Priority, ServedModel,
    admission::{AdmissionController, Permit, PermitSet},
    annotate,
    cache::{Cache, Key},
    client::Client,
    decoding::{Decoded, DecodedImage, decode},
    engine::{Engine, Output},
    explain::{self, Explanation},
    faces,
    outcomes::{OutcomeRecorder, outcome},
    queue::{QueueEntry, unwanted},
    spans,
    statistics::Statistics,
};

pub use super::{decoding::Image, faces::FacePrediction};

/// Images that nobody waits for on the pool for each of its threads: one that is worked on, and the next, so that no thread waits for it.
const TURNS_OF_A_THREAD: usize = 2;

/// What one call asks.
#[derive(Debug)]
pub struct PredictRequest {
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// The images.
    pub images: Vec<Image>,
    /// What is wanted of each image.
    pub options: PredictOptions,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// Who asks.
    pub client: Client,
}

/// What is wanted of each image beside its age.
#[derive(Debug, Clone, Copy, Default)]
pub struct PredictOptions {
    /// Also draw the age on the image, where there is one to draw on.
    pub annotate: bool,
    /// Also say what each part of it adds to the age.
    pub explain: bool,
    /// Find the faces first, and predict each of them in permit of the whole image.
    pub detect_faces: bool,
    /// Take the mean over each image and its mirror image.
    pub average_flip: bool,
    /// The level of the intervals, one of the model's calibration; `None` for no intervals.
    pub interval_level: Option<f64>,
}

/// An explanation, as numbers and as an image.
#[derive(Debug, Clone)]
pub struct RenderedExplanation {
    /// What each part adds to the age.
    pub explanation: Explanation,
    /// The same laid over the image, PNG, where there is one to draw on.
    pub png: Option<Vec<u8>>,
}

/// The answer for one image.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// Age in years; not a number where faces were looked for and there is none.
    pub age: f64,
    /// Lower and upper end in years, and the share of true ages between them.
    pub interval: Option<(f64, f64, f64)>,
    /// Width and height of the oriented image in pixels.
    pub dimensions: (u32, u32),
    /// The image with the age drawn on it, PNG.
    pub annotated_png: Option<Vec<u8>>,
    /// Where the age comes from; with faces they have their own.
    pub explanation: Option<RenderedExplanation>,
    /// The faces, if they were looked for; the age is that of the first.
    pub faces: Option<Vec<FacePrediction>>,
    /// Whether the cache of answers had it; `None` where nobody looked there.
    pub cached: Option<bool>,
    /// Decoding, orientation and resizing; with faces also the search.
    pub decode: Duration,
    /// PriorityQueue for the engine.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Predictor {
    pub(super) engine: Engine,
    pub(super) pool: Arc<rayon::ThreadPool>,
    pub(super) admission: AdmissionController,
    pub(super) limits: Limits,
    /// Images whose faces are in memory at once.
    pub(super) searches: Arc<Semaphore>,
    /// What images that nobody waits for may take of the pool.
    batch_priority: Arc<Semaphore>,
    /// Answers that were given before, where they are kept.
    cache: Option<Cache>,
}

impl Predictor {
    /// Joins an engine with a pool of `decode_threads` threads (0: one for each core), and a cache of answers of at most `cache_bytes` (0: none).
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(
        engine: Engine,
        decode_threads: usize,
        max_queued: usize,
        cache_bytes: u64,
        limits: Limits,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(decode_threads)
            .thread_name(|index| format!("decode-{index}"))
            .panic_handler(|_| tracing::error!("a decoding thread panicked"))
            .build()?;
        Ok(Predictor {
            engine,
            batch_priority: Arc::new(Semaphore::new(
                TURNS_OF_A_THREAD * pool.current_num_threads(),
            )),
            pool: Arc::new(pool),
            admission: AdmissionController::new(max_queued),
            limits,
            searches: Arc::new(Semaphore::new(faces::MOST_SEARCHES)),
            cache: (cache_bytes > 0).then(|| Cache::new(cache_bytes)),
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
    pub async fn load_pinned(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        self.engine.load(model, true).await
    }

    /// Takes permits for the images of a client's request, or refuses at once.
    ///
    /// # Errors
    /// Those of [`AdmissionController::admit`].
    pub fn admit(
        &self,
        model: &ServedModel,
        client: &Client,
        images: usize,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<PermitSet, Error> {
        let admission = self.admission.admit(client, images, priority, deadline);
        admission.inspect_err(|_| {
            // One that is refused has failed.
            drop(self.statistics().begin(&model.name));
        })
    }

    /// What the versions have done.
    pub fn statistics(&self) -> &Statistics {
        self.engine.statistics()
    }

    /// What a version computes in, if it is loaded.
    pub fn precision_report(&self, model: &ServedModel) -> Option<PrecisionReport> {
        self.engine.precision_report(model)
    }

    /// Places that background work may hold at once.
    pub fn background_places(&self) -> usize {
        self.admission.background_places()
    }

    /// Predicts one image that lies in a file, when there is a permit for background work. It is in none of Predict's counts.
    ///
    /// # Errors
    /// An image that cannot be read (`File`, `Image`), or a model that does not compute.
    pub async fn predict_file(
        &self,
        model: Arc<ServedModel>,
        index: usize,
        path: &Path,
    ) -> Result<f64, Error> {
        self.engine.ensure_loaded(&model).await?;
        let permit = self.admission.acquire_background().await?;
        let bytes = read(path, self.limits.max_bytes).await;
        let job = DecodeJob {
            index,
            image: Image::Encoded(bytes.map_err(|source| Error::File { index, source })?),
            model: Arc::clone(&model),
            options: PredictOptions::default(),
            deadline: None,
            priority: Priority::Batch,
            client: Client::unknown(),
            trace: None,
            permit,
        };
        let done = self.start(job).await.map_err(|_| Error::EngineGone)??;
        finite_age(&model, index, done.output.age, done.decoded.is_preprocessed)
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

    /// Predicts all images of a request, in order; the first failure is the call's failure.
    ///
    /// # Errors
    /// An image that cannot be read, a deadline that passed, or a model that does not compute.
    pub async fn predict(
        &self,
        request: PredictRequest,
        admission: PermitSet,
    ) -> Result<Vec<Prediction>, Error> {
        let counted = self.statistics().begin(&request.model.name);
        let mut outcomes = OutcomeRecorder::new(request.images.len(), request.deadline);
        // Before anything is decoded: a version that is not loaded takes its time, and others go on meanwhile.
        let loaded = self.engine.ensure_loaded(&request.model).await;
        loaded.inspect_err(|_| outcomes.finish_all(ImageOutcome::Failed))?;
        let trace = traces::current();
        let mut permits = admission;
        let mut jobs = Vec::with_capacity(request.images.len());
        for (index, image) in request.images.into_iter().enumerate() {
            jobs.push(DecodeJob {
                index,
                image,
                model: Arc::clone(&request.model),
                options: request.options,
                deadline: request.deadline,
                priority: request.priority,
                client: request.client.clone(),
                trace: trace.clone(),
                permit: permits.split().ok_or(Error::EngineGone)?,
            });
        }
        let at_once = match request.options.detect_faces {
            true => faces::MOST_SEARCHES,
            false => jobs.len(),
        };
        let mut answers = Vec::with_capacity(jobs.len());
        let mut pending = stream::iter(jobs)
            .map(|job| self.answer(job))
            .buffered(at_once);
        while let Some(answer) = pending.next().await {
            outcomes.finish(outcome(&answer));
            answers.push(answer);
        }
        let answers = answers.into_iter().collect::<Result<Vec<_>, Error>>()?;
        counted.succeeded(&answers);
        Ok(answers)
    }

    /// Predicts one image of many, when there is a permit for one that nobody waits for. It counts as a request of its own, and `index` names it in errors.
    ///
    /// # Errors
    /// As [`Predictor::predict`], but for a full queue, where it waits.
    pub async fn predict_queued(
        &self,
        index: usize,
        image: Image,
        model: &Arc<ServedModel>,
        options: PredictOptions,
        client: Client,
    ) -> Result<Prediction, Error> {
        let permit = self.admission.acquire_batch().await?;
        let counted = self.statistics().begin(&model.name);
        let mut outcomes = OutcomeRecorder::new(1, None);
        let answer = async {
            self.engine.ensure_loaded(model).await?;
            let job = DecodeJob {
                index,
                image,
                model: Arc::clone(model),
                options,
                deadline: None,
                priority: Priority::Batch,
                client,
                trace: traces::current(),
                permit,
            };
            self.answer(job).await
        };
        let answer = answer.await;
        outcomes.finish(outcome(&answer));
        let answer = answer?;
        counted.succeeded(std::slice::from_ref(&answer));
        Ok(answer)
    }

    /// The answer for one image, from the cache where it is there.
    async fn answer(&self, job: DecodeJob) -> Result<Prediction, Error> {
        let cached = self.cache.as_ref().zip(Key::parts(&job));
        let Some((cache, parts)) = cached else {
            return self.compute_answer(job).await;
        };
        // A hash of a large file takes milliseconds.
        let key = self.compute(move || parts.key()).await?;
        if let Some(answer) = cache.get(&key) {
            return Ok(answer);
        }
        let answer = Prediction {
            cached: Some(false),
            ..self.compute_answer(job).await?
        };
        cache.insert(key, answer.clone());
        Ok(answer)
    }

    async fn compute_answer(&self, job: DecodeJob) -> Result<Prediction, Error> {
        if job.options.detect_faces {
            return self.predict_faces(job).await;
        }
        let (model, options, index) = (Arc::clone(&job.model), job.options, job.index);
        let done = self.start(job).await.map_err(|_| Error::EngineGone)??;
        self.finish(&model, options, index, done).await
    }

    /// A turn on the pool for an image that nobody waits for, so that few of them stand there before one that somebody waits for, which needs none. It is to
    /// be held until the pool is done with the image.
    pub(super) async fn turn(&self, priority: Priority) -> Option<OwnedSemaphorePermit> {
        match priority {
            Priority::Interactive => None,
            // It is never closed.
            Priority::Batch => Arc::clone(&self.batch_priority).acquire_owned().await.ok(),
        }
    }

    /// Decodes on the pool and hands over to the engine; dropping the future drops the work.
    async fn start(
        &self,
        job: DecodeJob,
    ) -> Result<Result<Done, Error>, oneshot::error::RecvError> {
        let begun = Instant::now();
        let turn = self.turn(job.priority).await;
        let (reply, answer) = oneshot::channel();
        let (decoded_reply, decoded) = oneshot::channel();
        let engine = self.engine.clone();
        let limits = self.limits;
        self.pool.spawn(move || {
            let _turn = turn;
            if decoded_reply.is_closed() {
                let reason = unwanted(job.deadline, true);
                reason.into_iter().for_each(metrics::prediction_rejected);
                return;
            }
            let (trace, begun) = (job.trace.clone(), Instant::now());
            let prepared = decode(&job, limits);
            spans::step(trace.as_ref(), "decode", job.index, begun);
            let sent = match prepared {
                Ok(DecodedImage { input, decoded }) => {
                    let item = QueueEntry {
                        input,
                        average_flip: job.options.average_flip,
                        model: job.model,
                        explain: job.options.explain,
                        deadline: job.deadline,
                        reply,
                        priority: job.priority,
                        client: job.client,
                        enqueued: Instant::now(),
                        trace,
                        permit: job.permit,
                    };
                    decoded_reply.send(engine.submit(item).map(|()| decoded))
                }
                Err(error) => decoded_reply.send(Err(error)),
            };
            // A client that has left needs no answer.
            drop(sent);
        });
        let decoded = match decoded.await? {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error)),
        };
        Ok(answer.await?.map(|(output, permit)| {
            permit.was_computed(begun.elapsed());
            Done {
                decoded,
                output,
                permit,
            }
        }))
    }

    async fn finish(
        &self,
        model: &ServedModel,
        options: PredictOptions,
        index: usize,
        done: Done,
    ) -> Result<Prediction, Error> {
        let is_preprocessed = done.decoded.is_preprocessed;
        let age = finite_age(model, index, done.output.age, is_preprocessed)?;
        // Given back at the end: until it is drawn, the image takes memory.
        let Done {
            decoded,
            output,
            permit: _place,
        } = done;
        let interval = interval(model, options.interval_level, age);
        let (image, explanation) = (decoded.image, output.explanation);
        let draw = move || {
            let pngs = image.map(|image| {
                let explained = explanation
                    .as_ref()
                    .map(|explanation| explain::draw(image.clone(), explanation));
                let annotated = options
                    .annotate
                    .then(|| annotate::draw(image, age, interval));
                (annotated, explained)
            });
            let (annotated_png, png) = pngs.unwrap_or_default();
            let explained = explanation.map(|explanation| RenderedExplanation { explanation, png });
            (annotated_png, explained)
        };
        let (annotated_png, explanation) = match options.annotate || options.explain {
            true => self.compute(draw).await?,
            false => (None, None),
        };
        if !decoded.is_preprocessed {
            metrics::image_decoded(decoded.seconds);
        }
        metrics::image_dequeued(output.queue);
        Ok(Prediction {
            age,
            interval,
            dimensions: decoded.dimensions,
            annotated_png,
            explanation,
            faces: None,
            cached: None,
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
    is_preprocessed: bool,
) -> Result<f64, Error> {
    if age.is_finite() {
        return Ok(age);
    }
    if is_preprocessed {
        // The network can overflow on numbers that no image becomes, and its weights are not to blame.
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

pub(super) struct DecodeJob {
    pub(super) index: usize,
    pub(super) image: Image,
    pub(super) model: Arc<ServedModel>,
    pub(super) options: PredictOptions,
    pub(super) deadline: Option<Instant>,
    pub(super) priority: Priority,
    pub(super) client: Client,
    /// The call's span, where it is followed.
    pub(super) trace: Option<Trace>,
    pub(super) permit: Permit,
}

impl DecodeJob {
    /// Whether it is to be drawn on.
    pub(super) fn keeps_image(&self) -> bool {
        let PredictOptions {
            annotate,
            explain,
            detect_faces,
            ..
        } = self.options;
        annotate || (explain && !detect_faces)
    }
}

/// An image that was computed.
struct Done {
    decoded: Decoded,
    output: Output,
    permit: Permit,
}
