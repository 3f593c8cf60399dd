//! The engine's loop.

use std::{sync::Arc, thread::JoinHandle, time::Instant};

use tokio::sync::mpsc;

use super::{
    batch::BatchInputs,
    command::{Command, InstallModel},
    handle::EngineOptions,
    in_flight::InFlightBatch,
    resident::{ModelCache, ResidentModels},
};
use crate::{
    inference::{
        Error, Statistics,
        queue::{PriorityQueue, QueueEntry},
    },
    model::{device::compute_with_threads, fused::Threads},
};

/// Ends of the engine's connections to other threads.
pub(super) struct Shared {
    pub(super) resident: ResidentModels,
    pub(super) statistics: Statistics,
    /// Takes images whose model was evicted while they waited.
    pub(super) requeue: mpsc::Sender<QueueEntry>,
}

pub(super) struct EngineThread {
    options: EngineOptions,
    models: ModelCache,
    queue: PriorityQueue,
    inputs: BatchInputs,
    /// Not libtorch's threads, which wait for the next operation without releasing the cores to the
    /// decoding threads.
    threads: Arc<Threads>,
    statistics: Statistics,
    requeue: mpsc::Sender<QueueEntry>,
}

impl EngineThread {
    /// Starts the thread; it stops once the channel is closed and all images have their results.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(super) fn start(
        options: EngineOptions,
        shared: Shared,
        commands: mpsc::Receiver<Command>,
    ) -> std::io::Result<JoinHandle<()>> {
        let engine = EngineThread {
            models: ModelCache::new(options.max_loaded, shared.resident),
            queue: PriorityQueue::default(),
            inputs: BatchInputs::default(),
            threads: Arc::new(Threads::new(options.threads)?),
            statistics: shared.statistics,
            requeue: shared.requeue,
            options,
        };
        let (started, has_started) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            compute_with_threads(match options.threads {
                0 => cores,
                threads => threads,
            });
            started.send(()).ok();
            engine.run(commands);
        };
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(body)?;
        // The loader sets another number of libtorch threads, which must come later.
        has_started.recv().map_err(std::io::Error::other)?;
        Ok(thread)
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // The batch that a pipelined device is computing.
        let mut in_flight: Option<InFlightBatch> = None;
        loop {
            if self.queue.is_empty() && in_flight.is_none() {
                match commands.blocking_recv() {
                    Some(command) => self.accept(command),
                    None => return,
                }
            }
            // Admission bounds the number of commands.
            while let Ok(command) = commands.try_recv() {
                self.accept(command);
            }
            let entries = self.queue.next_batch(self.options.max_batch);
            let previous = in_flight.take();
            if entries.is_empty() {
                self.finish(previous);
            } else {
                in_flight = self.start_batch(entries, previous);
            }
            if !self.options.pipelined {
                self.finish(in_flight.take());
            }
        }
    }

    fn finish(&self, batch: Option<InFlightBatch>) {
        if let Some(batch) = batch {
            batch.finish(&self.statistics);
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Predict(entry) => self.queue.push(*entry),
            Command::Install(install) => self.install(install),
            Command::Evict(evict) => {
                let model = self.models.remove(&evict.sha256);
                // A model that nobody receives is freed here.
                drop(evict.evicted.send(model));
            }
        }
    }

    fn install(&mut self, install: InstallModel) {
        let sha256 = &install.model.sha256;
        if install.pin {
            self.models.pin(sha256);
        }
        let mut evicted = Vec::new();
        let is_loaded = match install.network {
            Some(network) => {
                evicted = self.models.install(sha256, network);
                true
            }
            None => self.models.touch(sha256).is_some(),
        };
        install.installed.send(evicted).ok();
        let result = if is_loaded {
            Ok(())
        } else {
            Err(Error::EngineGone)
        };
        // The caller may have stopped waiting.
        drop(install.reply.send(result));
    }

    /// Starts a batch, or requeues it if its model is not loaded. The previous batch is finished
    /// meanwhile, or at once.
    fn start_batch(
        &mut self,
        entries: Vec<QueueEntry>,
        mut previous: Option<InFlightBatch>,
    ) -> Option<InFlightBatch> {
        let mut started = Instant::now();
        let model = Arc::clone(&entries[0].job.model);
        let statistics = &self.statistics;
        let mut finish_previous = || {
            if let Some(previous) = previous.take() {
                previous.finish(statistics);
                started = Instant::now();
            }
        };
        let outputs = self.models.touch(&model.sha256).map(|network| {
            let images = self.inputs.assemble(&entries, &model.input, &self.threads);
            let explain: Vec<bool> = entries
                .iter()
                .flat_map(|entry| std::iter::repeat_n(entry.job.options.explain, entry.rows()))
                .collect();
            network.start(
                &images,
                &explain,
                &model,
                &self.threads,
                &mut finish_previous,
            )
        });
        finish_previous();
        let Some(outputs) = outputs else {
            self.requeue(entries);
            return None;
        };
        Some(InFlightBatch {
            entries,
            model,
            started,
            outputs,
        })
    }

    /// Hands over images whose model was evicted while they waited, so that images of other
    /// versions do not wait until it has been loaded again.
    fn requeue(&self, entries: Vec<QueueEntry>) {
        for entry in entries {
            // There is room for every image that may be in the server. Dropping an entry fails its
            // prediction.
            drop(self.requeue.try_send(entry));
        }
    }
}
