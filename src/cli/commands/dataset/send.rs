//! The upload of an archive with its progress, until it is complete or the user interrupts it.

use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::cli::{
    args::watch_flag::ctrl_c,
    commands::dataset::{archive::Archive, upload::Upload},
    context::Context,
    error::Error,
    output::text::size_text,
};

const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// End of an upload without an error.
pub(super) enum Sent {
    /// The upload with this id is complete.
    Complete(String),
    /// Ctrl-C.
    Interrupted(Interrupted),
}

/// State of an upload at Ctrl-C.
pub(super) struct Interrupted {
    /// Id of the upload; `None` before the server has created it.
    pub(super) upload: Option<String>,
    /// Bytes that were sent, and those of the archive.
    pub(super) sent: u64,
    pub(super) total: u64,
}

/// Uploads the archive on a thread of its own, because the HTTP client blocks, and draws the
/// progress. After Ctrl-C the thread runs until the program ends.
pub(super) async fn send(
    archive: Archive,
    base: String,
    resume: Option<String>,
    context: &mut Context,
) -> Result<Sent, Error> {
    let upload = Upload::new(base, archive, context.retry);
    let (sent, total) = (Arc::clone(&upload.sent), upload.archive.length());
    let id = Arc::clone(&upload.id);
    let (result_tx, mut result_rx) = oneshot::channel();
    let (note_tx, mut note_rx) = mpsc::channel::<String>(8);
    thread::Builder::new()
        .name("upload".to_owned())
        .spawn(move || {
            // A full channel drops notes; a closed one means that the user interrupted the command.
            let note = |text: &str| drop(note_tx.try_send(text.to_owned()));
            result_tx.send(upload.run(resume, note)).ok();
        })
        .map_err(Error::Runtime)?;
    let output = &mut context.output;
    let mut ticks = tokio::time::interval(DRAW_INTERVAL);
    let mut interrupt = pin!(ctrl_c());
    let result = loop {
        tokio::select! {
            result = &mut result_rx => break result,
            () = &mut interrupt => {
                output.clear();
                return Ok(Sent::Interrupted(Interrupted {
                    upload: id.get().cloned(),
                    sent: sent.load(Ordering::Relaxed),
                    total,
                }));
            }
            Some(text) = note_rx.recv() => output.note(&text),
            _ = ticks.tick() => {
                let now = sent.load(Ordering::Relaxed);
                let text = format!("{} of {}", size_text(now), size_text(total));
                output.draw(now as f64 / total.max(1) as f64, text);
            }
        }
    };
    output.clear();
    while let Ok(text) = note_rx.try_recv() {
        output.note(&text);
    }
    let result =
        result.map_err(|_| Error::Runtime(io::Error::other("the upload thread panicked")))?;
    result.map(Sent::Complete)
}
