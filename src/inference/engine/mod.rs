//! The one thread that owns the loaded models and computes batches.
//!
//! Every prediction is computed here: libtorch makes a thread pool for each thread that computes, and two pools on the same cores slow each other down. Only
//! `loader`, which prepares a model, computes elsewhere, on one thread. Batching is work-conserving: the thread takes what waits, up to the largest
//! batch, and never waits for more; `queue` says in which order.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::Device;
use tokio::sync::mpsc;

use crate::model::{device::compute_with_threads, fused::Threads, precision::PrecisionPolicy};

use super::{
    Error, ServedModel,
    computing::InFlightBatch,
    explain::Explanation,
    input::Inputs,
    loaded::{LoadedModel, PrecisionReport},
    loader::{InstallModel, Loader, Requeue, ResidentModels},
    queue::{PriorityQueue, QueueEntry},
    statistics::Statistics,
};

#[cfg(test)]
mod tests;

/// How the engine computes.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// CPU or GPU.
    pub device: Device,
    /// Whether a batch is begun before the one before it is answered: for a device that computes by itself.
    pub pipelined: bool,
    /// Number format.
    pub precision: PrecisionPolicy,
    /// Threads of the processor; 0 for all.
    pub threads: usize,
    /// Images in a batch at most.
    pub max_batch: usize,
    /// Images that may wait; admission must let no more through.
    pub max_queued: usize,
    /// Versions that stay loaded, the live one among them.
    pub max_loaded: usize,
}

/// What the engine says about one image.
#[derive(Debug, Clone)]
pub struct Output {
    /// What the network says, label scale applied: years.
    pub age: f64,
    /// Where that comes from, for those who asked.
    pub explanation: Option<Explanation>,
    /// From the queue's admission to the start of the batch.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

/// What the engine is told.
#[derive(Debug)]
pub(super) enum Command {
    Predict(Box<QueueEntry>),
    Install(InstallModel),
}

/// A handle to the engine's thread; the thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    loader: Loader,
    inventory: ResidentModels,
    statistics: Statistics,
}

impl Engine {
    /// Starts the thread, and the one that loads models for it.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(options: EngineOptions) -> std::io::Result<(Self, JoinHandle<()>)> {
        // A model that was loaded comes on top of the images, one at a time.
        let (commands, receiver) = mpsc::channel(options.max_queued + 1);
        let (statistics, inventory) = (Statistics::default(), ResidentModels::default());
        let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
        let (returns, returned) = mpsc::channel(options.max_queued + 1);
        let body = {
            let (statistics, inventory) = (statistics.clone(), inventory.clone());
            let threads = Threads::new(options.threads)?;
            move || {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let count = if options.threads == 0 {
                    cores
                } else {
                    options.threads
                };
                compute_with_threads(count);
                begun.send(()).ok();
                EngineThread::new(options, threads, statistics, inventory, returns).run(receiver);
            }
        };
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(body)?;
        // The loader tells libtorch another number.
        has_begun.recv().map_err(std::io::Error::other)?;
        let to_engine = commands.downgrade();
        let deliver = move |delivery: InstallModel| {
            // An engine that is gone loads nothing; the caller is told by the dropped reply.
            if let Some(engine) = to_engine.upgrade() {
                drop(engine.blocking_send(Command::Install(delivery)));
            }
        };
        let loader = Loader::start(
            options.device,
            options.precision,
            inventory.clone(),
            deliver,
        )?;
        Requeue {
            items: returned,
            loader: loader.clone(),
            engine: commands.downgrade(),
        }
        .start()?;
        let engine = Engine {
            commands,
            loader,
            inventory,
            statistics,
        };
        Ok((engine, thread))
    }

    /// What the versions have done.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What a version computes in, if it is loaded.
    pub fn precision_report(&self, model: &ServedModel) -> Option<PrecisionReport> {
        self.inventory.precision_report(&model.sha256)
    }

    /// Loads and warms a version beside the predictions, so that its first prediction is as fast as any. One that is pinned stays loaded until another is
    /// pinned.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn load(&self, model: Arc<ServedModel>, pin: bool) -> Result<(), Error> {
        self.loader.load(model, pin).await
    }

    /// Loads a version that is not loaded. It may have been let go of again before its images reach the engine, which then has it loaded once more.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn ensure_loaded(&self, model: &Arc<ServedModel>) -> Result<(), Error> {
        if self.inventory.has(&model.sha256) {
            return Ok(());
        }
        self.loader.load(Arc::clone(model), false).await
    }

    /// Queues an image; admission has made sure that there is room.
    ///
    /// # Errors
    /// When the engine's thread has died.
    pub fn submit(&self, item: QueueEntry) -> Result<(), Error> {
        self.commands
            .try_send(Command::Predict(Box::new(item)))
            .map_err(|_| Error::EngineGone)
    }
}

/// What the thread owns.
struct EngineThread {
    options: EngineOptions,
    /// LoadedModel weights by SHA-256, the latest used last.
    loaded: VecDeque<(String, Box<LoadedModel>)>,
    /// The SHA-256 of the one that stays.
    pinned: Option<String>,
    inventory: ResidentModels,
    /// Not libtorch's, which wait for the next operation without giving up the cores that decode.
    threads: Arc<Threads>,
    inputs: Inputs,
    statistics: Statistics,
    /// Takes images whose version was let go of while they waited.
    returns: mpsc::Sender<QueueEntry>,
}

