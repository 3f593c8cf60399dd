//! A copy of a request for the audit log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;

/// Longer requests are not copied.
const MAX_BYTES: usize = 64 << 10;

tokio::task_local! {
    /// The copy of the request that the current task serves.
    static CURRENT: Recorded;
}

/// The copy, once the request is decoded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Copied>>);

/// A copied request.
#[derive(Debug, Default)]
pub(crate) enum Copied {
    #[default]
    Nothing,
    /// The encoded message, without fields that this version does not know.
    Message(Bytes),
    /// The length in bytes.
    TooLong(usize),
}

impl Recorded {
    /// Runs a future whose decoders copy their request here.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    pub(crate) fn take(&self) -> Copied {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Copies a decoded message if its call is recorded.
pub(super) fn record(message: &impl Message) {
    // Most calls are not recorded.
    let Ok(Recorded(copy)) = CURRENT.try_with(Clone::clone) else {
        return;
    };
    // Not the received bytes, to which a client can add unknown fields until they are too long.
    let length = message.encoded_len();
    *copy.lock().unwrap_or_else(PoisonError::into_inner) = if length > MAX_BYTES {
        Copied::TooLong(length)
    } else {
        Copied::Message(message.encode_to_vec().into())
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::DeleteAliasRequest;

    #[tokio::test]
    async fn message_is_copied_and_a_long_one_is_noted() {
        let copied = async |alias: String| {
            let recorded = Recorded::default();
            let message = DeleteAliasRequest {
                alias,
                ..DeleteAliasRequest::default()
            };
            recorded.clone().scope(async { record(&message) }).await;
            recorded.take()
        };
        let Copied::Message(bytes) = copied("canary".to_owned()).await else {
            panic!("the message is short");
        };
        assert_eq!(DeleteAliasRequest::decode(bytes).unwrap().alias, "canary");
        let long = copied("x".repeat(70_000)).await;
        assert!(matches!(long, Copied::TooLong(bytes) if bytes > 70_000));
    }
}
