//! The Open Inference Protocol: what clients of KServe and Triton speak, as gRPC and as REST, over the same predictions as PredictionService.
//!
//! - `tensors`: from the tensors of a request to images, and from answers to tensors.
//! - `describe`: metadata, configuration and statistics of versions.
//! - `grpc`: the service `inference.GRPCInferenceService`.
//! - [`rest`]: the paths under `/v2` on the HTTP port; `json` reads and writes their bodies, `elements` the images and numbers in them.
//!
//! Both forms turn a request into a `Call` and go on with one `infer`, so they cannot differ in what they accept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{
    inference::{PredictOptions, ServedModel},
    model::calibration::DEFAULT_LEVEL,
    names::{DEFAULT_MODEL, LIVE, VersionName, VersionRef, is_id},
    registry::LiveStatus,
    store::Store,
};

use self::tensors::{Call, Inferred};
use super::{
    caller::Caller,
    prediction::{PredictionInput, PredictionResolver, interval_level},
    status,
};

mod describe;
mod elements;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod json;
pub mod rest;
mod tensors;

/// The protocol over its handles. Cheap to clone.
#[derive(Clone)]
pub struct OpenInference {
    /// The way of every prediction.
    pub predictions: PredictionResolver,
    /// Which versions there are.
    pub store: Store,
    /// How the live version does.
    pub live: watch::Receiver<LiveStatus>,
    /// Most images in one forward pass.
    pub max_batch: usize,
    /// Ends streams with UNAVAILABLE.
    pub shutdown: tokio_util::sync::CancellationToken,
}

/// A version as clients of the protocol name it.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    model: &'a str,
    /// An integer, an alias, or empty for `live`.
    version: &'a str,
    /// The field that holds the version, for errors.
    field: &'static str,
}

impl OpenInference {
    /// Predicts; the one way of both forms of the protocol.
    ///
    /// # Errors
    /// A request that is wrong, a version that is not there, and those of a prediction.
    async fn infer(&self, call: Call, caller: Caller) -> Result<Inferred, Status> {
        let wanted = Wanted {
            model: &call.model,
            version: &call.version,
            field: "model_version",
        };
        let model = self.served(wanted).await?;
        let level = interval_level(&model, call.interval_level, tensors::LEVEL_FIELD)?;
        let outputs = tensors::outputs(call.outputs, &model, level)?;
        let images = tensors::images(call.inputs, &model, |field, count| {
            self.predictions.check_count(field, count)
        })?;
        let input = PredictionInput {
            images,
            // `images` has checked that there is one.
            field: "inputs[0]",
            options: PredictOptions {
                interval_level: level,
                ..PredictOptions::default()
            },
            caller: Caller {
                deadline: earliest(caller.deadline, call.timeout),
                ..caller
            },
            priority: call.priority,
        };
        let predictions = self.predictions.predict(Arc::clone(&model), input).await?;
        Ok(Inferred {
            model: call.model,
            version: number_of(&model),
            id: call.id,
            outputs: outputs
                .iter()
                .map(|output| output.tensor(&predictions, level))
                .collect(),
        })
    }

    /// The version that a client names.
    ///
    /// # Errors
    /// NOT_FOUND also for a model without any version; for the default one, which is there to be trained, FAILED_PRECONDITION.
    async fn served(&self, wanted: Wanted<'_>) -> Result<Arc<ServedModel>, Status> {
        let name = version_name(wanted)?;
        let status = match self.predictions.resolve(&name).await {
            Ok(model) => return Ok(model),
            Err(status) => status,
        };
        let may_be_unknown =
            status.code() == Code::FailedPrecondition && name.model != DEFAULT_MODEL;
        if may_be_unknown && self.versions(Some(&name.model)).await?.is_empty() {
            return Err(no_model(wanted.model));
        }
        Err(status)
    }

    /// Names and numbers of the versions of one model or of all.
    async fn versions(&self, model: Option<&str>) -> Result<Vec<(String, u64)>, Status> {
        let versions = self.store.version_numbers(model).await;
        versions.map_err(status::from_store)
    }

    /// Whether a version can predict.
    async fn is_ready(&self, wanted: Wanted<'_>) -> Result<bool, Status> {
        match self.check_ready(wanted).await {
            Ok(()) => Ok(true),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// The same, with the reason as an error.
    async fn check_ready(&self, wanted: Wanted<'_>) -> Result<(), Status> {
        let name = version_name(wanted)?;
        let version = self.predictions.registry.version(&name).await;
        let version = version.map_err(status::from_registry)?;
        // A version is large.
        match Box::pin(self.broken()).await {
            Some((name, why)) if name == version.name => Err(status::not_loadable(&name, &why)),
            _ => Ok(()),
        }
    }

    /// The live version and why it does not load, if so; of the others nobody knows before they are asked for.
    async fn broken(&self) -> Option<(String, String)> {
        let LiveStatus::Failed(why) = self.live.borrow().clone() else {
            return None;
        };
        let live = VersionName::alias(DEFAULT_MODEL, LIVE);
        // The alias may be gone by now.
        let version = self.predictions.registry.version(&live).await.ok()?;
        Some((version.name, why))
    }

    fn is_server_ready(&self) -> bool {
        !self.shutdown.is_cancelled()
    }

    /// Loads and warms the live version of a model.
    async fn load(&self, model: &str) -> Result<(), Status> {
        let live = Wanted {
            model,
            version: "",
            field: "model_version",
        };
        let served = self.served(live).await?;
        let loaded = self.predictions.predictor.load(served).await;
        loaded.map_err(|error| status::from_inference(&error))
    }
}

/// Refuses parameters of a load, which would replace what a training made.
fn check_load(parameters: usize) -> Result<(), Status> {
    if parameters == 0 {
        return Ok(());
    }
    Err(status::invalid(
        "parameters",
        "a model is loaded as its training made it; load it without parameters",
    ))
}

/// Why a model cannot be unloaded.
fn no_unload() -> Status {
    status::unimplemented(
        "weights leave the memory by themselves when other versions need the room; to stop serving a model, remove its alias live with \
         visage.v1.ModelService/DeleteAlias, and to serve another version, move it with SetAlias",
    )
}

fn version_name(wanted: Wanted<'_>) -> Result<VersionName, Status> {
    if !is_id(wanted.model) {
        return Err(no_model(wanted.model));
    }
    let version = match wanted.version {
        "" => VersionRef::Alias(LIVE.to_owned()),
        version => match version.parse::<u64>() {
            Ok(number) if number > 0 => VersionRef::Number(number),
            _ if is_id(version) => VersionRef::Alias(version.to_owned()),
            _ => {
                return Err(status::invalid(
                    wanted.field,
                    &format!(
                        "{version:?} is neither an integer from 1 nor an alias; leave it empty for the version that is live"
                    ),
                ));
            }
        },
    };
    Ok(VersionName {
        model: wanted.model.to_owned(),
        version,
    })
}

fn no_model(model: &str) -> Status {
    status::not_found(&format!("there is no model {model:?}"))
}

/// The number of a version, which clients read as an integer.
fn number_of(model: &ServedModel) -> String {
    model.name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The level of the intervals that a version gives to a client that asks for none in particular.
fn default_level(model: &ServedModel) -> Option<f64> {
    model.calibration.as_ref()?.level_for(DEFAULT_LEVEL)
}

fn earliest(deadline: Option<Instant>, timeout: Option<Duration>) -> Option<Instant> {
    let expiry = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    deadline.into_iter().chain(expiry).min()
}
