use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::Deserialize;

use crate::{
    services::{
        http::Failure,
        open_inference::{ModelRef, OpenInference},
        request_body::RequestBodies,
        status,
    },
    telemetry::traces::Traces,
};

#[derive(Clone)]
pub(super) struct Rest {
    pub(super) api: OpenInference,
    pub(super) bodies: RequestBodies,
    pub(super) traces: Traces,
}

/// The model and version of a path.
#[derive(Deserialize)]
pub(super) struct ModelPath {
    pub(super) model: String,
    /// Empty for the live version.
    #[serde(default)]
    pub(super) version: String,
}

impl ModelPath {
    pub(super) fn model_ref(&self) -> ModelRef<'_> {
        ModelRef {
            model: &self.model,
            version: &self.version,
            field: "version",
        }
    }
}

impl FromRequestParts<Rest> for ModelPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, rest).await {
            Ok(Path(path)) => Ok(path),
            Err(rejection) => Err(status::invalid("path", rejection.body_text()).into()),
        }
    }
}
