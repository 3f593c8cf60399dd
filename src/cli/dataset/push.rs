//! `visage dataset push`: a directory or an archive to the server, however often the connection or the server goes away.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};
use ureq::{Agent, SendBody, http::Response};

use crate::{
    names as resource_names,
    proto::v1::{CreateDatasetRequest, Dataset, GetDatasetRequest, GetServerInfoRequest},
};

use super::{
    super::{
        Context, Error, Outcome,
        client::{Client, Patience, request},
        reading::ReadingArgs,
        report,
    },
    archive::Archive,
    named,
};

/// Bytes of a request: what it wrote is durable when it is answered.
const SLICE: u64 = 32 << 20;
/// Longest waits for a connection and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the bar is drawn.
const DRAW_PAUSE: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  visage dataset push faces/ --name faces
  visage dataset push faces.zip --name faces --display-name \"Faces of 2026\"
  visage train --dataset datasets/faces

A directory is sent as a tar of its images and manifests; nothing is written to this machine. The archive may be a zip, a tar or a gzipped tar of images whose names begin with
the age, or of images with a manifest.csv. When the server is restarted meanwhile, the upload goes on where it was.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Directory of images, or a zip, tar or tar.gz file; on this machine
    source: PathBuf,
    /// The dataset's id, such as `faces-2`: `datasets/ID` names it from then on
    #[arg(long, value_name = "ID")]
    name: String,
    /// Text for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    display_name: String,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Go on with this upload of the same directory or archive, which broke off
    #[arg(long, value_name = "UPLOAD")]
    resume: Option<String>,
    /// The server's HTTP port, where it is not on the host of the API [default: as the server says]
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Return once all bytes are there, without waiting until they are unpacked and scanned
    #[arg(long)]
    detach: bool,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let id = args.name.strip_prefix("datasets/").unwrap_or(&args.name);
    if !resource_names::is_id(id) {
        return Err(Error::Usage(format!(
            "{id:?} is no id for a dataset: 1 to 63 of a-z, 0-9 and -, beginning with a letter"
        )));
    }
    let archive = Archive::open(&args.source).map_err(Error::File)?;
    for warning in archive.warnings() {
        context.output.note(&format!("warning: {warning}"));
    }
    let client = context.connect().await?;
    check_free(id, &client).await?;
    let base = match args.http {
        Some(base) => base.trim_end_matches('/').to_owned(),
        None => http_base(&client).await?,
    };
    let upload = Upload {
        agent: agent(),
        base,
        archive,
        sent: Arc::new(AtomicU64::new(0)),
        patience: context.patience,
    };
    let upload = send(upload, args.resume, context).await?;
    let message = CreateDatasetRequest {
        dataset_id: id.to_owned(),
        upload,
        display_name: args.display_name,
        columns: args.reading.columns(),
        age_pattern: args.reading.age_pattern.unwrap_or_default(),
    };
    let dataset = create(message, &client, context).await?;
    named::show_when_done(dataset, args.detach, &client, context).await
}

/// Tells before any byte is sent that the name is taken.
async fn check_free(id: &str, client: &Client) -> Result<(), Error> {
    let name = format!("datasets/{id}");
    let found = client
        .datasets()
        .get_dataset(request(GetDatasetRequest { name }))
        .await;
    match found {
        Ok(_) => Err(Error::Refused(Box::new(Status::already_exists(format!(
            "datasets/{id} already exists; choose another --name, or delete it with `visage dataset delete {id}`"
        ))))),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(client.failure(status)),
    }
}

/// Where the HTTP port is: on the host of the API, with the port that the server tells.
async fn http_base(client: &Client) -> Result<String, Error> {
    let info = client
        .system()
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info = client.answer(info)?;
    let takes_uploads = info
        .limits
        .is_some_and(|limits| limits.max_upload_bytes > 0);
    if info.http_port == 0 || !takes_uploads {
        let text = "this server takes no uploads; register a directory of the server with `visage dataset register`";
        return Err(Error::Refused(Box::new(Status::failed_precondition(text))));
    }
    let server = client.server();
    let uri = server.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host);
    let host = host.ok_or_else(|| Error::Usage(format!("{server} has no host; give --http")))?;
    Ok(format!("http://{host}:{}", info.http_port))
}

