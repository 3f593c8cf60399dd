//! Byte streams of connections, and their clients.

use std::{net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{protocol::Protocols, tls::Tls, unix_socket::UnixSocket};
use crate::services::caller::UnixUser;

/// The listening sockets of a port.
#[derive(Debug)]
pub(in crate::server) struct Sockets {
    pub(in crate::server) tcp: TcpListener,
    pub(in crate::server) unix: Option<UnixSocket>,
}

impl Sockets {
    /// A socket with the address of its TCP client. Waits and retries on its own when the process
    /// has no file descriptors left.
    pub(super) async fn accept(&mut self) -> (Socket, Option<SocketAddr>) {
        let Some(unix) = &mut self.unix else {
            let (stream, peer) = Listener::accept(&mut self.tcp).await;
            return (Socket::Tcp(stream), Some(peer));
        };
        tokio::select! {
            (stream, peer) = Listener::accept(&mut self.tcp) => (Socket::Tcp(stream), Some(peer)),
            stream = unix.accept() => (Socket::Unix(stream), None),
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
    pub(super) peer_user: Option<UnixUser>,
    /// Cancelled when the authority of the client's certificate may not be accepted any more.
    pub(super) authorities_changed: CancellationToken,
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
                    peer_user: stream.peer_cred().ok().map(|found| UnixUser(found.uid())),
                    stream: Box::new(stream),
                    authorities_changed: CancellationToken::new(),
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
                peer_user: None,
                authorities_changed: CancellationToken::new(),
            });
        };
        let (stream, authorities_changed) = tls.accept(stream, protocols).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(<[_]>::first);
        Ok(Opened {
            is_tls: true,
            peer_certificate: leaf.map(|leaf| Arc::from(leaf.as_ref())),
            peer_user: None,
            authorities_changed: match leaf {
                Some(_) => authorities_changed,
                None => CancellationToken::new(),
            },
            stream: Box::new(stream),
        })
    }
}
