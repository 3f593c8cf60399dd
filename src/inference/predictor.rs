//! The entry points: predictions for requests, for streamed images and for files.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use super::{
    Client, Engine, Error, Image, PrecisionReport, PredictOptions, PredictRequest, Prediction,
    Priority, ServedModel, Statistics,
    admission::Permit,
    cache::{CacheInput, PredictionCache},
    faces::{self, FaceSlots},
    job::Job,
    observer::RequestObserver,
    pipeline::Pipeline,
    whole_image,
};
use crate::{imaging::Limits, telemetry::traces};

/// Predicts ages. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Predictor {
    pipeline: Pipeline,
    face_slots: FaceSlots,
    cache: Option<PredictionCache>,
}

impl Predictor {
    /// Joins an engine with `decode_threads` decoding threads (0: one for each core) and a cache of
    /// at most `cache_bytes` (0: no cache).
    ///
    /// # Errors
    /// If the operating system refuses the threads.
    pub(crate) fn new(
        engine: Engine,
        decode_threads: usize,
        max_queued: usize,
        cache_bytes: u64,
        limits: Limits,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Predictor {
            pipeline: Pipeline::new(engine, decode_threads, max_queued, limits)?,
            face_slots: FaceSlots::new(),
            cache: (cache_bytes > 0).then(|| PredictionCache::new(cache_bytes)),
        })
    }

    /// Loads and warms a version while predictions continue.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    pub(crate) async fn load(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        self.pipeline.engine.load(model, false).await
    }

    /// The same for the version that is served by default; it stays loaded until another one is
    /// pinned.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    pub(crate) async fn load_pinned(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        self.pipeline.engine.load(model, true).await
    }

    /// Frees the memory of a version that is not served any more. Images that were admitted for it
    /// before must have their results.
    ///
    /// # Errors
    /// `EngineGone`.
    pub(crate) async fn evict(&self, sha256: &str) -> Result<(), Error> {
        if let Some(model) = self.pipeline.engine.evict(sha256).await? {
            self.pipeline.run(move || drop(model)).await?;
        }
        Ok(())
    }

    pub(crate) fn statistics(&self) -> &Statistics {
        self.pipeline.engine.statistics()
    }

    /// Returns the precision of a version; `None` if it is not loaded.
    pub(crate) fn precision_report(&self, model: &ServedModel) -> Option<PrecisionReport> {
        self.pipeline.engine.precision_report(model)
    }

    /// Runs a computation on the decoding threads. Dropping the future does not stop it.
    ///
    /// # Errors
    /// `EngineGone` if it panicked.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.pipeline.run(work).await
    }

    /// Admits and predicts all images of a request, in order. The first failure fails the request.
    ///
    /// # Errors
    /// A refusal by admission control, an image that cannot be read, a deadline that has passed, or
    /// a model that does not compute.
    pub(crate) async fn predict(&self, request: PredictRequest) -> Result<Vec<Prediction>, Error> {
        let PredictRequest {
            model,
            images,
            options,
            deadline,
            priority,
            client,
        } = request;
        let mut observer =
            RequestObserver::start(self.statistics(), &model, images.len(), deadline);
        let admission = &self.pipeline.admission;
        let mut permits = admission
            .admit(&client, images.len(), priority, deadline)
            .inspect_err(|error| observer.refused(error))?;
        // Loaded before anything is decoded: it takes time, and other requests continue meanwhile.
        let loaded = self.pipeline.engine.ensure_loaded(&model).await;
        loaded.inspect_err(|_| observer.not_loaded())?;
        let trace = traces::current();
        let mut jobs = Vec::with_capacity(images.len());
        for (index, image) in images.into_iter().enumerate() {
            let job = Job {
                index,
                model: Arc::clone(&model),
                options,
                deadline,
                priority,
                client: client.clone(),
                trace: trace.clone(),
            };
            let permit = permits.split().ok_or(Error::EngineGone)?;
            jobs.push((job, image, permit));
        }
        let at_once = match options.detect_faces {
            true => faces::MAX_SEARCHES,
            false => jobs.len(),
        };
        let mut results = Vec::with_capacity(jobs.len());
        let mut pending = stream::iter(jobs)
            .map(|(job, image, permit)| self.predict_image(job, image, permit))
            .buffered(at_once);
        while let Some(result) = pending.next().await {
            observer.image_finished(&result);
            results.push(result);
        }
        let predictions = results.into_iter().collect::<Result<Vec<_>, Error>>()?;
        observer.succeeded(&predictions);
        Ok(predictions)
    }

    /// Predicts one image of a stream once there is a permit of batch priority. It is recorded as a
    /// request of its own; `index` identifies it in errors.
    ///
    /// # Errors
    /// The same as [`Predictor::predict`], except for a full queue, where it waits.
    pub(crate) async fn predict_queued(
        &self,
        index: usize,
        image: Image,
        model: &Arc<ServedModel>,
        options: PredictOptions,
        client: Client,
    ) -> Result<Prediction, Error> {
        let permit = self.pipeline.admission.acquire_batch().await?;
        let mut observer = RequestObserver::start(self.statistics(), model, 1, None);
        let result = async {
            self.pipeline.engine.ensure_loaded(model).await?;
            let job = Job {
                index,
                model: Arc::clone(model),
                options,
                deadline: None,
                priority: Priority::Batch,
                client,
                trace: traces::current(),
            };
            self.predict_image(job, image, permit).await
        };
        let result = result.await;
        observer.image_finished(&result);
        let prediction = result?;
        observer.succeeded(std::slice::from_ref(&prediction));
        Ok(prediction)
    }

    /// Predicts an image file once there is a permit for background work. It is not recorded as a
    /// request.
    ///
    /// # Errors
    /// A file that cannot be read (`File`, `Image`), or a model that does not compute.
    pub(super) async fn predict_file(
        &self,
        model: Arc<ServedModel>,
        index: usize,
        path: &Path,
    ) -> Result<f64, Error> {
        let Pipeline {
            admission,
            engine,
            limits,
            ..
        } = &self.pipeline;
        engine.ensure_loaded(&model).await?;
        let permit = admission.acquire_background().await?;
        let bytes = read(path, limits.max_bytes).await;
        let bytes = bytes.map_err(|source| Error::File { index, source })?;
        let job = Job {
            index,
            model,
            options: PredictOptions::default(),
            deadline: None,
            priority: Priority::Batch,
            client: Client::unknown(),
            trace: None,
        };
        let image = Image::Encoded(bytes);
        let computed = self.pipeline.compute(job.clone(), image, permit).await?;
        job.check_age(computed.output.age, false)
    }

    /// Returns the number of files that are predicted at once.
    pub(super) fn background_capacity(&self) -> usize {
        self.pipeline.admission.background_capacity()
    }

    /// Predicts one image, or returns an earlier prediction from the cache.
    async fn predict_image(
        &self,
        job: Job,
        image: Image,
        permit: Permit,
    ) -> Result<Prediction, Error> {
        let cached = self.cache.as_ref().zip(CacheInput::new(&job, &image));
        let Some((cache, input)) = cached else {
            return self.compute_image(job, image, permit).await;
        };
        let key = self.pipeline.run(move || input.key()).await?;
        if let Some(prediction) = cache.get(&key) {
            return Ok(prediction);
        }
        let prediction = Prediction {
            cached: Some(false),
            ..self.compute_image(job, image, permit).await?
        };
        cache.insert(key, prediction.clone());
        Ok(prediction)
    }

    async fn compute_image(
        &self,
        job: Job,
        image: Image,
        permit: Permit,
    ) -> Result<Prediction, Error> {
        if job.options.detect_faces {
            faces::predict(&self.pipeline, &self.face_slots, job, image, permit).await
        } else {
            whole_image::predict(&self.pipeline, job, image, permit).await
        }
    }
}

/// Reads a file up to one byte beyond the limit; decoding refuses what is longer.
async fn read(path: &Path, limit: u64) -> std::io::Result<Bytes> {
    let file = fs_err::tokio::File::open(path).await?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes.into())
}
