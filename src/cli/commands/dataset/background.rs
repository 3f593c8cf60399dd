//! Blocking work on a thread of its own, with its progress, until it ends or the user interrupts
//! it.

use std::{io, pin::pin, thread, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use crate::cli::{
    args::watch_flag::ctrl_c,
    error::Error,
    output::{Output, text::size_text},
};

const DRAW_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    step: &'static str,
    done: u64,
    total: u64,
}

/// Progress and notes of the work.
#[derive(Debug)]
pub(super) struct Reporter {
    progress: watch::Sender<Progress>,
    notes: mpsc::Sender<String>,
}

impl Reporter {
    /// Reports bytes of a step such as `pack`.
    pub(super) fn report(&self, step: &'static str, done: u64, total: u64) {
        self.progress.send_replace(Progress { step, done, total });
    }

    /// Prints a line. A full channel drops it; a closed one means that the user interrupted the
    /// command.
    pub(super) fn note(&self, text: String) {
        drop(self.notes.try_send(text));
    }

    /// A reporter whose reports nobody reads.
    #[cfg(test)]
    pub(super) fn unread() -> Self {
        Self {
            progress: watch::Sender::default(),
            notes: mpsc::channel(1).0,
        }
    }
}

/// Runs the work and draws its progress; `None` after Ctrl-C, when its thread runs until the
/// program ends.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce(&Reporter) -> Result<T, Error> + Send + 'static,
    output: &mut Output,
) -> Result<Option<T>, Error> {
    let (result_tx, mut result_rx) = oneshot::channel();
    let (progress, drawn) = watch::channel(Progress::default());
    let (notes, mut note_rx) = mpsc::channel(8);
    thread::Builder::new()
        .name("push".to_owned())
        .spawn(move || {
            let reporter = Reporter { progress, notes };
            result_tx.send(work(&reporter)).ok();
        })
        .map_err(Error::Runtime)?;
    let mut ticks = tokio::time::interval(DRAW_INTERVAL);
    let mut interrupt = pin!(ctrl_c());
    let result = loop {
        tokio::select! {
            result = &mut result_rx => break result,
            () = &mut interrupt => {
                output.clear();
                return Ok(None);
            }
            Some(text) = note_rx.recv() => output.note(&text),
            _ = ticks.tick() => draw(*drawn.borrow(), output),
        }
    };
    output.clear();
    while let Ok(text) = note_rx.try_recv() {
        output.note(&text);
    }
    let panicked = |_| Error::Runtime(io::Error::other("the thread of the upload panicked"));
    result.map_err(panicked)?.map(Some)
}

fn draw(progress: Progress, output: &mut Output) {
    let Progress { step, done, total } = progress;
    if step.is_empty() {
        return;
    }
    let text = format!("{step} {} of {}", size_text(done), size_text(total));
    output.draw(done as f64 / total.max(1) as f64, text);
}
