//! The event files of all trainings.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fs_err::tokio as fs;
use tokio::{io::AsyncWriteExt as _, sync::Mutex};

use crate::{names::id_of, proto::v1};

use super::record;

/// Prefix of file names by which TensorBoard finds them.
const PREFIX: &str = "events.out.tfevents.";

#[derive(Debug)]
pub(crate) struct EventFiles {
    /// Parent of the directories of trainings; `None` to write no files.
    directory: Option<PathBuf>,
    /// Locked while writing, so that a directory is not deleted meanwhile.
    current: Mutex<Option<Run>>,
}

/// The training that was written last, with its open file.
#[derive(Debug)]
struct Run {
    id: String,
    attempt: u32,
    /// `None` until it is created, which is tried for each epoch.
    file: Option<EventFile>,
    has_warned: bool,
}

impl EventFiles {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        EventFiles {
            directory,
            current: Mutex::new(None),
        }
    }

    /// Appends an epoch of a training.
    pub(crate) async fn append(&self, training: &v1::Training, metrics: &v1::EpochMetrics) {
        let Some(directory) = &self.directory else {
            return;
        };
        let id = id_of(&training.name);
        let mut current = self.current.lock().await;
        let is_same = |run: &Run| run.id == id && run.attempt == training.attempt;
        let run = match current.take().filter(is_same) {
            Some(run) => run,
            None => Run {
                id: id.to_owned(),
                attempt: training.attempt,
                file: None,
                has_warned: false,
            },
        };
        let run = current.insert(run);
        let directory = directory.join(id);
        let written = async {
            let file = match run.file.take() {
                Some(file) => file,
                None => {
                    EventFile::create(&directory, training.resolved_spec.as_ref(), metrics.epoch)
                        .await?
                }
            };
            run.file.insert(file).append(record::epoch(metrics)).await
        };
        if let Err(error) = written.await
            && !std::mem::replace(&mut run.has_warned, true)
        {
            tracing::warn!(training = training.name, %error, "failed to write a TensorBoard event file; the training continues");
        }
    }

    pub(crate) async fn delete(&self, id: &str) {
        let Some(directory) = &self.directory else {
            return;
        };
        let mut current = self.current.lock().await;
        // A later training may reuse the id.
        current.take_if(|run| run.id == id);
        match fs::remove_dir_all(directory.join(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(training = id, %error, "failed to remove the TensorBoard event files");
            }
            _ => {}
        }
    }
}

/// A file that is open for appending.
#[derive(Debug)]
struct EventFile {
    file: fs::File,
    /// Records before the first epoch.
    head: Vec<u8>,
    /// Length of the complete records in bytes.
    length: u64,
}

impl EventFile {
    /// Creates the next file of a training, which starts with this epoch.
    async fn create(
        directory: &Path,
        spec: Option<&v1::TrainingSpec>,
        epoch: u32,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory).await?;
        let earlier = latest_second(directory).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO).as_secs();
        // TensorBoard reads files in order of their names, which must not depend on a clock change.
        let second = earlier.map_or(now, |earlier| now.max(earlier + 1));
        let mut name = OsString::from(format!("{PREFIX}{second:010}."));
        name.push(
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .as_ref(),
        );
        name.push(format!(".{}.0", std::process::id()));
        let mut head = record::file_version();
        match earlier {
            Some(_) => head.extend(record::session_start(epoch)),
            None => head.extend(spec.map(record::spec).unwrap_or_default()),
        }
        let file = fs::OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(directory.join(name))
            .await?;
        Ok(EventFile {
            file,
            head,
            length: 0,
        })
    }

    /// Appends a record; a failure leaves the file unchanged.
    async fn append(&mut self, record: Vec<u8>) -> io::Result<()> {
        let bytes = match self.length {
            0 => [self.head.as_slice(), &record].concat(),
            _ => record,
        };
        let written = async {
            self.file.write_all(&bytes).await?;
            self.file.flush().await
        };
        match written.await {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Readers stop at a partial record and would miss later ones.
                self.file.set_len(self.length).await?;
                Err(error)
            }
        }
    }
}

/// Returns the time in the name of the last event file of a directory; `None` without a file.
async fn latest_second(directory: &Path) -> io::Result<Option<u64>> {
    let mut entries = fs::read_dir(directory).await?;
    let mut latest = None;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let second = name.to_str().and_then(|name| {
            let (second, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
            second.parse().ok()
        });
        latest = latest.max(second);
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn append(files: &EventFiles, attempt: u32, epoch: u32) {
        let training = v1::Training {
            name: "trainings/faces".to_owned(),
            attempt,
            resolved_spec: Some(v1::TrainingSpec::default()),
            ..Default::default()
        };
        let metrics = v1::EpochMetrics {
            epoch,
            ..Default::default()
        };
        files.append(&training, &metrics).await;
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_file_of_a_later_start_sorts_after_earlier_ones_whatever_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("faces");
        fs_err::create_dir(&run).unwrap();
        let of_the_future = format!("{PREFIX}5000000000.host.1.0");
        fs_err::write(run.join(&of_the_future), b"").unwrap();
        let files = EventFiles::new(Some(directory.path().to_owned()));
        append(&files, 2, 1).await;
        append(&files, 2, 2).await;
        append(&files, 3, 1).await;
        let names = names(&run);
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[0], of_the_future);
        assert!(names[1].starts_with(&format!("{PREFIX}5000000001.")));
        assert!(names[2].starts_with(&format!("{PREFIX}5000000002.")));
        files.delete("faces").await;
        assert!(!run.exists());
    }

    #[tokio::test]
    async fn a_training_that_reuses_an_id_starts_with_an_empty_directory() {
        let directory = tempfile::tempdir().unwrap();
        let files = EventFiles::new(Some(directory.path().to_owned()));
        append(&files, 1, 1).await;
        files.delete("faces").await;
        append(&files, 1, 1).await;
        assert_eq!(names(&directory.path().join("faces")).len(), 1);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_created_costs_only_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("runs");
        fs_err::write(&taken, b"a file, not a directory").unwrap();
        let files = EventFiles::new(Some(taken.clone()));
        append(&files, 1, 1).await;
        fs_err::remove_file(&taken).unwrap();
        // The directory can be created now.
        append(&files, 1, 2).await;
        assert_eq!(names(&taken.join("faces")).len(), 1);
    }
}
