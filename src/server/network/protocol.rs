//! The protocol of a connection, from its first bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The protocols of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Protocols {
    Http1,
    /// Browsers that only support HTTP/1.1 use gRPC-Web; other clients use HTTP/2.
    Http1AndHttp2,
}

/// Reads until the protocol is known, and returns the stream with those bytes in front.
///
/// The caller limits the time.
///
/// # Errors
/// Errors of the stream, and [`io::ErrorKind::UnexpectedEof`] if it ends before.
pub(super) async fn detect<S: AsyncRead + Unpin>(
    mut stream: S,
) -> io::Result<(Protocol, Rewound<S>)> {
    let mut start = [0; PREFACE.len()];
    let mut length = 0;
    let protocol = loop {
        match stream.read(&mut start[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
        if !PREFACE.starts_with(&start[..length]) {
            break Protocol::Http1;
        }
        if length == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    let start = Bytes::copy_from_slice(&start[..length]);
    Ok((protocol, Rewound { start, stream }))
}

pin_project! {
    /// A stream whose first bytes were read and are returned again.
    #[derive(Debug)]
    pub(super) struct Rewound<S> {
        start: Bytes,
        #[pin]
        stream: S,
    }
}

impl<S: AsyncRead> AsyncRead for Rewound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if this.start.is_empty() {
            return this.stream.poll_read(context, buffer);
        }
        let length = this.start.len().min(buffer.remaining());
        buffer.put_slice(&this.start[..length]);
        this.start.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite> AsyncWrite for Rewound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn detected(parts: &[&[u8]]) -> io::Result<(Protocol, Vec<u8>)> {
        let mut builder = tokio_test_stream(parts);
        let (protocol, mut rewound) = detect(&mut builder).await?;
        let mut all = Vec::new();
        rewound.read_to_end(&mut all).await?;
        Ok((protocol, all))
    }

    /// A stream that yields each part in a separate read.
    fn tokio_test_stream(parts: &[&[u8]]) -> impl AsyncRead + Unpin {
        let parts: Vec<io::Result<Bytes>> = parts
            .iter()
            .map(|part| Ok(Bytes::copy_from_slice(part)))
            .collect();
        tokio_util::io::StreamReader::new(tokio_stream::iter(parts))
    }

    #[tokio::test]
    async fn protocol_follows_from_the_first_bytes_and_none_is_lost() {
        let cases: [(&[&[u8]], Protocol); 4] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[PREFACE, b"settings"], Protocol::Http2),
            (
                &[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n", b"x"],
                Protocol::Http2,
            ),
        ];
        for (parts, expected) in cases {
            let (protocol, all) = detected(parts).await.unwrap();
            assert_eq!((protocol, all), (expected, parts.concat()));
        }
    }

    #[tokio::test]
    async fn stream_that_ends_within_the_preface_is_an_error() {
        for parts in [&[][..], &[b"PRI * HT".as_slice()]] {
            let error = detected(parts).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
