//! Detects clients that do not read a response.
//!
//! A connection polls a response for its next frame when the client has room for it. A frame that
//! was handed out without another poll afterwards is one that the client does not read.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// The rate at which a client must at least read large frames, in bytes per second.
const MIN_RATE: u64 = 64 * 1024;

/// The frames of a connection's responses that its client has not read yet.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct ResponseWatch {
    /// Deadlines of frames by response.
    pending: Arc<Mutex<HashMap<u64, Instant>>>,
    next: Arc<AtomicU64>,
}

impl ResponseWatch {
    /// Wraps a response; a frame must be read within `timeout`, or longer if it is large.
    pub(in crate::server) fn wrap<B>(&self, body: B, timeout: Duration) -> WatchedBody<B> {
        WatchedBody {
            body,
            guard: Guard {
                watch: self.clone(),
                id: self.next.fetch_add(1, Ordering::Relaxed),
                is_pending: false,
            },
            timeout,
        }
    }

    /// Returns true if a client has not read a frame by its deadline.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.lock().values().any(|deadline| *deadline <= now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
        self.pending
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Removes the entry of a response.
#[derive(Debug)]
struct Guard {
    watch: ResponseWatch,
    id: u64,
    is_pending: bool,
}

impl Guard {
    fn is_read(&mut self) {
        if std::mem::take(&mut self.is_pending) {
            self.watch.lock().remove(&self.id);
        }
    }

    fn is_handed_out(&mut self, deadline: Instant) {
        self.is_pending = true;
        self.watch.lock().insert(self.id, deadline);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.is_read();
    }
}

pin_project! {
    /// A response whose frames are watched.
    #[derive(Debug)]
    pub(in crate::server) struct WatchedBody<B> {
        #[pin]
        body: B,
        guard: Guard,
        timeout: Duration,
    }
}

impl<B: Body<Data = Bytes>> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        this.guard.is_read();
        let polled = this.body.poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let bytes = data.remaining() as u64;
            let time = *this.timeout + Duration::from_secs(bytes / MIN_RATE);
            this.guard.is_handed_out(Instant::now() + time);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
