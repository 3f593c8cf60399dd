//! Byte streams of connections, and their clients.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
};

use super::{protocol::Protocols, tls::Tls, unix_socket::UnixSocket};

/// The address of all clients of Unix sockets, which no client of a TCP socket has.
pub(in crate::server) const UNIX_PEER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The listening sockets of a port.
#[derive(Debug)]
pub(in crate::server) struct Sockets {
    pub(in crate::server) tcp: TcpListener,
    pub(in crate::server) unix: Option<UnixSocket>,
}

impl Sockets {
    /// Waits and retries on its own when the process has no file descriptors left.
    pub(super) async fn accept(&mut self) -> (Socket, SocketAddr) {
        let Some(unix) = &mut self.unix else {
            let (stream, peer) = Listener::accept(&mut self.tcp).await;
            return (Socket::Tcp(stream), peer);
        };
        tokio::select! {
            (stream, peer) = Listener::accept(&mut self.tcp) => (Socket::Tcp(stream), peer),
            stream = unix.accept() => (Socket::Unix(stream), UNIX_PEER),
        }
    }
}

/// An accepted socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream of bytes, after the handshake if the port has TLS.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// An open stream and the properties of its client.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Bytes>,
    pub(super) is_tls: bool,
    pub(super) peer_certificate: Option<Arc<[u8]>>,
    pub(super) peer_uid: Option<u32>,
}

impl Socket {
    /// Performs the TLS handshake of a TCP connection. The caller limits the time.
    ///
    /// # Errors
    /// A failed handshake.
    pub(super) async fn open(
        self,
        tls: Option<&Tls>,
        protocols: Protocols,
    ) -> std::io::Result<Opened> {
        let stream = match self {
            Self::Unix(stream) => {
                return Ok(Opened {
                    is_tls: false,
                    peer_certificate: None,
                    peer_uid: stream.peer_cred().ok().map(|found| found.uid()),
                    stream: Box::new(stream),
                });
            }
            Self::Tcp(stream) => stream,
        };
        // Otherwise the end of a response may wait for the acknowledgement of its start.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let Some(tls) = tls else {
            return Ok(Opened {
                stream: Box::new(stream),
                is_tls: false,
                peer_certificate: None,
                peer_uid: None,
            });
        };
        let stream = tls.accept(stream, protocols).await?;
        let chain = stream.get_ref().1.peer_certificates();
        Ok(Opened {
            is_tls: true,
            peer_certificate: chain
                .and_then(<[_]>::first)
                .map(|leaf| Arc::from(leaf.as_ref())),
            peer_uid: None,
            stream: Box::new(stream),
        })
    }
}
