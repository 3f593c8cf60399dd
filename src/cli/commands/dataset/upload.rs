//! A resumable upload over HTTP (the tus protocol), which survives lost connections and restarts of
//! the server.

use std::{
    io::{self, Read},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tonic::Status;
use ureq::{Agent, Body, SendBody, http::Response};

use crate::cli::{client::RetryPolicy, commands::dataset::archive::Archive, error::Error};

/// Bytes per request; they are durable when its response arrives.
const CHUNK_BYTES: u64 = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into()
}

/// Requests of one upload; they block their thread.
pub(super) struct Upload {
    agent: Agent,
    base: String,
    pub(super) archive: Archive,
    /// Bytes that were sent, for the progress bar.
    pub(super) sent: Arc<AtomicU64>,
    /// Id, once the server has created the upload.
    pub(super) id: Arc<OnceLock<String>>,
    retry: RetryPolicy,
}

enum Failure {
    Retryable(Loss),
    Permanent(Error),
}

/// A failure that another attempt may not have.
struct Loss {
    cause: String,
    /// True if the server responded, but cannot accept the request now.
    has_response: bool,
}

/// Failed attempts since the last progress.
struct Attempts {
    failures: u32,
    start: Instant,
}

impl Attempts {
    fn new() -> Self {
        Self {
            failures: 0,
            start: Instant::now(),
        }
    }
}

impl Upload {
    pub(super) fn new(base: String, archive: Archive, retry: RetryPolicy) -> Self {
        Self {
            agent: agent(),
            base,
            archive,
            sent: Arc::default(),
            id: Arc::default(),
            retry,
        }
    }

    /// Sends the bytes that the server does not have yet. Returns the id of the upload.
    pub(super) fn run(&self, resume: Option<String>, note: impl Fn(&str)) -> Result<String, Error> {
        let id = match resume {
            Some(id) => id,
            None => self.repeat(&note, None, || self.create())?,
        };
        let id = self.id.get_or_init(|| id);
        let mut best = 0;
        let mut attempts = Attempts::new();
        loop {
            let offset = self.repeat(&note, Some(id), || self.offset(id))?;
            if offset > best {
                (best, attempts) = (offset, Attempts::new());
            }
            match self.send_from(id, offset) {
                Ok(()) => return Ok(id.clone()),
                Err(failure) => self.wait(&mut attempts, failure, Some(id), &note)?,
            }
        }
    }

