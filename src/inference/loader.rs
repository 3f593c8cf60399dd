//! The thread that reads models, so that predictions go on while it does.
//!
//! It reads, checks and warms a network beside the engine, on one thread that lets everything else have the processor first, and hands over what is ready. A version
//! that becomes live so never makes a request wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tch::Device;
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{self, device::compute_with_threads, fused::Threads, precision::PrecisionPolicy},
    priority,
    telemetry::metrics,
};

use super::{
    Error, ServedModel,
    engine::Command,
    loaded::{LoadedModel, PrecisionReport},
    queue::QueueEntry,
};

/// Callers of [`Loader::load`] that are taken in before further ones wait at its admission.
const MAX_WISHES: usize = 16;
/// A model is wanted sooner than a dataset's check, but not at the cost of predictions: on two cores that three times as many requests as they can answer keep busy, one was
/// loaded in eight seconds so, and in four with a niceness of 10, which takes more from those requests.
const NICE: u32 = priority::MAX_NICE - 1;
/// Weights whose rounding is remembered after the engine has let go of them.
const MAX_KNOWN: usize = 1_000;

/// Which networks the engine has, by the SHA-256 of their weights, and what each computes in; the engine keeps it true.
#[derive(Debug, Clone, Default)]
pub(super) struct ResidentModels(Arc<Mutex<BTreeMap<String, PrecisionReport>>>);

impl ResidentModels {
    pub(super) fn has(&self, sha256: &str) -> bool {
        self.all().contains_key(sha256)
    }

    pub(super) fn precision_report(&self, sha256: &str) -> Option<PrecisionReport> {
        self.all().get(sha256).copied()
    }

    pub(super) fn add(&self, sha256: &str, rounding: PrecisionReport) {
        self.all().insert(sha256.to_owned(), rounding);
    }

    pub(super) fn remove(&self, sha256: &str) {
        self.all().remove(sha256);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PrecisionReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network for the engine, or `None` for one that it has.
#[derive(Debug)]
pub(super) struct InstallModel {
    pub(super) model: Arc<ServedModel>,
    pub(super) network: Option<Box<LoadedModel>>,
    /// Whether it stays loaded whatever else is.
    pub(super) pin: bool,
    /// Told once the engine has it.
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
    /// Told then too, so that the loader goes on, and given what the engine has let go of for it: to give back a network's memory takes some milliseconds, for
    /// which predictions need not wait.
    pub(super) installed: oneshot::Sender<Vec<LoadedModel>>,
}

#[derive(Debug)]
struct LoadRequest {
    model: Arc<ServedModel>,
    pin: bool,
    reply: oneshot::Sender<Result<(), Error>>,
}

/// A handle to the thread, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    options: mpsc::Sender<LoadRequest>,
}

impl Loader {
    /// Starts the thread; `deliver` hands a network to the engine.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(super) fn start(
        device: Device,
        precision: PrecisionPolicy,
        inventory: ResidentModels,
        deliver: impl Fn(InstallModel) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (options, mut receiver) = mpsc::channel::<LoadRequest>(MAX_WISHES);
        let threads = Threads::new(1)?;
        let body = move || {
            priority::lower_thread_priority(NICE);
            compute_with_threads(1);
            // By the SHA-256 of the weights.
            let mut known = BTreeMap::new();
            while let Some(LoadRequest { model, pin, reply }) = receiver.blocking_recv() {
                if reply.is_closed() {
                    continue;
                }
                let read = match inventory.has(&model.sha256) {
                    true => Ok(None),
                    false => {
                        let known = known.get(&model.sha256).copied();
                        read(&model, device, precision, known, &threads).map(Some)
                    }
                };
                if let Ok(Some(network)) = &read
                    && let Some(rounding) = network.known()
                {
                    if known.len() == MAX_KNOWN && !known.contains_key(&model.sha256) {
                        known.pop_first();
                    }
                    known.insert(model.sha256.clone(), rounding);
                }
                match read {
                    Ok(network) => {
                        let (installed, taken) = oneshot::channel();
                        deliver(InstallModel {
                            model,
                            network,
                            pin,
                            reply,
                            installed,
                        });
                        // Else the next wish for the same one would find it missing and read it again.
                        drop(taken.blocking_recv());
                    }
                    // A caller that no longer waits needs no answer.
                    Err(error) => drop(reply.send(Err(failed(&model, error)))),
                }
            }
        };
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(body)?;
        Ok(Loader { options })
    }

    /// Gives the engine a network, if it has not got it, and waits until it has.
    ///
    /// # Errors
    /// When the weights cannot be read or do not compute.
    pub(super) async fn load(&self, model: Arc<ServedModel>, pin: bool) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let wish = LoadRequest { model, pin, reply };
        self.options
            .send(wish)
            .await
            .map_err(|_| Error::EngineGone)?;
        answer.await.map_err(|_| Error::EngineGone)?
    }

    /// [`Loader::load`] for a thread that may wait.
    fn load_and_wait(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let wish = LoadRequest {
            model,
            pin: false,
            reply,
        };
        self.options
            .blocking_send(wish)
            .map_err(|_| Error::EngineGone)?;
        answer.blocking_recv().map_err(|_| Error::EngineGone)?
    }
}

/// Images whose version the engine let go of while they waited: they go there again when it is loaded once more.
#[derive(Debug)]
pub(super) struct Requeue {
    pub(super) items: mpsc::Receiver<QueueEntry>,
    pub(super) loader: Loader,
    pub(super) engine: mpsc::WeakSender<Command>,
}

impl Requeue {
    /// Starts the thread that waits for loads; it ends with the engine's.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(super) fn start(self) -> std::io::Result<()> {
        let Requeue {
            mut items,
            loader,
            engine,
        } = self;
        let body = move || {
            while let Some(item) = items.blocking_recv() {
                if item.reply.is_closed() {
                    continue;
                }
                // Behind the first one of a version the others find it loaded.
                if let Err(error) = loader.load_and_wait(Arc::clone(&item.model)) {
                    drop(item.reply.send(Err(error)));
                    continue;
                }
                // An engine that is gone answers nobody; the caller is told by the dropped reply.
                if let Some(engine) = engine.upgrade() {
                    let item = Box::new(item);
                    drop(engine.blocking_send(Command::Predict(item)));
                }
            }
        };
        std::thread::Builder::new()
            .name("returns".to_owned())
            .spawn(body)
            .map(drop)
    }
}

/// Reads, checks and warms a network, and tells of it.
///
/// # Errors
/// When the weights cannot be read or do not compute.
fn read(
    model: &ServedModel,
    device: Device,
    precision: PrecisionPolicy,
    known: Option<PrecisionReport>,
    threads: &Threads,
) -> Result<Box<LoadedModel>, model::Error> {
    let begun = Instant::now();
    let network = LoadedModel::read(model, device, precision, known, threads)?;
    metrics::model_loaded(begun.elapsed());
    tracing::info!(
        model = model.name,
        precision = network.rounding.precision.name(),
        difference = network.rounding.difference,
        seconds = begun.elapsed().as_secs_f64(),
        "loaded a model"
    );
    Ok(Box::new(network))
}

/// Why a version cannot be computed with.
fn failed(model: &ServedModel, source: model::Error) -> Error {
    Error::Model {
        model: model.name.clone(),
        source: Arc::new(source),
    }
}
