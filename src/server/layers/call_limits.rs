//! Limits on the calls of both ports: their number, the memory of their messages, and the time
//! that a client may take to send them.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderValue, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE},
};
use tonic::Status;

use super::refused::grpc_response;
use super::request_body::{CountedBody, Failure, LimitedBody, MessageRule};
use crate::{
    access::Identity,
    proto::in_flight::{Budget, Held},
    server::network::ConnectionState,
    services::{caller::Source, status},
};

/// Uploads are written to disk as they arrive, and have limits of their own.
const UPLOADS: &str = "/datasets/";

/// The limits. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CallLimits {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Budget,
    /// For a part of a request, and for a part of a response.
    timeout: Duration,
    calls: usize,
    calls_per_address: usize,
    /// The paths of the methods whose clients send a stream.
    streams: HashSet<String>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<Source, usize>,
    /// Identities with a limit of their own, by owner.
    by_identity: HashMap<String, usize>,
}

pub(crate) struct Options {
    pub(crate) inflight_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) calls: usize,
    pub(crate) calls_per_address: usize,
    /// Methods as `package.Service/Method`.
    pub(crate) streams: Vec<String>,
}

impl CallLimits {
    pub(crate) fn new(options: Options) -> Self {
        let streams = options.streams.into_iter();
        Self {
            shared: Arc::new(Shared {
                memory: Budget::new(options.inflight_bytes),
                timeout: options.timeout,
                calls: options.calls,
                calls_per_address: options.calls_per_address,
                streams: streams.map(|method| format!("/{method}")).collect(),
                open: Mutex::default(),
            }),
        }
    }

    /// Counts a call until the returned value is dropped.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED at a limit.
    fn start(
        &self,
        source: Option<Source>,
        identity: Option<&Identity>,
    ) -> Result<OpenCall, Status> {
        let limited = identity.and_then(|identity| {
            let limit = identity.limits().calls?;
            Some((identity.owner().to_owned(), limit))
        });
        let per_address = self.shared.calls_per_address;
        let mut open = self.shared.lock();
        let of_source = source.map_or(0, |source| count(&open.by_source, &source));
        if open.all >= self.shared.calls || of_source >= per_address {
            return Err(status::too_many_calls(per_address));
        }
        if let Some((name, limit)) = &limited
            && count(&open.by_identity, name) >= *limit as usize
        {
            return Err(status::too_many_calls_of_identity(*limit));
        }
        let identity = limited.map(|(name, _)| name);
        open.all += 1;
        if let Some(source) = source {
            *open.by_source.entry(source).or_default() += 1;
        }
        if let Some(name) = &identity {
            *open.by_identity.entry(name.clone()).or_default() += 1;
        }
        Ok(OpenCall {
            shared: Arc::clone(&self.shared),
            source,
            identity,
        })
    }
}

fn count<K: Eq + Hash>(open: &HashMap<K, usize>, key: &K) -> usize {
    open.get(key).copied().unwrap_or(0)
}

fn end<K: Eq + Hash>(open: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = open.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            open.remove(key);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A call that counts towards the limits.
#[derive(Debug)]
struct OpenCall {
    shared: Arc<Shared>,
    source: Option<Source>,
    /// The owner of an identity with a limit of its own.
    identity: Option<String>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        open.all -= 1;
        if let Some(source) = &self.source {
            end(&mut open.by_source, source);
        }
        if let Some(identity) = &self.identity {
            end(&mut open.by_identity, identity);
        }
    }
}