impl EngineThread {
    fn new(
        options: EngineOptions,
        threads: Threads,
        statistics: Statistics,
        inventory: ResidentModels,
        returns: mpsc::Sender<QueueEntry>,
    ) -> Self {
        EngineThread {
            options,
            loaded: VecDeque::new(),
            pinned: None,
            inventory,
            threads: Arc::new(threads),
            inputs: Inputs::default(),
            statistics,
            returns,
        }
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = PriorityQueue::default();
        // At most one.
        let mut ahead: Option<InFlightBatch> = None;
        loop {
            if waiting.is_empty() && ahead.is_none() {
                match commands.blocking_recv() {
                    Some(command) => self.accept(command, &mut waiting),
                    None => return,
                }
            }
            // PermitSet bounds how many there can be.
            while let Ok(command) = commands.try_recv() {
                self.accept(command, &mut waiting);
            }
            let batch = waiting.next(self.options.max_batch);
            let before = ahead.take();
            if batch.is_empty() {
                self.finish(before);
            } else {
                ahead = self.begin(batch, before);
            }
            if !self.options.pipelined {
                self.finish(ahead.take());
            }
        }
    }

    fn finish(&self, begun: Option<InFlightBatch>) {
        if let Some(begun) = begun {
            begun.finish(&self.statistics);
        }
    }

    fn accept(&mut self, command: Command, waiting: &mut PriorityQueue) {
        match command {
            Command::Predict(item) => waiting.push(*item),
            Command::Install(delivery) => {
                if delivery.pin {
                    self.pinned = Some(delivery.model.sha256.clone());
                }
                let sha256 = &delivery.model.sha256;
                let mut gone = Vec::new();
                let has_it = match delivery.network {
                    Some(network) => {
                        gone = self.install(sha256, network);
                        true
                    }
                    None => self.touch(sha256).is_some(),
                };
                delivery.installed.send(gone).ok();
                // A caller that no longer waits needs no answer.
                drop(
                    delivery
                        .reply
                        .send(has_it.then_some(()).ok_or(Error::EngineGone)),
                );
            }
        }
    }

    /// Begins a batch, unless its version is not loaded, in which case it goes back. The batch before it is answered meanwhile, or at once.
    fn begin(
        &mut self,
        batch: Vec<QueueEntry>,
        mut before: Option<InFlightBatch>,
    ) -> Option<InFlightBatch> {
        let mut begun = Instant::now();
        let model = Arc::clone(&batch[0].model);
        let (threads, statistics) = (Arc::clone(&self.threads), self.statistics.clone());
        let mut answer_before = || {
            if let Some(before) = before.take() {
                before.finish(&statistics);
                begun = Instant::now();
            }
        };
        let mut inputs = std::mem::take(&mut self.inputs);
        let outputs = self.touch(&model.sha256).map(|network| {
            let images = inputs.of(&batch, &model.input, &threads);
            let explain = batch
                .iter()
                .flat_map(|item| std::iter::repeat_n(item.explain, item.rows()));
            let explain = Vec::from_iter(explain);
            network.begin(&images, &explain, &model, &threads, &mut answer_before)
        });
        self.inputs = inputs;
        answer_before();
        match outputs {
            Some(outputs) => Some(InFlightBatch {
                batch,
                model,
                begun,
                outputs,
            }),
            None => {
                self.give_back(batch);
                None
            }
        }
    }

    /// Hands images on whose version was let go of while they waited, so that those of other versions do not wait until it is read again.
    fn give_back(&self, batch: Vec<QueueEntry>) {
        for item in batch {
            // There is room for all that may be in the server; an image that is dropped here has its caller told so.
            drop(self.returns.try_send(item));
        }
    }

    /// The network with these weights, if it is loaded, from now on the one that was used last.
    fn touch(&mut self, sha256: &str) -> Option<&mut LoadedModel> {
        let found = self.loaded.iter().position(|(name, _)| name == sha256)?;
        let entry = self.loaded.remove(found)?;
        self.loaded.push_back(entry);
        self.loaded.back_mut().map(|(_, network)| &mut **network)
    }

    /// Takes over a network, as the one that was used last, and returns those that are in its permit no more.
    fn install(&mut self, sha256: &str, network: Box<LoadedModel>) -> Vec<LoadedModel> {
        self.loaded.retain(|(name, _)| name != sha256);
        self.inventory.add(sha256, network.rounding);
        self.loaded.push_back((sha256.to_owned(), network));
        self.evict()
    }

    /// Lets go of what was not used for the longest time, but neither of the pinned one nor of the last.
    fn evict(&mut self) -> Vec<LoadedModel> {
        let mut gone = Vec::new();
        while self.loaded.len() > self.options.max_loaded.max(1) {
            let pinned = self.pinned.as_ref();
            let candidates = self.loaded.iter().take(self.loaded.len() - 1);
            let oldest = candidates
                .enumerate()
                .find(|(_, (sha256, _))| Some(sha256) != pinned)
                .map(|(index, _)| index);
            let Some((sha256, network)) = oldest.and_then(|index| self.loaded.remove(index)) else {
                break;
            };
            self.inventory.remove(&sha256);
            gone.push(*network);
        }
        gone
    }
}
