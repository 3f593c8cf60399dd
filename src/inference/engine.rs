//! The one thread that owns the loaded models and computes batches.
//!
//! Every prediction is computed here: libtorch makes a thread pool for each thread that computes, and two pools on the same cores slow each other down. Only
//! `loader`, which prepares a model, computes elsewhere, on one thread. Batching is work-conserving: the thread takes what waits, up to the largest
//! batch, and never waits for more. What somebody waits for goes first.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::Device;
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{self, fused::Threads, resnet18},
    telemetry::metrics::{self, RejectionReason},
};

use super::{
    Error, Priority, ServedModel,
    admission::Place,
    explain::Explanation,
    loaded::{Loaded, Wanted},
    loader::{self, Delivery, Inventory, Loader},
    statistics::Statistics,
};

/// Pictures of a batch that has none that somebody waits for: those that come meanwhile wait no longer than for this many, which take a third of the time of
/// the largest batch and nine tenths of its speed.
const UNHURRIED_BATCH: usize = 8;
/// A picture that nobody waits for goes before all others once it has waited this long.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

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
    /// Versions that stay loaded, the live one among them.
    pub max_loaded: usize,
}

/// One preprocessed picture on its way to the engine.
#[derive(Debug)]
pub struct Item {
    /// `[3, S, S]`, normalised.
    pub pixels: Vec<f32>,
    /// Which weights to use.
    pub model: Arc<ServedModel>,
    /// Whether it is also wanted what each place of the picture adds to the age.
    pub explain: bool,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Where the answer goes; a closed one means that the client has left.
    pub reply: oneshot::Sender<Result<(Output, Place), Error>>,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// When it was put into the queue.
    pub enqueued: Instant,
    /// Its place among the pictures that may be in the server; comes back with the answer.
    pub place: Place,
}

/// What the engine says about one picture.
#[derive(Debug, Clone)]
pub struct Output {
    /// What the network says, label scale applied: years.
    pub age: f64,
    /// Where that comes from, for those who asked.
    pub explanation: Option<Explanation>,
    /// From the queue's door to the start of the batch.
    pub queue: Duration,
    /// The batch's forward pass.
    pub inference: Duration,
}

#[derive(Debug)]
enum Command {
    Predict(Item),
    Install(Delivery),
}

/// A handle to the engine's thread; the thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    loader: Loader,
    inventory: Inventory,
    statistics: Statistics,
}

impl Engine {
    /// Starts the thread, and the one that loads models for it.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(options: EngineOptions) -> std::io::Result<(Self, JoinHandle<()>)> {
        // A model that was loaded comes on top of the pictures, one at a time.
        let (commands, receiver) = mpsc::channel(options.max_queued + 1);
        let (statistics, inventory) = (Statistics::default(), Inventory::default());
        let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
        let body = {
            let (statistics, inventory) = (statistics.clone(), inventory.clone());
            let threads = Threads::new(options.threads).map_err(std::io::Error::other)?;
            move || {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let count = if options.threads == 0 {
                    cores
                } else {
                    options.threads
                };
                tch::set_num_threads(i32::try_from(count).unwrap_or(i32::MAX));
                begun.send(()).ok();
                Loop::new(options, threads, statistics, inventory).run(receiver);
            }
        };
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(body)?;
        // A thread takes the number of threads that libtorch was last told, unless it has one; the loader tells another.
        has_begun.recv().map_err(std::io::Error::other)?;
        let to_engine = commands.downgrade();
        let deliver = move |delivery: Delivery| {
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

    /// Loads and warms a version beside the predictions, so that its first prediction is as fast as any. One that is pinned stays loaded until another is
    /// pinned.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn load(&self, model: Arc<ServedModel>, pin: bool) -> Result<(), Error> {
        self.loader.load(model, pin).await
    }

    /// Loads a version that is not loaded.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub async fn ensure_loaded(&self, model: &Arc<ServedModel>) -> Result<(), Error> {
        if self.inventory.has(&model.sha256) {
            return Ok(());
        }
        self.loader.load(Arc::clone(model), false).await
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
    loaded: VecDeque<(String, Box<Loaded>)>,
    /// The SHA-256 of the one that stays.
    pinned: Option<String>,
    inventory: Inventory,
    /// Not libtorch's, which wait for the next operation without giving up the cores that decode.
    threads: Arc<Threads>,
    statistics: Statistics,
}

/// Pictures that wait, in the order in which they came.
#[derive(Default)]
struct Waiting {
    interactive: VecDeque<Item>,
    batch: VecDeque<Item>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    fn push(&mut self, item: Item) {
        match item.priority {
            Priority::Interactive => self.interactive.push_back(item),
            Priority::Batch => self.batch.push_back(item),
        }
    }

