//! The precision that the server computes a version in.

use crate::{
    cli::client::{Client, request},
    names::{VersionName, VersionRef},
    proto::open_inference::ModelMetadataRequest,
};

/// The precision of a loaded version, and its mean change of the ages of drawn faces in years.
pub(super) struct ServerPrecision {
    pub(super) name: String,
    pub(super) difference: f64,
}

/// Returns `None` if the version is not loaded, or if the server does not report its precision: the
/// export needs neither.
pub(super) async fn precision(version: &str, client: &Client) -> Option<ServerPrecision> {
    let VersionName { model, version } = VersionName::parse(version).ok()?;
    let VersionRef::Number(number) = version else {
        return None;
    };
    let message = ModelMetadataRequest {
        name: model,
        version: number.to_string(),
    };
    let response = client
        .open_inference()
        .model_metadata(request(message))
        .await;
    let mut properties = response.ok()?.into_inner().properties;
    Some(ServerPrecision {
        name: properties.remove("precision")?,
        difference: properties.get("precision.difference")?.parse().ok()?,
    })
}
