//! The thread that resubmits images whose model was evicted while they waited.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{command::Command, loader::Loader};
use crate::inference::queue::QueueEntry;

/// Starts the thread, which loads each image's model again and then resubmits the image. It stops
/// with the engine's thread.
///
/// # Errors
/// If the operating system refuses a thread.
pub(super) fn start(
    mut entries: mpsc::Receiver<QueueEntry>,
    loader: Loader,
    engine: mpsc::WeakSender<Command>,
) -> std::io::Result<()> {
    let body = move || {
        while let Some(entry) = entries.blocking_recv() {
            if entry.is_client_gone() {
                continue;
            }
            // After the first image of a version the others find it loaded.
            if let Err(error) = loader.load_blocking(Arc::clone(&entry.job.model)) {
                entry.reply(Err(error));
                continue;
            }
            // If the engine has stopped, dropping the entry fails its prediction.
            if let Some(engine) = engine.upgrade() {
                drop(engine.blocking_send(Command::Predict(Box::new(entry))));
            }
        }
    };
    std::thread::Builder::new()
        .name("requeue".to_owned())
        .spawn(body)
        .map(drop)
}
