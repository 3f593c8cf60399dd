//! An image on its way through the engine.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::{
    inference::{
        Error,
        admission::Permit,
        job::Job,
        model_io::{ModelInput, ModelOutput},
        observer,
    },
    telemetry::metrics::RejectionReason,
};

/// The receiver of an entry's result; the permit comes back with the output.
pub(crate) type EntryResult = oneshot::Receiver<Result<(ModelOutput, Permit), Error>>;

/// A decoded image.
#[derive(Debug)]
pub(crate) struct QueueEntry {
    pub(crate) job: Job,
    pub(crate) input: ModelInput,
    pub(crate) enqueued: Instant,
    permit: Permit,
    /// Closed once the client has left.
    reply: oneshot::Sender<Result<(ModelOutput, Permit), Error>>,
}

impl QueueEntry {
    pub(crate) fn new(job: Job, input: ModelInput, permit: Permit) -> (Self, EntryResult) {
        let (reply, result) = oneshot::channel();
        let entry = QueueEntry {
            job,
            input,
            enqueued: Instant::now(),
            permit,
            reply,
        };
        (entry, result)
    }

    /// Returns the number of rows that the entry takes in a batch.
    pub(crate) fn rows(&self) -> usize {
        1 + usize::from(self.job.options.average_flip)
    }

    pub(crate) fn is_client_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Sends the result, which is dropped if the client has left.
    pub(crate) fn reply(self, result: Result<ModelOutput, Error>) {
        let permit = self.permit;
        drop(self.reply.send(result.map(|output| (output, permit))));
    }

    /// Returns the entry if its result is still needed; otherwise drops and records it.
    pub(super) fn if_needed(self) -> Option<Self> {
        let Some(reason) = self.job.drop_reason(self.is_client_gone()) else {
            return Some(self);
        };
        observer::rejected(reason);
        if reason == RejectionReason::DeadlineExceeded {
            self.reply(Err(Error::DeadlineExceeded));
        }
        None
    }
}
