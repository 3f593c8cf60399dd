//! The worker's ends of the pipes: events and heartbeats to the server, commands from it.

use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    proto::{
        v1,
        worker_v1::{
            Heartbeat, Job, LiveVersion, UpdateCommand, WorkerCommand, WorkerEvent, worker_command,
            worker_event::Kind,
        },
    },
    training::{control::ControlSignal, protocol, spec::Changes},
};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Time for the training to notice that its server is gone before the process exits anyway.
const ORPHAN_GRACE: Duration = Duration::from_secs(20);

/// Requests of the server that the training has not seen yet.
#[derive(Debug, Default)]
pub(super) struct ControlState {
    requests: Mutex<Requests>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Requests {
    signal: ControlSignal,
    changes: Changes,
    live: Option<LiveVersion>,
}

impl ControlState {
    pub(super) fn signal(&self) -> ControlSignal {
        self.lock().signal
    }

    /// Returns changes of the spec, each once.
    pub(super) fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.lock().changes)
    }

    /// Waits for the response to a request for the live version; `None` if the training is
    /// cancelled.
    pub(super) fn wait_for_live(&self) -> Option<LiveVersion> {
        let mut requests = self.lock();
        loop {
            if requests.signal >= ControlSignal::Cancel {
                return None;
            }
            if let Some(live) = requests.live.take() {
                return Some(live);
            }
            // A server that is gone requests the end of the training.
            let waited = self.changed.wait(requests);
            requests = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn request(&self, signal: ControlSignal) {
        let mut requests = self.lock();
        requests.signal = requests.signal.max(signal);
        self.changed.notify_all();
    }

    fn receive_live(&self, live: LiveVersion) {
        self.lock().live = Some(live);
        self.changed.notify_all();
    }

    fn change(&self, update: UpdateCommand) {
        let changes = &mut self.lock().changes;
        changes.max_epochs = update.max_epochs.or(changes.max_epochs);
        changes.patience = update.patience.or(changes.patience);
        changes.learning_rate = update.learning_rate.or(changes.learning_rate);
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server is gone.
#[derive(Debug, thiserror::Error)]
#[error("failed to send an event to the server: {0}")]
pub(crate) struct PipeError(io::Error);

/// Sends events to the server.
#[derive(Debug)]
pub(crate) struct EventSender {
    pipe: Mutex<File>,
    progress: AtomicU64,
    last_report: Mutex<Option<Instant>>,
}

impl EventSender {
    pub(super) fn new(pipe: File) -> Self {
        EventSender {
            pipe: Mutex::new(pipe),
            progress: AtomicU64::new(0),
            last_report: Mutex::new(None),
        }
    }

    /// Sends an event, which counts as progress.
    pub(super) fn send(&self, kind: Kind) -> Result<(), PipeError> {
        self.count_progress();
        self.write(kind)
    }

    /// Counts progress, and reports it unless the last report is recent.
    pub(super) fn progress(&self, report: impl FnOnce() -> v1::Progress) -> Result<(), PipeError> {
        self.count_progress();
        {
            let mut last = self
                .last_report
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
                return Ok(());
            }
            *last = Some(Instant::now());
        }
        self.write(Kind::Progress(report()))
    }

    /// Sends heartbeats until the server is gone; runs on a separate thread.
    pub(super) fn send_heartbeats(&self) {
        loop {
            let heartbeat = Heartbeat {
                progress: self.progress.load(Ordering::Relaxed),
            };
            if self.write(Kind::Heartbeat(heartbeat)).is_err() {
                return;
            }
            std::thread::sleep(HEARTBEAT_INTERVAL);
        }
    }

    fn count_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, kind: Kind) -> Result<(), PipeError> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::write(&mut *pipe, &WorkerEvent { kind: Some(kind) }).map_err(PipeError)
    }
}

/// Reads the job, the first command.
///
/// # Errors
/// A closed pipe, or another command.
pub(super) fn read_job(input: &mut impl Read) -> io::Result<Job> {
    let command = protocol::read::<WorkerCommand>(input)?;
    if let Some(worker_command::Kind::Job(job)) = command.and_then(|command| command.kind) {
        return Ok(job);
    }
    let message = "the first command must be a job";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Receives commands until the pipe closes; runs on a separate thread.
///
/// A closed pipe means that the server is gone. The training gets a grace period to end, then the
/// process exits whatever it does, so that no worker outlives its server.
pub(super) fn follow_commands(input: &mut impl Read, control: &Arc<ControlState>) {
    loop {
        match protocol::read::<WorkerCommand>(input) {
            Ok(Some(command)) => match command.kind {
                Some(worker_command::Kind::Pause(_)) => control.request(ControlSignal::Pause),
                Some(worker_command::Kind::Stop(_)) => control.request(ControlSignal::Stop),
                Some(worker_command::Kind::Cancel(_)) => control.request(ControlSignal::Cancel),
                Some(worker_command::Kind::Update(update)) => control.change(update),
                Some(worker_command::Kind::Live(live)) => control.receive_live(live),
                Some(worker_command::Kind::Job(_)) | None => {
                    tracing::warn!("ignored an unexpected command");
                }
            },
            Ok(None) | Err(_) => {
                control.request(ControlSignal::Kill);
                std::thread::sleep(ORPHAN_GRACE);
                // Without a log line: the log is a pipe to the server, which may block or break.
                std::process::exit(i32::from(EXIT_ORPHANED));
            }
        }
    }
}

/// Exit code of a worker whose server is gone.
pub(super) const EXIT_ORPHANED: u8 = 3;