/// The middleware of both ports.
pub(crate) async fn limit(limits: CallLimits, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let source = Source::of(extensions);
    let connection = extensions
        .get::<ConnectionState>()
        .cloned()
        .unwrap_or_default();
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let is_http1 = request.version() < Version::HTTP_2;
    let call = match limits.start(source, extensions.get::<Identity>()) {
        Ok(call) => call,
        Err(refused) => return refusal(&refused, content_type),
    };
    let held = limits.shared.memory.request();
    let timeout = limits.shared.timeout;
    let path = request.uri().path();
    let response = if path.starts_with(UPLOADS) {
        connection.writes.scope(next.run(request)).await
    } else {
        let rule = if limits.shared.streams.contains(path) {
            MessageRule::Stream
        } else {
            MessageRule::Single
        };
        let content_type = content_type.clone();
        let (request, failure) = limited(request, held.clone(), timeout, rule);
        let served = held.clone().scope(next.run(request));
        let response = connection.writes.scope(served).await;
        match failure.take() {
            Some(failed) => {
                let is_slow = failed.code() == tonic::Code::DeadlineExceeded;
                if is_http1 && is_slow {
                    // As for headers that do not arrive: the client is in the middle of its
                    // request.
                    connection.close.cancel();
                    return std::future::pending().await;
                }
                let mut refused = refusal(&failed, content_type);
                if is_http1 {
                    // The rest of the body would be read as the next request.
                    let close = HeaderValue::from_static("close");
                    refused.headers_mut().insert(CONNECTION, close);
                }
                refused
            }
            None => response,
        }
    };
    let bytes = http_body::Body::size_hint(response.body()).exact();
    let bytes = bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if !held.respond(bytes) {
        return refusal(&status::too_many_bytes(), content_type);
    }
    // Until the response is sent, it and its request count.
    response.map(|body| {
        let watched = connection.responses.wrap(body, timeout);
        Body::new(CountedBody::new(watched, held, call))
    })
}

fn limited(
    request: Request,
    held: Held,
    timeout: Duration,
    rule: MessageRule,
) -> (Request, Failure) {
    let failure = Failure::default();
    let request =
        request.map(|body| Body::new(LimitedBody::new(body, held, timeout, rule, failure.clone())));
    (request, failure)
}

/// The response to a request that the limits refuse, in the form that its client reads.
pub(super) fn refusal(refused: &Status, content_type: Option<HeaderValue>) -> Response {
    grpc_response(refused, content_type.as_ref()).unwrap_or_else(|| {
        let code = if refused.code() == tonic::Code::ResourceExhausted {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::REQUEST_TIMEOUT
        };
        let body = serde_json::json!({ "error": refused.message() }).to_string();
        let headers = [(CONTENT_TYPE, "application/json")];
        (code, headers, body).into_response()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Roles};

    fn identity(name: &str, calls: Option<u32>) -> Identity {
        let limits = Limits {
            calls,
            ..Limits::default()
        };
        let revoked = CancellationToken::new();
        Identity::new(name.to_owned(), Roles::default(), limits, None, revoked)
    }

    #[test]
    fn calls_are_limited_in_all_by_address_and_by_identity() {
        let limits = CallLimits::new(Options {
            inflight_bytes: 0,
            timeout: Duration::from_secs(1),
            calls: 4,
            calls_per_address: 3,
            streams: Vec::new(),
        });
        let start = |address: u32, identity: Option<&Identity>| {
            let source = Source::Network(Ipv4Addr::from(address).into());
            limits.start(Some(source), identity)
        };
        let (ci, phone) = (identity("ci", Some(2)), identity("phone", None));
        let first = start(1, Some(&ci)).unwrap();
        let second = start(2, Some(&ci)).unwrap();
        let refused = start(3, Some(&ci)).unwrap_err();
        assert!(refused.message().contains("identity"), "{refused:?}");
        let third = start(1, Some(&phone)).unwrap();
        let fourth = start(1, None).unwrap();
        assert!(start(9, None).is_err(), "four are open in all");
        drop(second);
        assert!(start(1, None).is_err(), "three are open from this address");
        drop(start(2, Some(&ci)).unwrap());
        drop((first, third, fourth));
        let open = limits.shared.lock();
        assert_eq!((open.all, open.by_source.len()), (0, 0));
        assert!(open.by_identity.is_empty());
    }
}
