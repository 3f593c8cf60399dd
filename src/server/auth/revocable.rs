use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use super::refusals::Form;
use crate::{
    access::{Identity, Refusal},
    services::status,
};

pin_project! {
    /// A response body that ends when the credential of its request becomes invalid: with a status
    /// for gRPC, else with an error, on which the connection closes the stream.
    pub(super) struct Revocable {
        #[pin]
        body: Body,
        invalid: Pin<Box<dyn Future<Output = ()> + Send>>,
        is_grpc: bool,
        ended: bool,
    }
}

impl Revocable {
    pub(super) fn new(body: Body, identity: &Identity, form: &Form) -> Self {
        let identity = identity.clone();
        Self {
            body,
            invalid: Box::pin(async move { identity.invalid().await }),
            is_grpc: matches!(form, Form::Grpc(content_type) if !is_web(content_type)),
            ended: false,
        }
    }
}

/// The trailers of gRPC-Web are a part of the body, which ends with an error instead.
fn is_web(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc-web")
}

impl HttpBody for Revocable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        if this.invalid.as_mut().poll(context).is_pending() {
            return this.body.poll_frame(context);
        }
        *this.ended = true;
        let refused = status::unauthenticated(Refusal::Expired);
        Poll::Ready(Some(if *this.is_grpc {
            trailers(&refused).map(Frame::trailers)
        } else {
            Err(axum::Error::new(refused))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers(refused: &Status) -> Result<HeaderMap, axum::Error> {
    let mut trailers = HeaderMap::new();
    refused
        .add_header(&mut trailers)
        .map_err(axum::Error::new)?;
    Ok(trailers)
}
