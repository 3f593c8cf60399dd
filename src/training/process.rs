//! The worker's two ends of the pipe: events out, commands in, and signs of life from a thread of its own.

use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::proto::{
    v1,
    worker_v1::{
        self, UpdateCommand, WorkerCommand, WorkerEvent, worker_command, worker_event::Kind,
    },
};

use super::{frames, spec::Changes};

/// How often the worker shows that it lives.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long the training may take to notice that its server is gone before the process ends regardless.
const ORPHAN_GRACE: Duration = Duration::from_secs(20);

/// What the server wants of a running training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    GoOn,
    /// Write a full checkpoint and let go of the device.
    Pause,
    /// End early and keep the best checkpoint.
    Stop,
    /// Give up.
    Cancel,
    /// There is no server any more.
    Orphaned,
}

/// The latest wish, of which the strongest wins, and what is to change with the next epoch.
#[derive(Debug, Default)]
pub struct Control {
    level: AtomicU8,
    changes: Mutex<Changes>,
}

impl Control {
    /// What the server wants now.
    pub fn wish(&self) -> Wish {
        match self.level.load(Ordering::Relaxed) {
            0 => Wish::GoOn,
            1 => Wish::Pause,
            2 => Wish::Stop,
            3 => Wish::Cancel,
            _ => Wish::Orphaned,
        }
    }

    /// What is to change from now on, told once.
    pub fn take_changes(&self) -> Changes {
        std::mem::take(&mut self.changes())
    }

    fn raise(&self, level: u8) {
        self.level.fetch_max(level, Ordering::Relaxed);
    }

    fn change(&self, update: UpdateCommand) {
        let mut changes = self.changes();
        changes.max_epochs = update.max_epochs.or(changes.max_epochs);
        changes.patience = update.patience.or(changes.patience);
        changes.learning_rate = update.learning_rate.or(changes.learning_rate);
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends events to the server.
#[derive(Debug)]
pub struct Reporter {
    pipe: Mutex<File>,
    ticks: AtomicU64,
    last_progress: Mutex<Option<Instant>>,
}

impl Reporter {
    /// Takes the private copy of the worker's standard output.
    pub fn new(pipe: File) -> Self {
        Reporter {
            pipe: Mutex::new(pipe),
            ticks: AtomicU64::new(0),
            last_progress: Mutex::new(None),
        }
    }

    /// Sends an event.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn send(&self, kind: Kind) -> io::Result<()> {
        self.tick();
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        frames::write(&mut *pipe, &WorkerEvent { kind: Some(kind) })
    }

    /// Sends where the training stands, unless that was done a moment ago.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn progress(&self, progress: impl FnOnce() -> v1::Progress) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(250);
        self.tick();
        {
            let mut last = self
                .last_progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PAUSE) {
                return Ok(());
            }
            *last = Some(Instant::now());
        }
        self.send(Kind::Progress(progress()))
    }

    /// Counts that the training got something done.
    pub fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends signs of life until the server is gone; runs on a thread of its own.
    pub fn beat(&self) {
        loop {
            let beat = worker_v1::Beat {
                ticks: self.ticks.load(Ordering::Relaxed),
            };
            let event = WorkerEvent {
                kind: Some(Kind::Beat(beat)),
            };
            let sent = {
                let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
                frames::write(&mut *pipe, &event)
            };
            if sent.is_err() {
                return;
            }
            std::thread::sleep(BEAT_INTERVAL);
        }
    }
}

/// Reads the job, which comes first.
///
/// # Errors
/// When the server is gone or sends something else.
pub fn read_job(input: &mut impl Read) -> io::Result<worker_v1::Job> {
    let unexpected = |what: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected a job, found {what}"),
        )
    };
    let command: WorkerCommand =
        frames::read(input)?.ok_or_else(|| unexpected("the end of the input"))?;
    match command.kind {
        Some(worker_command::Kind::Job(job)) => Ok(job),
        Some(worker_command::Kind::Stop(_)) => Err(unexpected("stop")),
        Some(worker_command::Kind::Cancel(_)) => Err(unexpected("cancel")),
        Some(worker_command::Kind::Pause(_)) => Err(unexpected("pause")),
        Some(worker_command::Kind::Update(_)) => Err(unexpected("update")),
        None => Err(unexpected("an empty command")),
    }
}

/// Takes commands until the pipe closes; runs on a thread of its own.
///
/// A closed pipe means that the server is gone: the training gets a moment to end, then the process ends whatever it is doing, so that no worker is
/// ever left over.
pub fn follow_commands(input: &mut impl Read, control: &Arc<Control>) {
    loop {
        match frames::read::<WorkerCommand>(input) {
            Ok(Some(command)) => match command.kind {
                Some(worker_command::Kind::Pause(_)) => control.raise(1),
                Some(worker_command::Kind::Stop(_)) => control.raise(2),
                Some(worker_command::Kind::Cancel(_)) => control.raise(3),
                Some(worker_command::Kind::Update(update)) => control.change(update),
                Some(worker_command::Kind::Job(_)) | None => {
                    tracing::warn!("ignored a command that makes no sense now");
                }
            },
            Ok(None) | Err(_) => {
                control.raise(4);
                std::thread::sleep(ORPHAN_GRACE);
                // Without a word: the log goes to a pipe of the server's, which may block or break.
                std::process::exit(worker_exit::ORPHANED);
            }
        }
    }
}

/// Exit codes of a worker, for the log; the server judges by the last frame.
pub mod worker_exit {
    /// The server is gone.
    pub const ORPHANED: i32 = 3;
    /// The job could not be read.
    pub const NO_JOB: i32 = 4;
}
