use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{self, Accepted},
    protocol::Protocols,
    stream::Sockets,
    tls::Tls,
};
use crate::{
    services::caller::network_of,
    telemetry::metrics::{self, ConnectionRefusal, Port},
};

/// File descriptors that are not for connections: the database, artifacts, workers, uploads.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Limits on the connections of one port.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Limits {
    pub(in crate::server) connections: usize,
    /// From one address.
    pub(in crate::server) per_address: usize,
    /// For the first request of a connection, and for the headers of each further one.
    pub(in crate::server) header_timeout: Duration,
}

impl Limits {
    /// Raises the process's limit of file descriptors to the maximum that the system allows, and
    /// lowers the number of connections to what each of the two ports can have.
    pub(in crate::server) fn within_descriptors(self) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "failed to raise the limit of file descriptors");
        }
        let Some(descriptors) = getrlimit(Resource::Nofile).current else {
            return self;
        };
        let available = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2;
        let available = usize::try_from(available).unwrap_or(usize::MAX).max(16);
        if available < self.connections {
            tracing::warn!(
                descriptors,
                connections = available,
                "the limit of file descriptors (ulimit -n) allows fewer connections per port than max_connections"
            );
        }
        Self {
            connections: self.connections.min(available),
            ..self
        }
    }
}

/// Properties of a port.
#[derive(Debug, Clone)]
pub(in crate::server) struct PortOptions {
    pub(in crate::server) port: Port,
    pub(in crate::server) protocols: Protocols,
    pub(in crate::server) limits: Limits,
    /// For TCP connections.
    pub(in crate::server) tls: Option<Tls>,
    /// Networks of proxies, which have many clients, so the limit for an address does not apply.
    pub(in crate::server) proxies: Arc<[IpNet]>,
}

/// Serves each connection in its own task until `shutdown`, then waits for the running requests.
pub(in crate::server) async fn serve(
    mut sockets: Sockets,
    router: Router,
    options: PortOptions,
    shutdown: &CancellationToken,
) {
    let port = options.port;
    let connections = GracefulShutdown::new();
    let open = OpenConnections::new(options.limits);
    loop {
        let (socket, peer) = tokio::select! {
            accepted = sockets.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let address = peer.map(|peer| peer.ip().to_canonical());
        let limited = address.filter(|address| {
            let is_proxy = |network: &IpNet| network.contains(address);
            !options.proxies.iter().any(is_proxy)
        });
        let place = match open.take(limited.map(network_of)) {
            Ok(place) => place,
            Err(refusal) => {
                metrics::connection_refused(port, refusal);
                tracing::debug!(?peer, reason = refusal.as_str(), "refused a connection");
                continue;
            }
        };
        metrics::connection_opened(port);
        let accepted = Accepted {
            socket,
            peer,
            watcher: connections.watcher(),
            shutdown: shutdown.clone(),
        };
        let serving = connection::serve(accepted, router.clone(), options.clone());
        tokio::spawn(async move {
            serving.await;
            drop(place);
            metrics::connection_closed(port);
        });
    }
    drop(sockets);
    connections.shutdown().await;
}

/// The open connections of a port. Cheap to clone.
#[derive(Debug, Clone)]
struct OpenConnections {
    counts: Arc<Mutex<Counts>>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// By [`network_of`] the address.
    by_address: HashMap<IpAddr, usize>,
}

impl OpenConnections {
    fn new(limits: Limits) -> Self {
        Self {
            counts: Arc::default(),
            limits,
        }
    }

    /// Counts a connection until the place is dropped; without an address, only in all.
    fn take(&self, address: Option<IpAddr>) -> Result<Place, ConnectionRefusal> {
        let mut counts = lock(&self.counts);
        if counts.all >= self.limits.connections {
            return Err(ConnectionRefusal::Limit);
        }
        if let Some(address) = address {
            let from_address = counts.by_address.entry(address).or_default();
            if *from_address >= self.limits.per_address {
                return Err(ConnectionRefusal::AddressLimit);
            }
            *from_address += 1;
        }
        counts.all += 1;
        Ok(Place {
            counts: Arc::clone(&self.counts),
            address,
        })
    }
}

/// The place of an open connection.
#[derive(Debug)]
struct Place {
    counts: Arc<Mutex<Counts>>,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        let Some(address) = &self.address else {
            return;
        };
        if let Some(from_address) = counts.by_address.get_mut(address) {
            *from_address -= 1;
            if *from_address == 0 {
                counts.by_address.remove(address);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_all_and_for_each_address() {
        let open = OpenConnections::new(Limits {
            connections: 3,
            per_address: 2,
            header_timeout: Duration::ZERO,
        });
        let [one, two] = [1, 2].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        let first = open.take(one).unwrap();
        let _second = open.take(one).unwrap();
        assert_eq!(open.take(one).unwrap_err(), ConnectionRefusal::AddressLimit);
        let third = open.take(two).unwrap();
        assert_eq!(open.take(two).unwrap_err(), ConnectionRefusal::Limit);
        assert_eq!(open.take(None).unwrap_err(), ConnectionRefusal::Limit);
        drop((first, third));
        assert!(open.take(one).is_ok());
        assert_eq!(lock(&open.counts).by_address.len(), 1);
    }
}
