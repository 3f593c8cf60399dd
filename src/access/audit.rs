//! The audit log: one JSON object a line for each change and each refused call.
//!
//! A thread writes it, so that the level of the log and a slow disk do not affect it. A change
//! starts only when the queue has a place for its entry, so callers wait when the thread is behind.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fs_err as fs;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::files;

/// Lines that wait for the disk, and changes that are running.
const QUEUE: usize = 4096;
/// The file is rotated beyond this size; `audit.jsonl.1` is the youngest of the older files.
const MAX_BYTES: u64 = 64 << 20;
const OLDER_FILES: u32 = 9;

/// A line of the log.
#[derive(Debug, Serialize)]
pub(crate) struct AuditEntry {
    #[serde(serialize_with = "rfc3339")]
    pub(crate) time: SystemTime,
    /// Of the client; `null` without a valid credential.
    pub(crate) identity: Option<String>,
    pub(crate) address: Option<IpAddr>,
    /// User id of the client of a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<u32>,
    /// `package.Service/Method`, or the method and path of an HTTP request.
    pub(crate) call: String,
    /// The fields of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<serde_json::Value>,
    /// The name of the gRPC code, or the HTTP status; `Unfinished` if the client left or its
    /// credential became invalid during the call, whose change may have been made.
    pub(crate) outcome: String,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog(mpsc::Sender<Message>);

#[derive(Debug)]
enum Message {
    Entry(AuditEntry),
    /// Answered when all earlier entries are written and synced.
    Flush(oneshot::Sender<()>),
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct AuditPlace(mpsc::OwnedPermit<Message>);

impl AuditPlace {
    /// Hands the entry to the thread.
    pub(crate) fn record(self, entry: AuditEntry) {
        self.0.send(Message::Entry(entry));
    }
}

impl AuditLog {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = RotatedFile::open(path.to_owned())?;
        let (sender, mut messages) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                while let Some(message) = messages.blocking_recv() {
                    match message {
                        Message::Entry(entry) => {
                            if let Err(error) = file.write(&entry) {
                                tracing::error!(%error, call = entry.call, "failed to write the audit log");
                            }
                        }
                        Message::Flush(done) => {
                            if let Err(error) = file.file.sync_all() {
                                tracing::error!(%error, "failed to sync the audit log");
                            }
                            if done.send(()).is_err() {
                                tracing::debug!("nobody waits for the audit log any more");
                            }
                        }
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Waits for a place in the queue; `None` if the thread has ended by a panic.
    pub(crate) async fn reserve(&self) -> Option<AuditPlace> {
        let place = self.0.clone().reserve_owned().await;
        if place.is_err() {
            tracing::error!("the thread of the audit log ended");
        }
        place.ok().map(AuditPlace)
    }

    /// Waits until all entries are on the disk.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let sent = self.0.send(Message::Flush(done)).await;
        if sent.is_err() || written.await.is_err() {
            tracing::error!("the thread of the audit log ended");
        }
    }
}

struct RotatedFile {
    path: PathBuf,
    file: std::fs::File,
    bytes: u64,
}

impl RotatedFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, entry: &AuditEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.bytes > 0
            && self.bytes + line.len() as u64 > MAX_BYTES
            && let Err(error) = self.rotate()
        {
            // A file that grows is better than a lost entry.
            tracing::error!(%error, "failed to rotate the audit log");
        }
        if let Err(error) = self.file.write_all(&line) {
            // A part of the line would make the next one unreadable.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let older = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        files::remove_if_exists(&older(OLDER_FILES))?;
        for number in (1..OLDER_FILES).rev() {
            if older(number).exists() {
                fs::rename(older(number), older(number + 1))?;
            }
        }
        fs::rename(&self.path, older(1))?;
        *self = Self::open(self.path.clone())?;
        files::sync_directory(files::parent_dir(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(call: &str) -> AuditEntry {
        AuditEntry {
            time: SystemTime::UNIX_EPOCH,
            identity: Some("ci".to_owned()),
            address: Some(IpAddr::from([127, 0, 0, 1])),
            uid: None,
            call: call.to_owned(),
            request: None,
            outcome: "OK".to_owned(),
        }
    }

    #[test]
    fn file_is_rotated_and_the_oldest_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = RotatedFile::open(path.clone()).unwrap();
        for number in 0..12 {
            file.write(&entry(&number.to_string())).unwrap();
            file.bytes = MAX_BYTES;
        }
        let line = |path: &Path| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        assert_eq!(line(&path)["call"], "11");
        assert_eq!(line(&path)["time"], "1970-01-01T00:00:00.000Z");
        let older = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
        assert_eq!(line(&older(1))["call"], "10");
        assert_eq!(line(&older(9))["call"], "2");
        assert!(!older(10).exists());
    }

    #[test]
    fn entry_is_written_when_the_rotation_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = RotatedFile::open(path.clone()).unwrap();
        file.write(&entry("first")).unwrap();
        // A directory cannot be replaced by a file.
        fs::create_dir_all(directory.path().join("audit.jsonl.9/x")).unwrap();
        file.bytes = MAX_BYTES;
        file.write(&entry("second")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[tokio::test]
    async fn lines_are_written_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        for number in 0..100 {
            let place = log.reserve().await.unwrap();
            place.record(entry(&number.to_string()));
        }
        log.flush().await;
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        let last = text.lines().last().unwrap();
        assert!(last.contains("\"call\":\"99\""), "{text}");
    }
}
