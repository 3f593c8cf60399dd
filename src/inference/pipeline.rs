//! The way of an admitted image through the decoding threads to the engine and back.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Client, Engine, Error, Image, Priority,
    admission::{AdmissionController, Permit},
    decode::{DecodedImage, decode},
    job::Job,
    model_io::ModelOutput,
    observer,
    turns::Turns,
};
use crate::imaging::Limits;

/// Batch images on the pool per thread: one in work, and the next, so that no thread is idle.
const BATCH_SLOTS_PER_THREAD: usize = 2;

/// Admission, decoding threads and engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) admission: AdmissionController,
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pool: Arc<rayon::ThreadPool>,
    batch_slots: Arc<Semaphore>,
    turns: Turns,
}

/// An image that the engine has computed.
pub(super) struct Computed {
    pub(super) decoded: DecodedImage,
    pub(super) output: ModelOutput,
    pub(super) permit: Permit,
}

impl Pipeline {
    /// Starts `decode_threads` threads (0: one for each core).
    ///
    /// # Errors
    /// If the operating system refuses the threads.
    pub(super) fn new(
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
        let batch_slots = BATCH_SLOTS_PER_THREAD * pool.current_num_threads();
        Ok(Pipeline {
            admission: AdmissionController::new(max_queued),
            engine,
            limits,
            pool: Arc::new(pool),
            batch_slots: Arc::new(Semaphore::new(batch_slots)),
            turns: Turns::default(),
        })
    }

    /// Runs a computation on the decoding threads. Dropping the future does not stop it.
    ///
    /// # Errors
    /// `EngineGone` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, result) = oneshot::channel();
        // The receiver may be gone.
        self.pool.spawn(move || drop(reply.send(work())));
        result.await.map_err(|_| Error::EngineGone)
    }

    /// Runs work that stops early, when it is its client's turn: its argument is a function that
    /// returns true once the future has been dropped.
    ///
    /// # Errors
    /// Errors of the work, and `EngineGone` if it panicked.
    pub(super) async fn run_until_dropped<T: Send + 'static>(
        &self,
        client: &Client,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, result) = oneshot::channel();
        let work = move || {
            let done = work(&|| reply.is_closed());
            // The receiver may be gone.
            drop(reply.send(done));
        };
        self.turns.push(client.clone(), Box::new(work));
        // Each call runs one piece of work.
        let turns = self.turns.clone();
        self.pool.spawn(move || turns.run_next());
        result.await.map_err(|_| Error::EngineGone)?
    }

    /// Waits for a slot on the pool for a batch image, so that few of them are ahead of an
    /// interactive image, which needs no slot. The slot is held until the pool has finished.
    pub(super) async fn batch_slot(&self, priority: Priority) -> Option<OwnedSemaphorePermit> {
        match priority {
            Priority::Interactive => None,
            // The semaphore is never closed.
            Priority::Batch => Arc::clone(&self.batch_slots).acquire_owned().await.ok(),
        }
    }

    /// Decodes an image and computes it. Dropping the future drops the work.
    ///
    /// # Errors
    /// An image that cannot be read, a deadline that has passed, or a model that does not compute.
    pub(super) async fn compute(
        &self,
        job: Job,
        image: Image,
        permit: Permit,
    ) -> Result<Computed, Error> {
        let started = Instant::now();
        let slot = self.batch_slot(job.priority).await;
        let (engine, limits) = (self.engine.clone(), self.limits);
        let client = job.client.clone();
        let queued = self.run_until_dropped(&client, move |is_dropped| {
            let _slot = slot;
            if is_dropped() {
                job.drop_reason(true)
                    .into_iter()
                    .for_each(observer::rejected);
                return Err(Error::EngineGone);
            }
            let started = Instant::now();
            let decoded = decode(&job, &image, limits);
            observer::decoded(&job, started);
            let (input, decoded) = decoded?;
            Ok((decoded, engine.submit(job, input, permit)?))
        });
        let (decoded, result) = queued.await?;
        let (output, permit) = result.await.map_err(|_| Error::EngineGone)??;
        permit.record_wait(started.elapsed());
        Ok(Computed {
            decoded,
            output,
            permit,
        })
    }
}
