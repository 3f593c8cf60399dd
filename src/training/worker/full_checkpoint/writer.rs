//! Writing of full checkpoints beside the training.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle};

use crate::{
    model,
    proto::worker_v1::{ResumePointSaved, worker_event},
    training::worker::link::{EventSender, PipeError},
};

use super::snapshot::Snapshot;

/// Writes full checkpoints on a separate thread, one at a time, and reports each to the server.
#[derive(Debug)]
pub(crate) struct Writer {
    directory: PathBuf,
    attempt: u32,
    written: u64,
    events: Arc<EventSender>,
    running: Option<JoinHandle<Result<(), Error>>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Pipe(#[from] PipeError),
}

impl Writer {
    pub(crate) fn new(directory: PathBuf, attempt: u32, events: Arc<EventSender>) -> Self {
        Writer {
            directory,
            attempt,
            written: 0,
            events,
            running: None,
        }
    }

    /// Starts to write a snapshot after the previous one is written, so that at most two are in
    /// memory.
    ///
    /// # Errors
    /// A failure of the previous snapshot.
    pub(crate) fn start(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        self.finish()?;
        self.written += 1;
        let (directory, attempt, number) = (self.directory.clone(), self.attempt, self.written);
        let events = Arc::clone(&self.events);
        self.running = Some(std::thread::spawn(move || {
            let point = snapshot.write(&directory, attempt, number)?;
            let saved = worker_event::Kind::Saved(ResumePointSaved { point: Some(point) });
            Ok(events.send(saved)?)
        }));
        Ok(())
    }

    /// Waits until the snapshot is on disk and reported.
    ///
    /// # Errors
    /// A failure of the snapshot.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            // The panic hook has logged the panic.
            Some(Err(_)) => Err(Error::Model(model::Error::Io(std::io::Error::other(
                "the thread that writes full checkpoints panicked",
            )))),
        }
    }
}
