use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    images,
    tensors::{self, Call, Inferred},
};
use crate::{
    inference::{PredictOptions, ServedModel},
    model::calibration::DEFAULT_LEVEL,
    names::{DEFAULT_MODEL, LIVE, VersionName, VersionRef, is_id},
    registry::LiveStatus,
    services::{
        caller::Caller,
        prediction::{PredictionInput, PredictionResolver, interval_level},
        status,
    },
};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct OpenInference {
    pub(crate) predictions: PredictionResolver,
    pub(crate) live: watch::Receiver<LiveStatus>,
    /// Maximum number of images in a batch.
    pub(crate) max_batch: usize,
    pub(crate) shutdown: CancellationToken,
}

/// A version as the protocol names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelRef<'a> {
    pub(super) model: &'a str,
    /// An integer, an alias, or empty for `live`.
    pub(super) version: &'a str,
    /// The field that holds the version, for errors.
    pub(super) field: &'static str,
}

impl OpenInference {
    pub(super) async fn infer(&self, call: Call, caller: Caller) -> Result<Inferred, Status> {
        let wanted = ModelRef {
            model: &call.model,
            version: &call.version,
            field: "model_version",
        };
        let model = self.resolve(wanted).await?;
        let level = interval_level(&model, call.interval_level, tensors::LEVEL_FIELD)?;
        let outputs = tensors::outputs(call.outputs, &model, level)?;
        let images = images::images(call.inputs, &model, |field, count| {
            self.predictions.check_count(field, count)
        })?;
        let input = PredictionInput {
            images,
            // `images` accepts exactly one input.
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

    /// # Errors
    /// NOT_FOUND also for a model without any version, except the default model, which can be
    /// trained: FAILED_PRECONDITION.
    pub(super) async fn resolve(&self, wanted: ModelRef<'_>) -> Result<Arc<ServedModel>, Status> {
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

    /// Lists names and numbers of the versions of one model or of all.
    pub(super) async fn versions(&self, model: Option<&str>) -> Result<Vec<(String, u64)>, Status> {
        Ok(self.predictions.registry.version_numbers(model).await?)
    }

    pub(super) async fn is_ready(&self, wanted: ModelRef<'_>) -> Result<bool, Status> {
        match self.check_ready(wanted).await {
            Ok(()) => Ok(true),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// As [`OpenInference::is_ready`], with the reason as an error.
    pub(super) async fn check_ready(&self, wanted: ModelRef<'_>) -> Result<(), Status> {
        let name = version_name(wanted)?;
        let version = self.predictions.registry.version(&name).await?;
        // Boxed, because a version is large.
        match Box::pin(self.broken()).await {
            Some((name, cause)) if name == version.name => Err(status::not_loadable(&name, &cause)),
            _ => Ok(()),
        }
    }

    /// The live version and the cause if it does not load. Other versions load on first use.
    pub(super) async fn broken(&self) -> Option<(String, String)> {
        let LiveStatus::Failed(cause) = self.live.borrow().clone() else {
            return None;
        };
        let live = VersionName::alias(DEFAULT_MODEL, LIVE);
        // The alias may have been deleted since.
        let version = self.predictions.registry.version(&live).await.ok()?;
        Some((version.name, cause))
    }

    pub(super) fn is_server_ready(&self) -> bool {
        !self.shutdown.is_cancelled()
    }

    /// Loads and warms up the live version of a model.
    pub(super) async fn load(&self, model: &str) -> Result<(), Status> {
        let live = ModelRef {
            model,
            version: "",
            field: "model_version",
        };
        let model = self.resolve(live).await?;
        Ok(self.predictions.predictor.load(model).await?)
    }
}

/// Rejects parameters of a load, which would replace the configuration of the version.
pub(super) fn check_load(parameters: usize) -> Result<(), Status> {
    if parameters == 0 {
        return Ok(());
    }
    Err(status::invalid(
        "parameters",
        "must be empty; a model is loaded as its training stored it",
    ))
}

pub(super) fn unload_unsupported() -> Status {
    status::unimplemented(
        "unloading is not supported: weights are evicted when other versions need the memory; to stop serving a model, delete its alias live with \
         visage.v1.ModelService/DeleteAlias, and to serve another version, move the alias with SetAlias",
    )
}

fn version_name(wanted: ModelRef<'_>) -> Result<VersionName, Status> {
    if !is_id(wanted.model) {
        return Err(no_model(wanted.model));
    }
    let version = match wanted.version {
        "" => VersionRef::Alias(LIVE.to_owned()),
        version => match version.parse::<u64>() {
            Ok(number) if number > 0 => VersionRef::Number(number),
            _ if is_id(version) => VersionRef::Alias(version.to_owned()),
            _ => {
                let description = format!(
                    "must be an integer from 1, an alias, or empty for the live version, got {version:?}"
                );
                return Err(status::invalid(wanted.field, description));
            }
        },
    };
    Ok(VersionName {
        model: wanted.model.to_owned(),
        version,
    })
}

fn no_model(model: &str) -> Status {
    status::not_found(format_args!("there is no model {model:?}"))
}

/// The number of a version, which clients expect to be an integer.
fn number_of(model: &ServedModel) -> String {
    model.name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The level of intervals for requests that do not set one; `None` without intervals of that level.
pub(super) fn default_level(model: &ServedModel) -> Option<f64> {
    model.calibration.as_ref()?.level_for(DEFAULT_LEVEL)
}

fn earliest(deadline: Option<Instant>, timeout: Option<Duration>) -> Option<Instant> {
    let expiry = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    deadline.into_iter().chain(expiry).min()
}
