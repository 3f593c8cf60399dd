//! The handle that predictions use.

use std::{sync::Arc, thread::JoinHandle};

use tch::Device;
use tokio::sync::mpsc;

use super::{
    command::Command,
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
}

impl Engine {
    /// Starts the engine's thread, and those of the loader.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(crate) fn start(options: EngineOptions) -> std::io::Result<(Self, JoinHandle<()>)> {
        // One more than there can be images: a loaded model is installed through the same channel,
        // one at a time.
        let (commands, receiver) = mpsc::channel(options.max_queued + 1);
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
