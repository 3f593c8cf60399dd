//! The connection to the server: who answers, how long we wait, and how often we try.

use std::time::Duration;

use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::proto::{
    open_inference::grpc_inference_service_client::GrpcInferenceServiceClient,
    v1::{
        dataset_service_client::DatasetServiceClient, model_service_client::ModelServiceClient,
        prediction_service_client::PredictionServiceClient,
        system_service_client::SystemServiceClient, training_service_client::TrainingServiceClient,
    },
};

use super::error::{Error, is_lost, retry_delay, root_cause};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an ordinary answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an answer: a full group of annotated images.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// How long and how often to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Pause before the second try; it doubles from then on.
    pub(super) first_pause: Duration,
    /// Longest pause.
    pub(super) longest_pause: Duration,
    /// Time without contact after which a call is given up.
    pub(super) call: Duration,
    /// Time without contact after which a stream is given up.
    pub(super) stream: Duration,
    /// Silence of an open stream, heartbeats included, after which it counts as lost.
    pub(super) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(10),
            call: Duration::from_secs(60),
            stream: Duration::from_secs(300),
            silence: Duration::from_secs(45),
        }
    }
}

impl Patience {
    /// The pause after this many failures in a row, from 1: doubling, and at random between the half and the whole of it, so that the
    /// clients of a restarted server do not all come back at once. `asked` is what the server wants at least.
    pub(super) fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self
            .first_pause
            .saturating_mul(1 << failures.saturating_sub(1).min(16));
        let whole = doubled.min(self.longest_pause);
        let share = f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let random = whole.mul_f64(0.5 + 0.5 * share);
        random.max(asked.unwrap_or_default().min(self.longest_pause))
    }
}

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    server: String,
    channel: Channel,
}

impl Client {
    /// Connects at once, so that a server that is not there is told before anything else.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn connect(server: &str) -> Result<Self, Error> {
        let unreachable = |error: tonic::transport::Error| Error::Unreachable {
            server: server.to_owned(),
            cause: root_cause(&error),
        };
        let endpoint = Endpoint::from_shared(server.to_owned())
            .and_then(|endpoint| endpoint.user_agent(concat!("visage/", env!("CARGO_PKG_VERSION"))))
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Self {
            server: server.to_owned(),
            channel,
        })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn trainings(&self) -> TrainingServiceClient<Channel> {
        TrainingServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn datasets(&self) -> DatasetServiceClient<Channel> {
        DatasetServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn predictions(&self) -> PredictionServiceClient<Channel> {
        PredictionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn open_inference(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel.clone())
    }

    /// A status as an error of ours: the server refused, or it is gone.
    pub(super) fn failure(&self, status: Status) -> Error {
        if is_lost(&status) {
            return Error::Unreachable {
                server: self.server.clone(),
                cause: lost_cause(&status),
            };
        }
        Error::Refused(Box::new(status))
    }

    /// The message inside the answer.
    pub(super) fn answer<T>(&self, result: Result<Response<T>, Status>) -> Result<T, Error> {
        result
            .map(Response::into_inner)
            .map_err(|status| self.failure(status))
    }

    /// The next message of a stream whose server tells of progress all the time, so that silence means that it is gone; `None` at the end.
    ///
    /// # Errors
    /// What the server ended the stream with, or [`Error::Unreachable`].
    pub(super) async fn next<T>(
        &self,
        stream: &mut Streaming<T>,
        patience: &Patience,
    ) -> Result<Option<T>, Error> {
        match tokio::time::timeout(patience.stream, stream.message()).await {
            Ok(message) => message.map_err(|status| self.failure(status)),
            Err(_) => Err(Error::Unreachable {
                server: self.server.clone(),
                cause: "it has fallen silent".to_owned(),
            }),
        }
    }

    /// Calls until an answer comes, for calls that may safely be repeated.
    ///
    /// # Errors
    /// What the server refused with, or [`Error::Unreachable`] when no answer came for as long as `patience` allows.
    pub(super) async fn repeat<T, F>(
        &self,
        patience: &Patience,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let start = tokio::time::Instant::now();
        let mut failures = 0;
        loop {
            let status = match call().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let asked = retry_delay(&status);
            failures += 1;
            let pause = patience.pause(failures, asked);
            let may_repeat = is_lost(&status) || asked.is_some();
            if !may_repeat || start.elapsed() + pause > patience.call {
                return Err(self.failure(status));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Why a call got no answer.
pub(super) fn lost_cause(status: &Status) -> String {
    use std::error::Error as _;
    match status.source() {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    }
}

/// A request with a deadline.
pub(super) fn request<T>(message: T) -> Request<T> {
    request_within(message, CALL_TIMEOUT)
}

/// A request with this deadline.
pub(super) fn request_within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Fetches pages until there are `limit` items or no more. `fetch` gets the page's size and token.
pub(super) async fn pages<T, F>(
    limit: usize,
    mut fetch: impl FnMut(i32, String) -> F,
) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<(Vec<T>, String), Error>>,
{
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let page_size = i32::try_from((limit - items.len()).min(1000)).unwrap_or(1000);
        let (page, next) = fetch(page_size, token).await?;
        items.extend(page);
        if next.is_empty() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
        token = next;
    }
}
