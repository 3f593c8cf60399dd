//! A resumable upload over HTTP (the tus protocol), which survives lost connections and restarts of
//! the server.

use std::{
    io::Read as _,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use ureq::{
    Agent, Body, SendBody,
    http::{Response, StatusCode},
};

use crate::cli::{
    client::{Credentials, RetryPolicy, http},
    commands::dataset::{
        archive::Archive,
        background::Reporter,
        chunk::Chunk,
        response::{Failure, Loss, checked, invalid, lost, missing, number, refused},
    },
    error::Error,
};

/// Bytes per request; they are durable when its response arrives.
const CHUNK_BYTES: u64 = 32 << 20;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for the state of an interrupted upload.
const STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests of one upload; they block their thread.
pub(super) struct Upload {
    agent: Agent,
    /// For the state of an interrupted upload.
    state_agent: Agent,
    base: String,
    archive: Archive,
    /// Id, once the server has created the upload.
    id: OnceLock<String>,
    /// Set to stop sending.
    is_stopped: AtomicBool,
    retry: RetryPolicy,
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
    /// # Errors
    /// Credentials that cannot be used for `base`.
    pub(super) fn new(
        base: String,
        archive: Archive,
        credentials: &Credentials,
        retry: RetryPolicy,
    ) -> Result<Self, Error> {
        Ok(Self {
            agent: http::agent(credentials, &base, RESPONSE_TIMEOUT)?,
            state_agent: http::agent(credentials, &base, STATE_TIMEOUT)?,
            base,
            archive,
            id: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            retry,
        })
    }

    /// Id, once the server has created the upload.
    pub(super) fn id(&self) -> Option<String> {
        self.id.get().cloned()
    }

    /// Ends the request that sends bytes.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Number of bytes that the server has; `None` if it does not respond soon.
    pub(super) fn received(&self, id: &str) -> Option<u64> {
        let response = self.state_agent.head(self.path(id)).call();
        number(&checked(response).ok()?, "upload-offset")
    }

    /// Sends the bytes that the server does not have yet. Returns the id of the upload.
    ///
    /// # Errors
    /// An upload to resume that has other contents; a failure without progress for
    /// `stream_timeout`.
    pub(super) fn run(&self, resume: Option<String>, reporter: &Reporter) -> Result<String, Error> {
        let id = match resume {
            Some(id) => {
                self.repeat(reporter, Some(&id), || self.check_content(&id))?;
                id
            }
            None => self.repeat(reporter, None, || self.create())?,
        };
        let id = self.id.get_or_init(|| id);
        let mut best = 0;
        let mut attempts = Attempts::new();
        loop {
            let offset = self.repeat(reporter, Some(id), || self.offset(id))?;
            if offset > best {
                (best, attempts) = (offset, Attempts::new());
            }
            match self.send_from(id, offset, reporter) {
                Ok(()) => return Ok(id.clone()),
                Err(failure) => self.wait(&mut attempts, failure, Some(id), reporter)?,
            }
        }
    }

    fn repeat<T>(
        &self,
        reporter: &Reporter,
        id: Option<&str>,
        request: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut attempts = Attempts::new();
        loop {
            match request() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(&mut attempts, failure, id, reporter)?,
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
        reporter: &Reporter,
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
            reporter.note(match has_response {
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
            .header("upload-metadata", self.metadata())
            .send_empty();
        let mut response = checked(response)?;
        let body = response.body_mut().read_to_string().map_err(lost)?;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = body["upload"].as_str().map(str::to_owned);
        id.ok_or_else(|| invalid("the new upload has no id"))
    }

    /// Digest of the archive in the form of the tus protocol.
    fn metadata(&self) -> String {
        format!("sha256 {}", STANDARD.encode(self.archive.sha256()))
    }

    /// Checks that an upload was started with these contents.
    fn check_content(&self, id: &str) -> Result<(), Failure> {
        let response = self.state(id)?;
        let refuse = |text: String| {
            Err(Failure::Permanent(Error::Usage(format!(
                "{text}; push without --resume, and delete the upload with `visage dataset uploads delete {id}`"
            ))))
        };
        let metadata = response.headers().get("upload-metadata");
        match metadata.and_then(|text| text.to_str().ok()) {
            Some(text) if text == self.metadata() => Ok(()),
            Some(_) => refuse(format!(
                "upload {id} was started with other contents: files were changed, added or removed since"
            )),
            None => refuse(format!(
                "the server does not know with which contents upload {id} was started, so that it cannot be continued safely"
            )),
        }
    }

    /// Number of bytes that the server has.
    fn offset(&self, id: &str) -> Result<u64, Failure> {
        let offset = number(&self.state(id)?, "upload-offset");
        offset.ok_or_else(|| invalid("the upload has no offset"))
    }

    fn state(&self, id: &str) -> Result<Response<Body>, Failure> {
        let response = self.agent.head(self.path(id)).call();
        if response
            .as_ref()
            .is_ok_and(|response| response.status() == StatusCode::NOT_FOUND)
        {
            // A response to HEAD has no body.
            return Err(Failure::Permanent(missing(id)));
        }
        checked(response)
    }

    /// Sends the rest of the archive in chunks.
    fn send_from(&self, id: &str, mut offset: u64, reporter: &Reporter) -> Result<(), Failure> {
        let unreadable = |error| Failure::Permanent(Error::File(error));
        let total = self.archive.length();
        let mut bytes = self.archive.read_from(offset).map_err(unreadable)?;
        while offset < total {
            let length = CHUNK_BYTES.min(total - offset);
            let mut sent = offset;
            let mut chunk = Chunk {
                inner: (&mut bytes).take(length),
                on_read: |read| {
                    sent += read;
                    reporter.report("upload", sent, total);
                },
                is_stopped: &self.is_stopped,
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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
    };

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Uploads ten bytes, with short timeouts.
    fn upload(base: String, resume: Option<&str>) -> Result<String, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("faces.zip");
        fs_err::write(&path, [0; 10]).unwrap();
        let delay = Duration::from_millis(1);
        let archive = Archive::open(&path, &Reporter::unread()).unwrap();
        let retry = RetryPolicy {
            initial_delay: delay,
            max_delay: delay,
            stream_timeout: Duration::from_millis(50),
            ..RetryPolicy::default()
        };
        let upload = Upload::new(base, archive, &Credentials::default(), retry).unwrap();
        upload.run(resume.map(str::to_owned), &Reporter::unread())
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
        let error = upload(base, None).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert_eq!(error.to_string(), "the disk is full");
    }

    /// Serves this head as the response to each request.
    fn serving(head: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                write!(stream, "{head}\r\nconnection: close\r\n\r\n").ok();
            }
        });
        base
    }

    #[test]
    fn only_an_upload_with_the_same_contents_is_resumed() {
        let digest = STANDARD.encode(Sha256::digest([1; 10]));
        let other = format!(
            "HTTP/1.1 200 OK\r\nupload-offset: 3\r\nupload-length: 10\r\nupload-metadata: sha256 {digest}"
        );
        for (head, expected) in [
            (
                other.leak() as &str,
                "upload u was started with other contents",
            ),
            (
                "HTTP/1.1 200 OK\r\nupload-offset: 3\r\nupload-length: 10",
                "the server does not know with which contents upload u was started",
            ),
        ] {
            let error = upload(serving(head), Some("u")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            let text = error.to_string();
            assert!(text.starts_with(expected), "{text}");
            assert!(text.contains("push without --resume"), "{text}");
        }
        let error = upload(serving("HTTP/1.1 404 Not Found"), Some("nope")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no upload `nope`; `visage dataset uploads` lists them"
        );
    }

    #[test]
    fn a_missing_server_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = upload(base, None).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}