    /// The next batch, all of one version and no larger than `most`: those that somebody waits for, then the others where there is room.
    fn next(&mut self, most: usize) -> Vec<Item> {
        let mut batch = Vec::new();
        let is_overdue = |item: &Item| item.enqueued.elapsed() > LONGEST_WAIT;
        if self.batch.front().is_some_and(is_overdue) {
            take(&mut self.batch, &mut batch, UNHURRIED_BATCH.min(most));
        }
        take(&mut self.interactive, &mut batch, most);
        let room = if batch.is_empty() {
            UNHURRIED_BATCH.min(most)
        } else {
            most
        };
        take(&mut self.batch, &mut batch, room);
        batch
    }
}

/// Moves pictures of the batch's version from the front of a queue until the batch has `most`; those that nobody wants any more are dropped.
fn take(queue: &mut VecDeque<Item>, batch: &mut Vec<Item>, most: usize) {
    while batch.len() < most
        && let Some(item) = queue.pop_front_if(|item| {
            let of_one_version = |first: &Item| first.model.sha256 == item.model.sha256;
            batch.first().is_none_or(of_one_version)
        })
    {
        batch.extend(still_wanted(item));
    }
}

impl Loop {
    fn new(
        options: EngineOptions,
        threads: Threads,
        statistics: Statistics,
        inventory: Inventory,
    ) -> Self {
        Loop {
            options,
            loaded: VecDeque::new(),
            pinned: None,
            inventory,
            threads: Arc::new(threads),
            statistics,
        }
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = Waiting::default();
        loop {
            if waiting.is_empty() {
                match commands.blocking_recv() {
                    Some(command) => self.accept(command, &mut waiting),
                    None => return,
                }
            }
            // Admission bounds how many there can be.
            while let Ok(command) = commands.try_recv() {
                self.accept(command, &mut waiting);
            }
            let batch = waiting.next(self.options.max_batch);
            if !batch.is_empty() {
                self.compute(batch);
            }
        }
    }

    fn accept(&mut self, command: Command, waiting: &mut Waiting) {
        match command {
            Command::Predict(item) => waiting.push(item),
            Command::Install(delivery) => {
                if delivery.pin {
                    self.pinned = Some(delivery.model.sha256.clone());
                }
                let installed = self.install(&delivery.model, delivery.network);
                let told = installed
                    .map(|_| ())
                    .map_err(|error| loader::failed(&delivery.model, error));
                // A caller that no longer waits needs no answer.
                drop(delivery.reply.send(told));
            }
        }
    }

