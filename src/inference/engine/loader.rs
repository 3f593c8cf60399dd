//! The thread that loads models, so that predictions continue meanwhile.
//!
//! It reads, checks and warms a model alongside the engine, on one thread of low priority, and
//! hands over the result. So a version that becomes live never makes a request wait.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tch::Device;
use tokio::sync::{mpsc, oneshot};

use super::{
    command::{Command, InstallModel},
    resident::ResidentModels,
};
use crate::{
    inference::{Error, PrecisionReport, ServedModel, loaded::LoadedModel},
    model::{self, device::compute_with_threads, fused::Threads, precision::PrecisionPolicy},
    priority,
    telemetry::metrics,
};

/// Capacity of the request queue.
const MAX_REQUESTS: usize = 16;
/// A model is needed sooner than the check of a dataset, but not at the cost of predictions: on two
/// cores with three times as many requests as they can compute, a model was loaded in eight seconds
/// this way, and in four with a niceness of 10, which slows down those requests.
const NICE: u32 = priority::MAX_NICE - 1;
/// Weights whose precision report is kept after their eviction.
const MAX_REPORTS: usize = 1_000;

#[derive(Debug)]
struct LoadRequest {
    model: Arc<ServedModel>,
    pin: bool,
    reply: oneshot::Sender<Result<(), Error>>,
}

/// A handle to the thread, which stops when the last handle is dropped. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    requests: mpsc::Sender<LoadRequest>,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(super) fn start(
        device: Device,
        precision: PrecisionPolicy,
        resident: ResidentModels,
        engine: mpsc::WeakSender<Command>,
    ) -> std::io::Result<Self> {
        let (requests, receiver) = mpsc::channel(MAX_REQUESTS);
        let thread = LoaderThread {
            device,
            precision,
            resident,
            engine,
            threads: Threads::new(1)?,
            reports: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || thread.run(receiver))?;
        Ok(Loader { requests })
    }

    /// Loads a model unless the engine has it, and waits until the engine has it.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    pub(super) async fn load(&self, model: Arc<ServedModel>, pin: bool) -> Result<(), Error> {
        let (reply, result) = oneshot::channel();
        let request = LoadRequest { model, pin, reply };
        let gone = |_| Error::EngineGone;
        self.requests.send(request).await.map_err(gone)?;
        result.await.map_err(|_| Error::EngineGone)?
    }

    /// [`Loader::load`] without a pin, for a thread that may block.
    pub(super) fn load_blocking(&self, model: Arc<ServedModel>) -> Result<(), Error> {
        let (reply, result) = oneshot::channel();
        let request = LoadRequest {
            model,
            pin: false,
            reply,
        };
        let gone = |_| Error::EngineGone;
        self.requests.blocking_send(request).map_err(gone)?;
        result.blocking_recv().map_err(|_| Error::EngineGone)?
    }
}

struct LoaderThread {
    device: Device,
    precision: PrecisionPolicy,
    resident: ResidentModels,
    engine: mpsc::WeakSender<Command>,
    threads: Threads,
    /// By the SHA-256 of the weights, to compare a model only once.
    reports: BTreeMap<String, PrecisionReport>,
}

impl LoaderThread {
    fn run(mut self, mut requests: mpsc::Receiver<LoadRequest>) {
        priority::lower_thread_priority(NICE);
        compute_with_threads(1);
        while let Some(LoadRequest { model, pin, reply }) = requests.blocking_recv() {
            if reply.is_closed() {
                continue;
            }
            let network = match self.resident.contains(&model.sha256) {
                true => Ok(None),
                false => self.read(&model).map(Some),
            };
            match network {
                Ok(network) => {
                    let (installed, is_installed) = oneshot::channel();
                    self.install(InstallModel {
                        model,
                        network,
                        pin,
                        reply,
                        installed,
                    });
                    // Otherwise the next request for the same model would load it again. Drops the
                    // evicted models.
                    drop(is_installed.blocking_recv());
                }
                // The caller may have stopped waiting.
                Err(error) => drop(reply.send(Err(Error::model(&model.name, error)))),
            }
        }
    }

    fn install(&self, install: InstallModel) {
        // If the engine has stopped, the dropped reply fails the request.
        if let Some(engine) = self.engine.upgrade() {
            drop(engine.blocking_send(Command::Install(install)));
        }
    }

    /// Reads, checks and warms a model.
    ///
    /// # Errors
    /// If the weights cannot be read or do not compute.
    fn read(&mut self, model: &ServedModel) -> Result<Box<LoadedModel>, model::Error> {
        let started = Instant::now();
        let known = self.reports.get(&model.sha256).copied();
        let network = LoadedModel::read(model, self.device, self.precision, known, &self.threads)?;
        if let Some(report) = network.reusable_report() {
            if self.reports.len() == MAX_REPORTS && known.is_none() {
                self.reports.pop_first();
            }
            self.reports.insert(model.sha256.clone(), report);
        }
        let elapsed = started.elapsed();
        metrics::model_loaded(elapsed);
        tracing::info!(
            model = model.name,
            precision = network.report.precision.name(),
            difference = network.report.difference,
            seconds = elapsed.as_secs_f64(),
            "loaded a model"
        );
        Ok(Box::new(network))
    }
}