/// Makes the dataset; a repeated call finds what the first one made.
async fn create(
    message: CreateDatasetRequest,
    client: &Client,
    context: &Context,
) -> Result<Dataset, Error> {
    let created = client
        .repeat(&context.patience, || {
            let call = request(message.clone());
            let mut datasets = client.datasets();
            async move { datasets.create_dataset(call).await }
        })
        .await;
    let none = || Error::Contract("the dataset came back empty".to_owned());
    match created {
        Ok(created) => created.dataset.ok_or_else(none),
        Err(Error::Refused(status)) if status.code() == Code::AlreadyExists => {
            let name = format!("datasets/{}", message.dataset_id);
            let found = client
                .datasets()
                .get_dataset(request(GetDatasetRequest { name }))
                .await;
            let found = client.answer(found)?.dataset.ok_or_else(none)?;
            match found.upload == message.upload {
                true => Ok(found),
                false => Err(Error::Refused(status)),
            }
        }
        Err(error) => Err(error),
    }
}

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into()
}

/// Sends everything on a thread of its own and draws how far it is; the upload's id.
async fn send(
    upload: Upload,
    resume: Option<String>,
    context: &mut Context,
) -> Result<String, Error> {
    let (sent, total) = (Arc::clone(&upload.sent), upload.archive.length());
    let (done, mut ended) = oneshot::channel();
    // A few remarks while nobody looks are enough.
    let (note, mut notes) = mpsc::channel::<String>(8);
    thread::Builder::new()
        .name("upload".to_owned())
        .spawn(move || {
            // Whoever waits for it may have been interrupted.
            let note = |text: &str| drop(note.try_send(text.to_owned()));
            done.send(upload.run(resume, note)).ok();
        })
        .map_err(Error::Runtime)?;
    let mut tick = tokio::time::interval(DRAW_PAUSE);
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            Some(text) = notes.recv() => context.output.note(&text),
            _ = tick.tick() => {
                let now = sent.load(Ordering::Relaxed);
                let text = format!("{} of {}", report::size_text(now), report::size_text(total));
                context.output.draw(now as f64 / total.max(1) as f64, text);
            }
        }
    };
    context.output.clear();
    while let Ok(text) = notes.try_recv() {
        context.output.note(&text);
    }
    ended.map_err(|_| Error::Runtime(io::Error::other("the thread that sends has died")))?
}

/// What the sending thread has.
struct Upload {
    agent: Agent,
    base: String,
    archive: Archive,
    /// Bytes that left this machine.
    sent: Arc<AtomicU64>,
    patience: Patience,
}

/// How a request ended that was not answered as it should be.
enum Ended {
    /// Worth another try.
    Lost(Loss),
    /// Not.
    Refused(Error),
}

/// Why another try may go better.
struct Loss {
    /// In words; those of the server where it answered.
    cause: String,
    /// Whether the server answered, that it cannot take the request now.
    was_answered: bool,
}

impl Upload {
    /// Sends all bytes, from where the server has them; the upload's id.
    fn run(&self, resume: Option<String>, note: impl Fn(&str)) -> Result<String, Error> {
        let id = match resume {
            Some(id) => id,
            None => self.again(&note, None, || self.begin())?,
        };
        let mut best = 0;
        let mut failures = 0;
        let mut last_contact = Instant::now();
        loop {
            let offset = self.again(&note, Some(&id), || self.offset(&id))?;
            if offset > best {
                (best, failures, last_contact) = (offset, 0, Instant::now());
            }
            match self.slices(&id, offset) {
                Ok(()) => return Ok(id),
                Err(Ended::Refused(error)) => return Err(error),
                Err(Ended::Lost(loss)) => {
                    failures += 1;
                    let pause = self.patience.pause(failures, None);
                    if last_contact.elapsed() + pause > self.patience.stream {
                        return Err(self.given_up(loss, Some(&id)));
                    }
                    let begin = match loss.was_answered {
                        true => format!("Not now: {}", loss.cause),
                        false => format!("Connection lost ({})", loss.cause),
                    };
                    note(&format!("{begin}; trying again from where the server is."));
                    thread::sleep(pause);
                }
            }
        }
    }

    /// What is told when another try would take too long, of an upload that has begun or before.
    fn given_up(&self, loss: Loss, id: Option<&str>) -> Error {
        let cause = match id {
            Some(id) => format!("{}; go on later with --resume {id}", loss.cause),
            None => loss.cause,
        };
        match loss.was_answered {
            true => refused(cause),
            false => Error::Unreachable {
                server: self.base.clone(),
                cause,
            },
        }
    }

    /// Asks until there is an answer.
    fn again<T>(
        &self,
        note: &impl Fn(&str),
        id: Option<&str>,
        ask: impl Fn() -> Result<T, Ended>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut failures = 0;
        loop {
            let loss = match ask() {
                Ok(answer) => return Ok(answer),
                Err(Ended::Refused(error)) => return Err(error),
                Err(Ended::Lost(loss)) => loss,
            };
            failures += 1;
            let pause = self.patience.pause(failures, None);
            if begun.elapsed() + pause > self.patience.stream {
                return Err(self.given_up(loss, id));
            }
            if failures == 1 {
                let (base, cause) = (&self.base, &loss.cause);
                note(&match loss.was_answered {
                    true => format!("Not now: {cause}; trying again."),
                    false => format!("No answer from {base} ({cause}); trying again."),
                });
            }
            thread::sleep(pause);
        }
    }