    fn repeat<T>(
        &self,
        note: &impl Fn(&str),
        id: Option<&str>,
        request: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut attempts = Attempts::new();
        loop {
            match request() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(&mut attempts, failure, id, note)?,
            }
        }
    }

    /// Waits before the next attempt. `id` is that of an upload that can be resumed.
    ///
    /// # Errors
    /// A permanent failure, or one without progress for `stream_timeout`.
    fn wait(
        &self,
        attempts: &mut Attempts,
        failure: Failure,
        id: Option<&str>,
        note: &impl Fn(&str),
    ) -> Result<(), Error> {
        let Loss {
            cause,
            has_response,
        } = match failure {
            Failure::Permanent(error) => return Err(error),
            Failure::Retryable(loss) => loss,
        };
        attempts.failures += 1;
        let delay = self.retry.delay(attempts.failures, None);
        if attempts.start.elapsed() + delay > self.retry.stream_timeout {
            let cause = match id {
                Some(id) => format!("{cause}; resume later with --resume {id}"),
                None => cause,
            };
            return Err(match has_response {
                true => refused(cause),
                false => Error::Unreachable {
                    server: self.base.clone(),
                    cause,
                },
            });
        }
        if attempts.failures == 1 {
            note(&match has_response {
                true => format!("Upload refused: {cause}; retrying."),
                false => format!("Connection to {} lost ({cause}); retrying.", self.base),
            });
        }
        thread::sleep(delay);
        Ok(())
    }

    fn create(&self) -> Result<String, Failure> {
        let path = format!("{}/datasets/uploads", self.base);
        let length = self.archive.length().to_string();
        let response = self
            .agent
            .post(path)
            .header("upload-length", length)
            .send_empty();
        let mut response = checked(response)?;
        let body = response.body_mut().read_to_string().map_err(lost)?;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = body["upload"].as_str().map(str::to_owned);
        id.ok_or_else(|| invalid("the new upload has no id"))
    }

    /// Number of bytes that the server has.
    fn offset(&self, id: &str) -> Result<u64, Failure> {
        let response = checked(self.agent.head(self.path(id)).call())?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let (Some(offset), Some(length)) = (header("upload-offset"), header("upload-length"))
        else {
            return Err(invalid("the upload has no offset"));
        };
        let expected = self.archive.length();
        if length != expected {
            return Err(Failure::Permanent(Error::Usage(format!(
                "upload {id} has {length} bytes, but this archive has {expected}: it has changed, or is another one; push it without --resume"
            ))));
        }
        Ok(offset)
    }

    /// Sends the rest of the archive in chunks.
    fn send_from(&self, id: &str, mut offset: u64) -> Result<(), Failure> {
        let unreadable = |error| Failure::Permanent(Error::File(error));
        let mut bytes = self.archive.read_from(offset).map_err(unreadable)?;
        while offset < self.archive.length() {
            let length = CHUNK_BYTES.min(self.archive.length() - offset);
            self.sent.store(offset, Ordering::Relaxed);
            let mut chunk = CountingReader {
                inner: (&mut bytes).take(length),
                sent: &self.sent,
                failure: None,
            };
            let response = self
                .agent
                .patch(self.path(id))
                .header("upload-offset", offset.to_string())
                .header("content-length", length.to_string())
                .content_type("application/offset+octet-stream")
                .send(SendBody::from_reader(&mut chunk));
            if let Some(error) = chunk.failure {
                return Err(unreadable(error));
            }
            checked(response)?;
            offset += length;
        }
        Ok(())
    }

    fn path(&self, id: &str) -> String {
        format!("{}/datasets/uploads/{id}", self.base)
    }
}

/// A successful response.
fn checked(response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
    let mut response = response.map_err(lost)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let cause = match body["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!("the server returned {status}"),
    };
    // Another request still holds the upload, the server is busy or shutting down, or it has
    // another offset.
    let is_retryable = matches!(status.as_u16(), 408 | 409 | 423 | 429) || status.is_server_error();
    match is_retryable {
        true => Err(Failure::Retryable(Loss {
            cause,
            has_response: true,
        })),
        false => Err(Failure::Permanent(refused(cause))),
    }
}

fn refused(message: String) -> Error {
    Error::Refused(Box::new(Status::unknown(message)))
}

fn lost(error: ureq::Error) -> Failure {
    Failure::Retryable(Loss {
        cause: error.to_string(),
        has_response: false,
    })
}

fn invalid(text: &str) -> Failure {
    Failure::Permanent(Error::Contract(text.to_owned()))
}

/// Counts the bytes, and keeps a read error, which ureq would report as a connection error.
struct CountingReader<'a, R> {
    inner: R,
    sent: &'a AtomicU64,
    failure: Option<io::Error>,
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.sent.fetch_add(read as u64, Ordering::Relaxed);
                Ok(read)
            }
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(error);
                Err(copy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
    };

    use super::*;

    /// Uploads ten bytes, with short timeouts.
    fn upload(base: String) -> Result<String, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("faces.zip");
        fs_err::write(&path, [0; 10]).unwrap();
        let delay = Duration::from_millis(1);
        let archive = Archive::open(&path, |_, _| {}).unwrap();
        let retry = RetryPolicy {
            initial_delay: delay,
            max_delay: delay,
            stream_timeout: Duration::from_millis(50),
            ..RetryPolicy::default()
        };
        let upload = Upload::new(base, archive, retry);
        upload.run(None, |_| {})
    }

    #[test]
    fn a_server_without_space_refuses_with_its_own_message() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let body = r#"{"error":"the disk is full"}"#;
                let head = "HTTP/1.1 429 Too Many Requests\r\nconnection: close";
                write!(
                    stream,
                    "{head}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .ok();
            }
        });
        let error = upload(base).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert_eq!(error.to_string(), "the disk is full");
    }

    #[test]
    fn a_missing_server_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = upload(base).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}
