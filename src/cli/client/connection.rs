//! The connection to a server, and calls with retries.

use std::{error::Error as _, sync::Arc, time::Duration};

use http::Uri;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Request, Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    cli::{
        client::{Credentials, RetryPolicy, credentials::Authorization, tls_failure::explain},
        error::{Error, is_lost, retry_delay, root_cause},
    },
    proto::{
        open_inference::grpc_inference_service_client::GrpcInferenceServiceClient,
        v1::{
            dataset_service_client::DatasetServiceClient, model_service_client::ModelServiceClient,
            prediction_service_client::PredictionServiceClient,
            system_service_client::SystemServiceClient,
            training_service_client::TrainingServiceClient,
        },
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Deadline of an ordinary call.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest response in bytes: a full group of annotated images.
const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;

/// A channel whose calls have the token.
type Authorized = InterceptedService<Channel, Authorization>;

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: String,
    channel: Channel,
    authorization: Authorization,
    credentials: Arc<Credentials>,
}

impl Client {
    /// Connects immediately, so that an unreachable server is reported before any other error.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Connection`] for a failure of TLS, and credentials that
    /// cannot be used or would be sent in plain text.
    pub(crate) async fn connect(server: &str, credentials: Credentials) -> Result<Self, Error> {
        let unreachable = |error: tonic::transport::Error| lost(server, &error);
        let authorization = Authorization::new(&credentials, server)?;
        let mut endpoint = Endpoint::from_shared(server.to_owned())
            .and_then(|endpoint| endpoint.user_agent(concat!("visage/", env!("CARGO_PKG_VERSION"))))
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if server.starts_with("unix:") {
            // The name of the server in its check of the host.
            endpoint = endpoint.origin(Uri::from_static("http://localhost"));
        }
        if server.starts_with("https://") {
            credentials.check()?;
            let host = endpoint.uri().host().unwrap_or_default().to_owned();
            endpoint = endpoint
                .tls_config(credentials.grpc_tls(&host))
                .map_err(unreachable)?;
        }
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Self {
            server: server.to_owned(),
            channel,
            authorization,
            credentials: Arc::new(credentials),
        })
    }

    /// For requests to the HTTP port.
    pub(crate) fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn trainings(&self) -> TrainingServiceClient<Authorized> {
        TrainingServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn datasets(&self) -> DatasetServiceClient<Authorized> {
        DatasetServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn models(&self) -> ModelServiceClient<Authorized> {
        ModelServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn predictions(&self) -> PredictionServiceClient<Authorized> {
        PredictionServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn open_inference(&self) -> GrpcInferenceServiceClient<Authorized> {
        GrpcInferenceServiceClient::with_interceptor(
            self.channel.clone(),
            self.authorization.clone(),
        )
        .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn system(&self) -> SystemServiceClient<Authorized> {
        SystemServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
    }

    /// Distinguishes a server that refused a call from one that is gone.
    pub(crate) fn failure(&self, status: Status) -> Error {
        if is_lost(&status) {
            return match status.source() {
                Some(source) => lost(&self.server, source),
                None => Error::Unreachable {
                    server: self.server.clone(),
                    cause: status.message().to_owned(),
                },
            };
        }
        Error::Refused(Box::new(status))
    }

    /// The message of a response.
    pub(crate) fn message<T>(&self, result: Result<Response<T>, Status>) -> Result<T, Error> {
        result
            .map(Response::into_inner)
            .map_err(|status| self.failure(status))
    }

    /// The next message of a stream that reports progress continuously, so that silence means a
    /// lost server; `None` at the end.
    ///
    /// # Errors
    /// The status that ended the stream, or [`Error::Unreachable`].
    pub(crate) async fn next<T>(
        &self,
        stream: &mut Streaming<T>,
        retry: &RetryPolicy,
    ) -> Result<Option<T>, Error> {
        match timeout(retry.stream_timeout, stream.message()).await {
            Ok(message) => message.map_err(|status| self.failure(status)),
            Err(_) => Err(Error::Unreachable {
                server: self.server.clone(),
                cause: "the stream stopped sending".to_owned(),
            }),
        }
    }

    /// Repeats an idempotent call until it returns a response.
    ///
    /// # Errors
    /// The server's refusal, or [`Error::Unreachable`] after `call_timeout` without a response.
    pub(crate) async fn repeat<T>(
        &self,
        retry: &RetryPolicy,
        mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let mut failures = 0;
        loop {
            let status = match call().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let is_final = status
                .source()
                .is_some_and(|source| explain(&self.server, source).is_some());
            let retry_delay = retry_delay(&status);
            failures += 1;
            let delay = retry.delay(failures, retry_delay);
            let is_retryable = !is_final && (is_lost(&status) || retry_delay.is_some());
            if !is_retryable || start.elapsed() + delay > retry.call_timeout {
                return Err(self.failure(status));
            }
            sleep(delay).await;
        }
    }
}

/// A connection that failed, with the remedy if TLS is the cause.
fn lost(server: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    match explain(server, error) {
        Some(cause) => Error::Connection {
            server: server.to_owned(),
            cause,
        },
        None => Error::Unreachable {
            server: server.to_owned(),
            cause: root_cause(error),
        },
    }
}

/// The reason why a call got no response.
pub(crate) fn lost_cause(status: &Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    }
}

/// A request with the default deadline.
pub(crate) fn request<T>(message: T) -> Request<T> {
    request_within(message, CALL_TIMEOUT)
}

pub(crate) fn request_within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Fetches pages until there are `limit` items or the list ends. `fetch` receives the page size
/// and the page token.
pub(crate) async fn pages<T>(
    limit: usize,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Error>,
) -> Result<Vec<T>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_fetched_up_to_the_limit() {
        // Five items, two per page.
        let mut sizes = Vec::new();
        let mut fetch = async |page_size, token: String| {
            sizes.push(page_size);
            let start: usize = token.parse().unwrap_or(0);
            let end = (start + 2).min(5);
            let next = if end < 5 {
                end.to_string()
            } else {
                String::new()
            };
            Ok(((start..end).collect(), next))
        };
        assert_eq!(pages(50, &mut fetch).await.unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(pages(3, &mut fetch).await.unwrap(), [0, 1, 2]);
        assert_eq!(sizes, [50, 48, 46, 3, 1]);
    }
}