    fn begin(&self) -> Result<String, Ended> {
        let path = format!("{}/datasets/uploads", self.base);
        let length = self.archive.length().to_string();
        let answer = self
            .agent
            .post(path)
            .header("upload-length", length)
            .send_empty();
        let mut answer = answered(answer)?;
        let body = answer.body_mut().read_to_string().map_err(lost)?;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = body["upload"].as_str().map(str::to_owned);
        id.ok_or_else(|| broken("it began an upload without an id"))
    }

    /// Bytes that the server has.
    fn offset(&self, id: &str) -> Result<u64, Ended> {
        let answer = answered(self.agent.head(self.path(id)).call())?;
        let header = |name: &str| {
            answer
                .headers()
                .get(name)?
                .to_str()
                .ok()?
                .parse::<u64>()
                .ok()
        };
        let (Some(offset), Some(length)) = (header("upload-offset"), header("upload-length"))
        else {
            return Err(broken("it did not say how far the upload is"));
        };
        let ours = self.archive.length();
        if length != ours {
            return Err(Ended::Refused(Error::Usage(format!(
                "the upload {id} is of {length} bytes and this archive of {ours}: it has changed, or is another one; push it without --resume"
            ))));
        }
        Ok(offset)
    }

    /// Sends what is missing in requests of some size each.
    fn slices(&self, id: &str, mut offset: u64) -> Result<(), Ended> {
        let unreadable = |error| Ended::Refused(Error::File(error));
        let mut bytes = self.archive.read_from(offset).map_err(unreadable)?;
        while offset < self.archive.length() {
            let length = SLICE.min(self.archive.length() - offset);
            self.sent.store(offset, Ordering::Relaxed);
            let mut slice = Counted {
                inner: (&mut bytes).take(length),
                sent: &self.sent,
                failed: None,
            };
            let answer = self
                .agent
                .patch(self.path(id))
                .header("upload-offset", offset.to_string())
                .header("content-length", length.to_string())
                .content_type("application/offset+octet-stream")
                .send(SendBody::from_reader(&mut slice));
            if let Some(error) = slice.failed {
                return Err(unreadable(error));
            }
            answered(answer)?;
            offset += length;
        }
        Ok(())
    }

    fn path(&self, id: &str) -> String {
        format!("{}/datasets/uploads/{id}", self.base)
    }
}

/// The answer, if it is a good one.
fn answered(
    answer: Result<Response<ureq::Body>, ureq::Error>,
) -> Result<Response<ureq::Body>, Ended> {
    let mut answer = answer.map_err(lost)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let said = match body["error"].as_str() {
        Some(said) => said.to_owned(),
        None => format!("the server answered {status}"),
    };
    // Another request still holds the upload, the server is busy or ending, or it is at another byte than we thought.
    let may_pass = matches!(status.as_u16(), 408 | 409 | 423 | 429) || status.is_server_error();
    match may_pass {
        true => Err(Ended::Lost(Loss {
            cause: said,
            was_answered: true,
        })),
        false => Err(Ended::Refused(refused(said))),
    }
}

/// The server's words as a refusal.
fn refused(said: String) -> Error {
    Error::Refused(Box::new(Status::unknown(said)))
}

fn lost(error: ureq::Error) -> Ended {
    Ended::Lost(Loss {
        cause: error.to_string(),
        was_answered: false,
    })
}

fn broken(text: &str) -> Ended {
    Ended::Refused(Error::Contract(text.to_owned()))
}

/// Counts what is read, and keeps what the reading fails with, which is no fault of the connection.
struct Counted<'a, R> {
    inner: R,
    sent: &'a AtomicU64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.sent.fetch_add(read as u64, Ordering::Relaxed);
                Ok(read)
            }
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(told)
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

    fn upload(base: String) -> Upload {
        let pause = Duration::from_millis(1);
        Upload {
            agent: agent(),
            base,
            archive: Archive::File {
                path: PathBuf::from("faces.zip"),
                length: 10,
            },
            sent: Arc::default(),
            patience: Patience {
                first_pause: pause,
                longest_pause: pause,
                stream: Duration::from_millis(50),
                ..Patience::default()
            },
        }
    }

    #[test]
    fn server_that_has_no_room_for_long_refuses_in_its_own_words() {
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
        let error = upload(base).run(None, |_| {}).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert_eq!(error.to_string(), "the disk is full");
    }

    #[test]
    fn server_that_is_not_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = upload(base).run(None, |_| {}).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}
