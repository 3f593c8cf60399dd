//! The handle that predictions use.

use std::{sync::Arc, thread::JoinHandle};

use tch::Device;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    command::{Command, EvictModel},
    loader::Loader,
    requeue,
    resident::ResidentModels,
    thread::{EngineThread, Shared},
};
use crate::{
    inference::{
        Error, PrecisionReport, ServedModel, Statistics,
        admission::Permit,
        job::Job,
        loaded::LoadedModel,
        model_io::ModelInput,
        queue::{EntryResult, QueueEntry},
    },
    model::precision::PrecisionPolicy,
};

#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineOptions {
    pub device: Device,
    /// Start a batch before the previous one has finished: for a device that computes
    /// asynchronously.
    pub pipelined: bool,
    pub precision: PrecisionPolicy,
    /// CPU threads; 0 for one on each core.
    pub threads: usize,
    /// Rows of the largest batch.
    pub max_batch: usize,
    /// Images that may wait; admission must let no more through.
    pub max_queued: usize,
    /// Versions that stay loaded, the pinned one among them.
    pub max_loaded: usize,
}

/// A handle to the engine's thread, which stops when the last handle is dropped. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    commands: mpsc::Sender<Command>,
    loader: Loader,
    resident: ResidentModels,
    statistics: Statistics,
    /// One permit: the channel has room for one eviction.
    evictions: Arc<Semaphore>,
}

impl Engine {
    /// Starts the engine's thread, and those of the loader.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(crate) fn start(options: EngineOptions) -> std::io::Result<(Self, JoinHandle<()>)> {
        // Two more than there can be images: models are installed and evicted through the same
        // channel, one of each kind at a time.
        let (commands, receiver) = mpsc::channel(options.max_queued + 2);
        let (requeue, requeued) = mpsc::channel(options.max_queued + 1);
        let (statistics, resident) = (Statistics::default(), ResidentModels::default());
        let shared = Shared {
            resident: resident.clone(),
            statistics: statistics.clone(),
            requeue,
        };
        let thread = EngineThread::start(options, shared, receiver)?;
        let loader = Loader::start(
            options.device,
            options.precision,
            resident.clone(),
            commands.downgrade(),
        )?;
        requeue::start(requeued, loader.clone(), commands.downgrade())?;
        let engine = Engine {
            commands,
            loader,
            resident,
            statistics,
            evictions: Arc::new(Semaphore::new(1)),
        };
        Ok((engine, thread))
    }

    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Returns the precision of a version; `None` if it is not loaded.
    pub(crate) fn precision_report(&self, model: &ServedModel) -> Option<PrecisionReport> {
        self.resident.precision_report(&model.sha256)
    }

    /// Loads and warms a version while predictions continue, so that its first prediction is as
    /// fast as any. A pinned version stays loaded until another one is pinned.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    pub(crate) async fn load(&self, model: Arc<ServedModel>, pin: bool) -> Result<(), Error> {
        self.loader.load(model, pin).await
    }

    /// Loads a version that is not loaded. It may be evicted again before its images reach the
    /// engine, which then loads it once more.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    pub(crate) async fn ensure_loaded(&self, model: &Arc<ServedModel>) -> Result<(), Error> {
        if self.resident.contains(&model.sha256) {
            return Ok(());
        }
        self.loader.load(Arc::clone(model), false).await
    }

    /// Evicts a model, also a pinned one. Images that wait for it need its file again. Returns
    /// the model if it was loaded: freeing it takes milliseconds.
    ///
    /// # Errors
    /// If the engine's thread has stopped.
    pub(crate) async fn evict(&self, sha256: &str) -> Result<Option<Box<LoadedModel>>, Error> {
        let _permit = self.evictions.acquire().await;
        let (evicted, result) = oneshot::channel();
        let sha256 = sha256.to_owned();
        let evict = Command::Evict(EvictModel { sha256, evicted });
        let gone = |_| Error::EngineGone;
        self.commands.send(evict).await.map_err(gone)?;
        result.await.map_err(|_| Error::EngineGone)
    }

    /// Queues an image, for which admission has reserved the room.
    ///
    /// # Errors
    /// If the engine's thread has stopped.
    pub(crate) fn submit(
        &self,
        job: Job,
        input: ModelInput,
        permit: Permit,
    ) -> Result<EntryResult, Error> {
        let (entry, result) = QueueEntry::new(job, input, permit);
        self.commands
            .try_send(Command::Predict(Box::new(entry)))
            .map_err(|_| Error::EngineGone)?;
        Ok(result)
    }
}
