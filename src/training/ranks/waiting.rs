//! Ranks that wait while rank 0 prepares the training.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::{error::Error, exchange::Ranks};

/// Instruction of rank 0 before the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Rank 0 still prepares the training.
    Wait,
    /// The state of the training follows.
    Start,
    /// The training does not need the other ranks.
    Leave,
}

impl Instruction {
    /// Sends the instruction to the other ranks.
    ///
    /// # Errors
    /// A lost rank.
    pub(crate) fn send(self, ranks: &Ranks) -> Result<(), Error> {
        let code = match self {
            Instruction::Wait => 0,
            Instruction::Start => 1,
            Instruction::Leave => 2,
        };
        ranks.broadcast(vec![code]).map(drop)
    }

    /// Receives the instruction of rank 0.
    ///
    /// # Errors
    /// A lost rank.
    pub(crate) fn receive(ranks: &Ranks) -> Result<Self, Error> {
        Ok(match ranks.broadcast(Vec::new())?.first() {
            Some(0) => Instruction::Wait,
            Some(1) => Instruction::Start,
            Some(_) | None => Instruction::Leave,
        })
    }
}

/// The other ranks, to which a thread repeats [`Instruction::Wait`] before their timeout. Dropping
/// it releases them.
#[derive(Debug)]
pub(crate) struct WaitingRanks {
    ready: Sender<()>,
    thread: Option<JoinHandle<Result<Ranks, Error>>>,
}

impl WaitingRanks {
    pub(crate) fn new(ranks: Ranks, timeout: Duration) -> Self {
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            while is_ready.recv_timeout(timeout / 4) == Err(RecvTimeoutError::Timeout) {
                Instruction::Wait.send(&ranks)?;
            }
            Ok(ranks)
        });
        WaitingRanks {
            ready,
            thread: Some(thread),
        }
    }

    /// Returns the ranks when rank 0 is ready.
    ///
    /// # Errors
    /// A rank that was lost meanwhile.
    pub(crate) fn ready(mut self) -> Result<Ranks, Error> {
        self.end()
            .unwrap_or_else(|| Err(Error::Exchange("the ranks have left".to_owned())))
    }

    fn end(&mut self) -> Option<Result<Ranks, Error>> {
        // The thread may have ended after an error.
        self.ready.send(()).ok();
        // The panic hook has logged a panic.
        self.thread.take()?.join().ok()
    }
}

impl Drop for WaitingRanks {
    fn drop(&mut self) {
        if let Some(Ok(ranks)) = self.end()
            && let Err(error) = Instruction::Leave.send(&ranks)
        {
            tracing::debug!(%error, "failed to release the other ranks");
        }
    }
}
