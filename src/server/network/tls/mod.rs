//! TLS of both ports, with certificates that are replaced without a restart.
//!
//! - `files`: reads the certificate, the key and the authorities of clients, and checks them.
//! - `handshake`: the current configuration, and the handshake of a connection.
//! - `reload`: reads the files again on SIGHUP and when they change.

mod error;
mod files;
mod handshake;
mod reload;
#[cfg(test)]
mod tests;

pub(in crate::server) use self::{
    error::TlsError,
    files::{ClientCertificates, TlsFiles},
    handshake::Tls,
    reload::follow,
};
