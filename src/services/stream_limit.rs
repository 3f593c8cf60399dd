//! Limits on the number of open event streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tonic::Status;

use super::status;
use crate::inference::Client;

/// The maximum number of streams, in all and of one client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StreamLimit(Arc<Inner>);

struct Inner {
    all: usize,
    per_client: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_client: HashMap<Client, usize>,
}

impl StreamLimit {
    pub(crate) fn new(all: usize, per_client: usize) -> Self {
        Self(Arc::new(Inner {
            all,
            per_client,
            open: Mutex::default(),
        }))
    }

    /// Counts a stream until the returned value is dropped.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED at a limit.
    pub(super) fn open(&self, client: Client) -> Result<OpenStream, Status> {
        let mut open = self.0.lock();
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.all >= self.0.all || of_client >= self.0.per_client {
            return Err(status::too_many_streams(self.0.all, self.0.per_client));
        }
        open.all += 1;
        open.by_client.insert(client.clone(), of_client + 1);
        Ok(OpenStream {
            limit: self.clone(),
            client,
        })
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that counts towards the limits.
pub(crate) struct OpenStream {
    limit: StreamLimit,
    client: Client,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.limit.0.lock();
        open.all -= 1;
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_limited_in_all_and_by_client() {
        let limit = StreamLimit::new(3, 2);
        let open = |client: &str| limit.open(Client::new(client));
        let one = open("a").unwrap();
        let _other = open("a").unwrap();
        let refused = open("a").err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let _third = open("b").unwrap();
        assert!(open("c").is_err());
        drop(one);
        let _again = open("c").unwrap();
        assert_eq!(limit.0.lock().by_client.len(), 3);
    }
}
