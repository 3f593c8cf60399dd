//! The upload of an archive with its progress, until it is complete or the user interrupts it.

use std::sync::Arc;

use crate::cli::{
    client::Credentials,
    commands::dataset::{
        archive::Archive,
        background::{self, Reporter},
        upload::Upload,
    },
    context::Context,
    error::Error,
};

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
    /// Bytes that the server has; `None` if it does not respond.
    pub(super) received: Option<u64>,
    /// Bytes of the archive.
    pub(super) total: u64,
}

/// Uploads the archive and draws the progress.
pub(super) async fn send(
    archive: Archive,
    base: String,
    resume: Option<String>,
    credentials: &Credentials,
    context: &mut Context,
) -> Result<Sent, Error> {
    let total = archive.length();
    let upload = Arc::new(Upload::new(base, archive, credentials, context.retry)?);
    let sending = Arc::clone(&upload);
    let work = move |reporter: &Reporter| sending.run(resume, reporter);
    if let Some(id) = background::run(work, &mut context.output).await? {
        return Ok(Sent::Complete(id));
    }
    let id = upload.id();
    let received = match id.clone() {
        Some(id) => {
            upload.stop();
            let asked = move |_: &Reporter| Ok(upload.received(&id));
            background::run(asked, &mut context.output).await?.flatten()
        }
        None => None,
    };
    Ok(Sent::Interrupted(Interrupted {
        upload: id,
        received,
        total,
    }))
}
