//! Server reflection. Interactive clients keep its streams open, so they end with the server.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::Frame;
use pin_project_lite::pin_project;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    body::Body,
    service::{LayerExt as _, Routes},
};
use tonic_reflection::server::{Builder, Error};
use tower::util::MapRequestLayer;

use super::compression::compressed;
use crate::proto::DESCRIPTOR;

/// Adds both versions of the service.
pub(super) fn add_to(routes: Routes, shutdown: &CancellationToken) -> Result<Routes, Error> {
    let shutdown = shutdown.clone();
    let until_shutdown = MapRequestLayer::new(move |request: http::Request<Body>| {
        let ended = shutdown.clone().cancelled_owned();
        request.map(|inner| Body::new(Until { inner, ended }))
    });
    Ok(routes
        .add_service(until_shutdown.named_layer(compressed!(builder()?.build_v1()?)))
        .add_service(until_shutdown.named_layer(compressed!(builder()?.build_v1alpha()?))))
}

fn builder() -> Result<Builder<'static>, Error> {
    Ok(Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_file_descriptor_set(error_details()?))
}

/// The types of error details in `google.rpc`, so that clients without their descriptors, such as
/// grpcurl, can print the reason and the fields of an error.
fn error_details() -> Result<FileDescriptorSet, Error> {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    for file in &mut files.file {
        // The crate compiles these files without their directory.
        if file.package() == "google.rpc" {
            file.name = Some(format!("google/rpc/{}", file.name()));
        }
    }
    Ok(files)
}

pin_project! {
    /// The request body, which ends on shutdown.
    struct Until {
        #[pin]
        inner: Body,
        #[pin]
        ended: WaitForCancellationFutureOwned,
    }
}

impl http_body::Body for Until {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        match this.ended.poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => this.inner.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.inner)
    }
}