    fn compute(&mut self, batch: Vec<Item>) {
        let begun = Instant::now();
        let model = Arc::clone(&batch[0].model);
        let outputs = self.forward(&model, &batch);
        let inference = begun.elapsed();
        metrics::batch_computed(batch.len(), inference);
        self.statistics
            .computed(&model.name, batch.len(), inference);
        match outputs {
            Ok(outputs) => {
                for (item, output) in batch.into_iter().zip(outputs) {
                    let queue = begun.saturating_duration_since(item.enqueued);
                    let age = f64::from(output.value) * model.label.scale + model.label.offset;
                    let explain = |parts| Explanation::new(age, parts, model.label.scale);
                    let output = Output {
                        age,
                        explanation: output.parts.map(explain),
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
    ) -> Result<Vec<resnet18::Output>, model::Error> {
        let explain: Vec<bool> = batch.iter().map(|item| item.explain).collect();
        let images: Vec<&[f32]> = batch.iter().map(|item| item.pixels.as_slice()).collect();
        let threads = Arc::clone(&self.threads);
        self.install(model, None)?
            .forward(&images, &explain, model, &threads)
    }

    /// The loaded network, from now on the one that was used last. It is the one given, if there is none yet, or read here: which happens only when it was let go
    /// of while its pictures waited.
    fn install(
        &mut self,
        model: &Arc<ServedModel>,
        given: Option<Box<Loaded>>,
    ) -> Result<&mut Loaded, model::Error> {
        let found = self
            .loaded
            .iter()
            .position(|(sha256, _)| *sha256 == model.sha256);
        let entry = match (found.and_then(|index| self.loaded.remove(index)), given) {
            (Some(entry), _) => entry,
            (None, Some(network)) => (model.sha256.clone(), network),
            (None, None) => {
                let EngineOptions {
                    device, precision, ..
                } = self.options;
                let network = loader::read(model, device, precision, &self.threads)?;
                (model.sha256.clone(), network)
            }
        };
        self.inventory.add(&entry.0);
        self.loaded.push_back(entry);
        self.let_go();
        let last = self.loaded.back_mut().map(|(_, network)| network);
        Ok(last.expect("it was pushed above"))
    }

    /// Lets go of what was not used for the longest time, but neither of the pinned one nor of the last.
    fn let_go(&mut self) {
        while self.loaded.len() > self.options.max_loaded.max(1) {
            let pinned = self.pinned.as_ref();
            let candidates = self.loaded.iter().take(self.loaded.len() - 1);
            let oldest = candidates
                .enumerate()
                .find(|(_, (sha256, _))| Some(sha256) != pinned)
                .map(|(index, _)| index);
            let Some((sha256, _)) = oldest.and_then(|index| self.loaded.remove(index)) else {
                return;
            };
            self.inventory.remove(&sha256);
        }
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

#[cfg(test)]
mod tests {
    use crate::{imaging::InputSpec, model::checkpoint::LabelScale};

    use super::*;
    use crate::inference::admission::Door;

    struct Queue {
        door: Door,
        waiting: Waiting,
        /// A picture whose client has left is dropped.
        clients: Vec<oneshot::Receiver<Result<(Output, Place), Error>>>,
    }

    impl Queue {
        fn new() -> Self {
            Queue {
                door: Door::new(100),
                waiting: Waiting::default(),
                clients: Vec::new(),
            }
        }

        /// A picture of a version; its first number tells it from the others.
        fn push(&mut self, number: f32, version: &str, priority: Priority, waited: Duration) {
            let (reply, client) = oneshot::channel();
            self.clients.push(client);
            let model = ServedModel {
                name: version.to_owned(),
                weights: "model.safetensors".into(),
                sha256: version.to_owned(),
                input: InputSpec::default(),
                label: LabelScale {
                    scale: 1.0,
                    offset: 0.0,
                },
                calibration: None,
                mean_training_age: None,
            };
            self.waiting.push(Item {
                pixels: vec![number],
                model: Arc::new(model),
                explain: false,
                deadline: None,
                reply,
                priority,
                enqueued: Instant::now().checked_sub(waited).unwrap(),
                place: self.door.admit(1, priority).unwrap().split().unwrap(),
            });
        }

        fn next(&mut self, most: usize) -> Vec<f32> {
            let batch = self.waiting.next(most);
            batch.iter().map(|item| item.pixels[0]).collect()
        }
    }

    const NOT_LONG: Duration = Duration::from_millis(1);

    #[test]
    fn interactive_pictures_go_first_and_the_others_fill_the_batch() {
        let mut queue = Queue::new();
        for number in [1.0, 2.0, 3.0] {
            queue.push(number, "a", Priority::Batch, NOT_LONG);
        }
        for number in [4.0, 5.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
        }
        assert_eq!(queue.next(4), [4.0, 5.0, 1.0, 2.0]);
        assert_eq!(queue.next(4), [3.0]);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn batch_without_interactive_pictures_is_short() {
        let mut queue = Queue::new();
        for number in 0..20_u8 {
            queue.push(f32::from(number), "a", Priority::Batch, NOT_LONG);
        }
        assert_eq!(queue.next(32).len(), UNHURRIED_BATCH);
        for number in 20..40_u8 {
            queue.push(f32::from(number), "a", Priority::Interactive, NOT_LONG);
        }
        // There are 12 left beside the 20.
        assert_eq!(queue.next(32).len(), 32);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn picture_that_has_waited_too_long_goes_before_all_others() {
        let mut queue = Queue::new();
        queue.push(1.0, "a", Priority::Batch, LONGEST_WAIT * 2);
        for number in [2.0, 3.0] {
            queue.push(number, "a", Priority::Interactive, NOT_LONG);
        }
        assert_eq!(queue.next(2), [1.0, 2.0]);
        assert_eq!(queue.next(2), [3.0]);
    }

    #[test]
    fn batch_is_of_one_version() {
        let mut queue = Queue::new();
        for (number, version) in [(1.0, "a"), (2.0, "a"), (3.0, "b"), (4.0, "a")] {
            queue.push(number, version, Priority::Interactive, NOT_LONG);
        }
        queue.push(5.0, "b", Priority::Batch, NOT_LONG);
        assert_eq!(queue.next(8), [1.0, 2.0]);
        assert_eq!(queue.next(8), [3.0, 5.0]);
        assert_eq!(queue.next(8), [4.0]);
    }

    #[test]
    fn nothing_is_computed_for_a_client_that_has_left() {
        let mut queue = Queue::new();
        queue.push(1.0, "a", Priority::Interactive, NOT_LONG);
        queue.push(2.0, "a", Priority::Interactive, NOT_LONG);
        drop(queue.clients.remove(0));
        assert_eq!(queue.next(8), [2.0]);
    }
}
