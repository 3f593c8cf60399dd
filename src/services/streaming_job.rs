//! What calls have in common that read a dataset and work on it for a while: room for few of them, the spec of the dataset, its scan, progress, and sending with
//! patience.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    dataset::{self, Dataset, Phase, Roots},
    imaging::Limits,
    inference::Predictor,
    proto::{v1, validation::Violation},
    registry::Registry,
    store::Store,
    training::spec::Spec,
};

use super::{dataset_ref, status};

/// Shortest pause between two reports of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for a client to take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// The components that long-running calls use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct JobContext {
    pub(crate) predictor: Predictor,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) data_roots: Roots,
    /// Limits on one image.
    pub(crate) limits: Limits,
    pub(crate) shutdown: CancellationToken,
}

/// Where the messages of a call go.
pub(super) type Sender<R> = mpsc::Sender<Result<R, Status>>;

/// The dataset of a request as a training would have it, with its name and its path resolved.
///
/// # Errors
/// All violations at once, those that were found before included.
pub(super) async fn resolve(
    mut given: v1::DatasetSpec,
    seed: Option<u64>,
    (store, roots): (&Store, &Roots),
    mut violations: Vec<Violation>,
) -> Result<Spec, Status> {
    let misnamed = dataset_ref::resolve_name(store, &mut given, "dataset").await?;
    if let Some(violation) = misnamed {
        // Without a path nothing more could be said about the dataset.
        violations.push(violation);
        return Err(status::violations(&violations));
    }
    if !given.path.is_empty() {
        match roots.resolve(&given.path) {
            Ok(path) => given.path = path.to_string_lossy().into_owned(),
            Err(error) => violations.push(Violation {
                field: "dataset.path".to_owned(),
                description: error.to_string(),
            }),
        }
    }
    let spec = v1::TrainingSpec {
        dataset: Some(given),
        seed,
        ..Default::default()
    };
    match Spec::resolve(Some(&spec)) {
        Ok(spec) if violations.is_empty() => return Ok(spec),
        Ok(_) => {}
        Err(found) => violations.extend(found.into_iter().map(in_request)),
    }
    Err(status::violations(&violations))
}

/// A violation of a training's spec as one of a request where the dataset stands at the top.
fn in_request(violation: Violation) -> Violation {
    Violation {
        field: violation.field.trim_start_matches("spec.").to_owned(),
        description: violation.description.replace("spec.dataset.", "dataset."),
    }
}

/// Reads a dataset beside whatever clients wait for; dropping the future ends it. `progress` gets what [`dataset::load`] says.
///
/// # Errors
/// INVALID_ARGUMENT for a dataset that cannot be used.
#[expect(
    clippy::disallowed_methods,
    reason = "reading files is what the blocking pool is for, and whoever calls this has a slot of few"
)]
pub(super) async fn scan(
    path: &str,
    roots: &Roots,
    options: dataset::Options,
    mut progress: impl FnMut(Phase, usize, usize) + Send + 'static,
) -> Result<Dataset, Status> {
    let (path, roots) = (PathBuf::from(path), roots.clone());
    let options = dataset::Options {
        background: true,
        ..options
    };
    let left = CancellationToken::new();
    let guard = left.clone().drop_guard();
    let scan = tokio::task::spawn_blocking(move || {
        dataset::load(&path, &roots, &options, &mut progress, &|| {
            left.is_cancelled()
        })
    });
    let dataset = scan.await.map_err(|error| {
        tracing::error!(%error, "a scan panicked");
        Status::internal("the scan of the dataset failed")
    })?;
    drop(guard);
    dataset.map_err(|error| {
        let field = match &error {
            dataset::Error::TooManySearched {
                for_split: false, ..
            } => "skip_near_duplicates".to_owned(),
            _ => format!("dataset.{}", status::dataset_field(&error)),
        };
        status::invalid(&field, &error.to_string())
    })
}

/// Room for so many calls of one kind at once. Cheap to clone.
#[derive(Clone)]
pub(super) struct JobLimit {
    free: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl JobLimit {
    /// `tasks` owns the calls.
    pub(super) fn new(most: usize, tasks: TaskTracker) -> Self {
        JobLimit {
            free: Arc::new(Semaphore::new(most)),
            tasks,
        }
    }

    /// A place, free again when it is dropped; `None` where all are taken.
    pub(super) fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Begins a call that sends what the client receives.
    pub(super) fn start<R, F>(
        &self,
        call: impl FnOnce(Sender<R>) -> F,
    ) -> ReceiverStream<Result<R, Status>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(4);
        self.tasks.spawn(Box::pin(call(sender)));
        ReceiverStream::new(receiver)
    }
}

/// Sends progress until something is found, and then that; ends early when the client leaves or the server shuts down.
pub(super) async fn drive<P: Clone, R, F, D: Future<Output = bool>>(
    sender: &Sender<R>,
    shutdown: &CancellationToken,
    (told, response): (watch::Receiver<P>, impl Fn(P) -> R),
    find: impl Future<Output = Result<F, Status>>,
    deliver: impl FnOnce(F) -> D,
) {
    let found = tokio::select! {
        found = find => found,
        () = tell(told, sender, response) => return,
        () = sender.closed() => return,
        () = shutdown.cancelled() => Err(status::shutting_down()),
    };
    let sending = async {
        match found {
            Ok(found) => deliver(found).await,
            Err(status) => send(sender, Err(status)).await,
        }
    };
    tokio::select! {
        // Whether the client has taken everything is its own affair.
        _ = sending => {}
        () = shutdown.cancelled() => drop(sender.try_send(Err(status::shutting_down()))),
    }
}

/// Sends the latest progress now and then; returns when the client has left.
async fn tell<P: Clone, R>(
    mut told: watch::Receiver<P>,
    sender: &Sender<R>,
    response: impl Fn(P) -> R,
) {
    loop {
        let progress = told.borrow_and_update().clone();
        if !send(sender, Ok(response(progress))).await {
            return;
        }
        tokio::time::sleep(PROGRESS_PAUSE).await;
        if told.changed().await.is_err() {
            // The result is there, and whoever asked for progress has it.
            std::future::pending::<()>().await;
        }
    }
}

/// Sends one message; false when the client has left or does not take it in time.
pub(super) async fn send<R>(sender: &Sender<R>, message: Result<R, Status>) -> bool {
    let sent = tokio::time::timeout(SEND_TIMEOUT, sender.send(message)).await;
    sent.is_ok_and(|sent| sent.is_ok())
}
