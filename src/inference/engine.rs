//! The one thread that owns the loaded models and computes batches.
//!
//! Every forward pass, warm-up included, runs here: libtorch makes a thread pool for each thread that computes, and two pools on the same cores slow each
//! other down. Batching is work-conserving: the thread takes what waits, up to the largest batch, and never waits for more.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::Device;
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{self, fused::Threads},
    telemetry::metrics::{self, RejectionReason},
};

use super::{
    Error, ServedModel,
    admission::Place,
    loaded::{Loaded, Wanted},
    statistics::Statistics,
};

/// Versions that stay loaded beside the live one.
const MAX_LOADED: usize = 3;

/// How the engine computes.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// CPU or GPU.
    pub device: Device,
    /// Number format.
    pub precision: Wanted,
    /// Threads of the processor; 0 for all.
    pub threads: usize,
    /// Pictures in a batch at most.
    pub max_batch: usize,
    /// Pictures that may wait; admission must let no more through.
    pub max_queued: usize,
}

/// One preprocessed picture on its way to the engine.
#[derive(Debug)]
pub struct Item {
    /// `[3, S, S]`, normalised.
    pub pixels: Vec<f32>,
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Where the answer goes; a closed one means that the client has left.
    pub reply: oneshot::Sender<Result<(Output, Place), Error>>,
    /// When it was put into the queue.
    pub enqueued: Instant,
    /// Its place among the pictures that may be in the server; comes back with the answer.
    pub place: Place,
}

/// What the engine says about one picture.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// What the network says, label scale applied: years.
    pub age: f64,
    /// From the queue's door to the start of the batch.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

#[derive(Debug)]
enum Command {
    Predict(Item),
    Load {
        model: Arc<ServedModel>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

/// A handle to the engine's thread; the thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    statistics: Statistics,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(options: EngineOptions) -> std::io::Result<(Self, JoinHandle<()>)> {
        // Loads come on top of the pictures, one at a time for each caller of `load`.
        let (commands, receiver) = mpsc::channel(options.max_queued + 16);
        let statistics = Statistics::default();
        let body = {
            let statistics = statistics.clone();
            let threads = Threads::new(options.threads).map_err(std::io::Error::other)?;
            move || Loop::new(options, threads, statistics).run(receiver)
        };
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(body)?;
        let engine = Engine {
            commands,
            statistics,
        };
        Ok((engine, thread))
    }

    /// What the versions have done.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Loads and warms a version, so that its first prediction is as fast as any.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn load(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Load { model, reply };
        self.commands
            .send(command)
            .await
            .map_err(|_| Error::EngineGone)?;
        answer.await.map_err(|_| Error::EngineGone)?
    }

    /// Queues a picture; admission has made sure that there is room.
    ///
    /// # Errors
    /// When the engine's thread has died.
    pub fn submit(&self, item: Item) -> Result<(), Error> {
        self.commands
            .try_send(Command::Predict(item))
            .map_err(|_| Error::EngineGone)
    }
}

/// What the thread owns.
struct Loop {
    options: EngineOptions,
    /// Loaded weights by SHA-256, the latest used last.
    loaded: VecDeque<(String, Loaded)>,
    /// Not libtorch's, which wait for the next operation without giving up the cores that decode.
    threads: Arc<Threads>,
    statistics: Statistics,
}

