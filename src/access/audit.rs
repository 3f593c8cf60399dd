//! The audit log: one JSON object a line for each change and each refused call.
//!
//! A thread writes it, so that the level of the log and a slow disk do not affect it. When the
//! thread is behind, callers wait.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fs_err as fs;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::files;

/// Lines that wait for the disk.
const QUEUE: usize = 1024;
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
    /// The name of the gRPC code, or the HTTP status.
    pub(crate) outcome: String,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// The log. Cheap to clone; the last clone ends the thread when all lines are written.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog(mpsc::Sender<AuditEntry>);

impl AuditLog {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = RotatedFile::open(path.to_owned())?;
        let (sender, mut entries) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                while let Some(entry) = entries.blocking_recv() {
                    if let Err(error) = file.write(&entry) {
                        tracing::error!(%error, call = entry.call, "failed to write the audit log");
                    }
                }
            })?;
        Ok(Self(sender))
    }

    /// Hands a line to the thread.
    pub(crate) async fn record(&self, entry: AuditEntry) {
        if self.0.send(entry).await.is_err() {
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
        if self.bytes > 0 && self.bytes + line.len() as u64 > MAX_BYTES {
            self.rotate()?;
        }
        self.file.write_all(&line)?;
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

    #[tokio::test]
    async fn lines_are_written_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        for number in 0..100 {
            log.record(entry(&number.to_string())).await;
        }
        let written = || fs::read_to_string(&path).unwrap().lines().count();
        let all = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while written() < 100 {
                tokio::task::yield_now().await;
            }
        });
        all.await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().last().unwrap().contains("\"call\":\"99\""),
            "{text}"
        );
    }
}
