//! Checks, name resolution and the call of the predictor, for every protocol.

use std::sync::Arc;

use tonic::Status;

use crate::{
    inference::{
        Image, PredictOptions, PredictRequest, Prediction, Predictor, Priority, ServedModel,
    },
    names::{DEFAULT_MODEL, LIVE, VersionName},
    registry::{self, Registry},
    services::{caller::Caller, status},
    telemetry::metrics::{self, RejectionReason},
};

/// Checks requests, resolves model names and predicts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PredictionResolver {
    pub predictor: Predictor,
    pub registry: Registry,
    /// Most images of a request.
    pub max_images: usize,
}

/// Input of a prediction whose model version is resolved.
pub(crate) struct PredictionInput {
    /// Checked by [`PredictionResolver::check_count`].
    pub(crate) images: Vec<Image>,
    /// The request field with the images, for errors.
    pub(crate) field: &'static str,
    pub(crate) options: PredictOptions,
    pub(crate) caller: Caller,
    pub(crate) priority: Priority,
}

impl PredictionResolver {
    /// Refuses more images than a request may have; `field` contains them.
    ///
    /// # Errors
    /// INVALID_ARGUMENT.
    pub(crate) fn check_count(&self, field: &str, count: usize) -> Result<(), Status> {
        let limit = self.max_images;
        if count <= limit {
            return Ok(());
        }
        metrics::prediction_rejected(RejectionReason::TooLarge);
        Err(status::invalid(
            field,
            format!("{count} images are too many; at most {limit} are allowed in a request"),
        ))
    }

    /// Resolves a version or an alias.
    ///
    /// # Errors
    /// The same as [`Registry::resolve`].
    pub(crate) async fn resolve(&self, name: &VersionName) -> Result<Arc<ServedModel>, Status> {
        self.registry.resolve(name).await.map_err(|error| {
            if matches!(error, registry::Error::NoLiveVersion { .. }) {
                metrics::prediction_rejected(RejectionReason::NoModel);
            }
            error.into()
        })
    }

    /// Resolves the `model` field of a request; an empty name is the default model's live version.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, and those of [`PredictionResolver::resolve`].
    pub(super) async fn resolve_field(&self, model: &str) -> Result<Arc<ServedModel>, Status> {
        let name = match model {
            "" => VersionName::alias(DEFAULT_MODEL, LIVE),
            name => VersionName::parse(name).map_err(|error| status::invalid("model", error))?,
        };
        self.resolve(&name).await
    }

    /// Admits and predicts.
    ///
    /// # Errors
    /// The same as [`Predictor::predict`].
    pub(crate) async fn predict(
        &self,
        model: Arc<ServedModel>,
        input: PredictionInput,
    ) -> Result<Vec<Prediction>, Status> {
        let Caller { client, deadline } = input.caller;
        let request = PredictRequest {
            model,
            images: input.images,
            options: input.options,
            deadline,
            priority: input.priority,
            client,
        };
        // The deadline layer drops this future at the deadline, and with it the remaining work.
        let predictions = self.predictor.predict(request).await;
        predictions.map_err(|error| status::inference_error(&error, input.field))
    }
}
