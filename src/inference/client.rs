//! Who asks, so that one client who asks much leaves room for the others.

use std::sync::Arc;

/// What tells one client from another: what it calls itself, or the address that it calls from. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client(Arc<str>);

impl Client {
    /// A client by its name or address.
    pub fn new(name: &str) -> Self {
        Client(name.into())
    }

    /// The one client that all are who cannot be told apart.
    pub fn unknown() -> Self {
        Client::new("")
    }
}
