//! The body of a request within the limits on its time and memory.

use std::{
    error::Error as StdError,
    future::Future as _,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::{proto::in_flight::Held, services::status};

/// Received bytes that count as progress.
const PROGRESS: usize = 64 * 1024;

/// The length of a gRPC message's prefix: a flag and the length of the message.
const PREFIX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageRule {
    /// The whole body is one message.
    Single,
    /// gRPC messages follow each other; the client may take any time between two of them.
    Stream,
}

/// The reason why a body ended early, for the response.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<Status>>>);

impl Failure {
    pub(super) fn take(&self) -> Option<Status> {
        self.lock().take()
    }

    fn set(&self, status: Status) -> Box<dyn StdError + Send + Sync> {
        *self.lock() = Some(status.clone());
        Box::new(status)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Status>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pin_project! {
    /// A body that fails if it makes no progress in time, or if the memory for requests is used up.
    pub(super) struct LimitedBody {
        #[pin]
        body: AxumBody,
        #[pin]
        expiry: Sleep,
        held: Held,
        timeout: Duration,
        failure: Failure,
        messages: Messages,
        since_progress: usize,
    }
}

impl LimitedBody {
    pub(super) fn new(
        body: AxumBody,
        held: Held,
        timeout: Duration,
        rule: MessageRule,
        failure: Failure,
    ) -> Self {
        Self {
            body,
            expiry: tokio::time::sleep(timeout),
            held,
            timeout,
            failure,
            messages: Messages::new(rule),
            since_progress: 0,
        }
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let frame = match this.body.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Box::new(error)))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if !this.messages.is_within_message() => return Poll::Pending,
            Poll::Pending => {
                std::task::ready!(this.expiry.as_mut().poll(context));
                let failed = status::request_too_slow(*this.timeout);
                return Poll::Ready(Some(Err(this.failure.set(failed))));
            }
        };
        if let Some(data) = frame.data_ref() {
            let is_start = !this.messages.is_within_message();
            let is_message_complete = this.messages.receive(data);
            *this.since_progress += data.len();
            if is_start || is_message_complete || *this.since_progress >= PROGRESS {
                *this.since_progress = 0;
                this.expiry.as_mut().reset(Instant::now() + *this.timeout);
            }
            if is_message_complete {
                this.held.next_message();
            }
            if !this.held.receive(data.len()) {
                let failed = status::too_many_bytes();
                return Poll::Ready(Some(Err(this.failure.set(failed))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The position in a stream of messages.
#[derive(Debug)]
struct Messages {
    rule: MessageRule,
    prefix: Vec<u8>,
    /// Bytes of the current message that are still to come.
    left: usize,
}

impl Messages {
    fn new(rule: MessageRule) -> Self {
        Self {
            rule,
            prefix: Vec::with_capacity(PREFIX),
            left: 0,
        }
    }

    fn is_within_message(&self) -> bool {
        self.rule == MessageRule::Single || self.left > 0 || !self.prefix.is_empty()
    }

    /// Returns true if a message of a stream was completed.
    fn receive(&mut self, mut data: &[u8]) -> bool {
        if self.rule == MessageRule::Single {
            return false;
        }
        let mut is_complete = false;
        while !data.is_empty() {
            if self.left == 0 {
                let (head, rest) = data.split_at((PREFIX - self.prefix.len()).min(data.len()));
                self.prefix.extend_from_slice(head);
                data = rest;
                if let [_, a, b, c, d] = self.prefix[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.prefix.clear();
                    is_complete |= self.left == 0;
                }
            } else {
                let length = self.left.min(data.len());
                self.left -= length;
                data = &data[length..];
                is_complete |= self.left == 0;
            }
        }
        is_complete
    }
}

pin_project! {
    /// The body of a response, whose memory and call count until it is dropped.
    pub(super) struct CountedBody<B, T> {
        #[pin]
        body: B,
        held: Held,
        call: T,
        has_data: bool,
    }
}

impl<B, T> CountedBody<B, T> {
    pub(super) fn new(body: B, held: Held, call: T) -> Self {
        Self {
            body,
            held,
            call,
            has_data: false,
        }
    }
}

impl<B: Body, T> Body for CountedBody<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let body = this.body;
        let polled = this.held.within(|| body.poll_frame(context));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            *this.has_data |= frame.is_data();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        // The connection drops a body at its end, but keeps data that the client does not read. It
        // asks again only when the data was sent.
        !self.has_data && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
