//! Removal of files that are no longer needed; a failure costs disk space only.

use std::{io, path::Path};

use fs_err as fs;

use crate::{
    files,
    names::id_of,
    proto::{v1, worker_v1::ResumePoint},
    store::is_final,
};

use super::context::Context;

impl Context {
    /// Removes stored files that are no longer referenced.
    pub(super) async fn discard(&self, digests: &[String]) {
        let is_used = |digest: String| async move { self.store.is_referenced(&digest).await };
        self.artifacts.remove_unused(digests, is_used).await;
    }

    pub(super) async fn remove_work_dir_if_ended(&self, training: &v1::Training) {
        if is_final(training.state()) {
            self.remove_work_dir(id_of(&training.name)).await;
        }
    }

    pub(super) async fn remove_work_dir(&self, id: &str) {
        match fs::tokio::remove_dir_all(self.options.work_dir.join(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(training = id, %error, "failed to remove the work directory");
            }
            _ => {}
        }
    }
}

/// Creates a work directory durably, and removes everything in it but the full checkpoint to resume
/// from.
pub(super) async fn clean_work_dir(work_dir: &Path, kept: Option<&ResumePoint>) -> io::Result<()> {
    let (work_dir, kept) = (work_dir.to_owned(), kept.map(|point| point.file.clone()));
    let clean = move || {
        fs::create_dir_all(&work_dir)?;
        for entry in fs::read_dir(&work_dir)? {
            let entry = entry?;
            if Some(entry.file_name().to_string_lossy().as_ref()) == kept.as_deref() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        // The work directory and its parent may both be new.
        work_dir
            .ancestors()
            .skip(1)
            .take(2)
            .filter(|path| path.is_dir())
            .try_for_each(files::sync_directory)
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the blocking pool is for file operations; starts are as rare as trainings"
    )]
    let cleaned = tokio::task::spawn_blocking(clean).await;
    cleaned.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