impl Loop {
    fn new(options: EngineOptions, threads: Threads, statistics: Statistics) -> Self {
        Loop {
            options,
            loaded: VecDeque::new(),
            threads: Arc::new(threads),
            statistics,
        }
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        if self.options.threads > 0 {
            tch::set_num_threads(i32::try_from(self.options.threads).unwrap_or(i32::MAX));
        }
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match commands.blocking_recv() {
                    Some(command) => waiting.push_back(command),
                    None => return,
                }
            }
            while waiting.len() < self.options.max_batch {
                match commands.try_recv() {
                    Ok(command) => waiting.push_back(command),
                    Err(_) => break,
                }
            }
            self.serve(&mut waiting);
        }
    }

    /// Handles a load, or the longest run of pictures for the same version.
    fn serve(&mut self, waiting: &mut VecDeque<Command>) {
        let mut batch: Vec<Item> = Vec::new();
        while let Some(command) = waiting.pop_front() {
            match command {
                Command::Load { model, reply } if batch.is_empty() => {
                    // A caller that no longer waits needs no answer.
                    drop(reply.send(self.network(&model).map(|_| ())));
                    return;
                }
                Command::Predict(item)
                    if batch
                        .first()
                        .is_none_or(|first| first.model.sha256 == item.model.sha256) =>
                {
                    batch.extend(still_wanted(item));
                }
                other @ (Command::Load { .. } | Command::Predict(_)) => {
                    waiting.push_front(other);
                    break;
                }
            }
        }
        if !batch.is_empty() {
            self.compute(batch);
        }
    }

    fn compute(&mut self, batch: Vec<Item>) {
        let begun = Instant::now();
        let model = Arc::clone(&batch[0].model);
        let ages = self.forward(&model, &batch);
        let inference = begun.elapsed();
        metrics::batch_computed(batch.len(), inference);
        self.statistics
            .computed(&model.name, batch.len(), inference);
        match ages {
            Ok(ages) => {
                for (item, age) in batch.into_iter().zip(ages) {
                    let queue = begun.saturating_duration_since(item.enqueued);
                    let output = Output {
                        age: f64::from(age) * model.label.scale + model.label.offset,
                        queue,
                        inference,
                    };
                    // A client that has left needs no answer.
                    drop(item.reply.send(Ok((output, item.place))));
                }
            }
            Err(error) => {
                tracing::error!(model = model.name, %error, "failed to compute a batch");
                let source = Arc::new(error);
                for item in batch {
                    let error = Error::Model {
                        model: model.name.clone(),
                        source: Arc::clone(&source),
                    };
                    drop(item.reply.send(Err(error)));
                }
            }
        }
    }

    fn forward(
        &mut self,
        model: &Arc<ServedModel>,
        batch: &[Item],
    ) -> Result<Vec<f32>, model::Error> {
        let images: Vec<&[f32]> = batch.iter().map(|item| item.pixels.as_slice()).collect();
        let threads = Arc::clone(&self.threads);
        self.network_of(model)?.forward(&images, model, &threads)
    }

    fn network(&mut self, model: &Arc<ServedModel>) -> Result<&mut Loaded, Error> {
        self.network_of(model).map_err(|source| Error::Model {
            model: model.name.clone(),
            source: Arc::new(source),
        })
    }

    /// The loaded network; loads and warms it first if need be, and lets go of the one that was not used for the longest time.
    fn network_of(&mut self, model: &Arc<ServedModel>) -> Result<&mut Loaded, model::Error> {
        let found = self
            .loaded
            .iter()
            .position(|(sha256, _)| *sha256 == model.sha256);
        let entry = match found.and_then(|index| self.loaded.remove(index)) {
            Some(entry) => entry,
            None => {
                let begun = Instant::now();
                let EngineOptions {
                    device, precision, ..
                } = self.options;
                let network = Loaded::read(model, device, precision, &self.threads)?;
                metrics::model_loaded(begun.elapsed());
                tracing::info!(
                    model = model.name,
                    precision = network.precision.name(),
                    difference = network.difference,
                    seconds = begun.elapsed().as_secs_f64(),
                    "loaded a model"
                );
                (model.sha256.clone(), network)
            }
        };
        self.loaded.push_back(entry);
        while self.loaded.len() > MAX_LOADED {
            self.loaded.pop_front();
        }
        let last = self.loaded.back_mut().map(|(_, network)| network);
        Ok(last.expect("it was pushed above"))
    }
}

/// Drops a picture whose client has left or whose deadline has passed, and counts it.
fn still_wanted(item: Item) -> Option<Item> {
    if item.reply.is_closed() {
        metrics::prediction_rejected(RejectionReason::ClientGone);
        return None;
    }
    if item
        .deadline
        .is_some_and(|deadline| deadline <= Instant::now())
    {
        metrics::prediction_rejected(RejectionReason::DeadlineExceeded);
        drop(item.reply.send(Err(Error::DeadlineExceeded)));
        return None;
    }
    Some(item)
}
