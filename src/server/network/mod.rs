//! Connections of both ports, and the limits that protect the server from them.
//!
//! - `listener`: accepts connections within a total limit and a limit for each address.
//! - `stream`: the sockets of a port, and the handshake of a connection. `tls`: certificates.
//!   `unix_socket`: sockets in the file system.
//! - `protocol`: recognizes HTTP/1.1 and HTTP/2 by the first bytes, within a time limit.
//! - `connection`: serves one connection, and closes it when a client does not read a response.
//! - `progress`: detects responses without progress.

mod connection;
mod listener;
mod progress;
mod protocol;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod unix_socket;

pub(super) use self::{
    connection::ConnectionState,
    listener::{Limits, PortOptions, serve},
    protocol::Protocols,
    stream::Sockets,
    tls::{ClientCertificates, Tls, TlsError, TlsFiles, follow as follow_certificates},
    unix_socket::UnixSocket,
};
