use std::sync::Arc;

use serde::Serialize;

/// The body of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub(in crate::server) struct Readiness {
    ready: bool,
    /// Port of the gRPC API, for clients that were given this port instead.
    grpc_port: u16,
    components: Vec<Component>,
}

impl Readiness {
    /// Ready exactly if all components are.
    pub(in crate::server) fn of(grpc_port: u16, components: Vec<Component>) -> Self {
        Self {
            ready: components.iter().all(|component| component.ready),
            grpc_port,
            components,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }
}

/// A part of the server that must work before it can serve requests.
#[derive(Clone, Debug, Serialize)]
pub(in crate::server) struct Component {
    /// For example `store`.
    pub(in crate::server) name: &'static str,
    pub(in crate::server) ready: bool,
    /// For people; everybody with access to the port can read it.
    pub(in crate::server) detail: String,
}

/// Called on an async thread for every probe, so it must not block.
pub(in crate::server) type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;
