//! DatasetService: datasets with a name, and a dataset of the server looked through beside what clients wait for.
//!
//! A task for each check scans and compares on threads of the lowest priority, predicts in the background's share of the queue where it is asked to, and
//! makes the report. It ends when its client leaves, when the server shuts down, or when the client does not take what is sent for a minute.

mod crud;
mod report;

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    dataset::{self, DEFAULT_NEAR_DISTANCE, Dataset, MAX_NEAR_DISTANCE, Phase, Purpose, Split},
    inference::{ServedModel, predict_files},
    names::VersionName,
    proto::{
        v1::{self, check_dataset_response::Kind, dataset_service_server::DatasetService},
        validation::Violation,
    },
    training::spec::Spec,
};

pub use self::crud::DatasetCrud;

use self::report::{Limit, label_outliers, report};
use super::{
    status,
    streaming_job::{self, JobContext, JobLimit},
};

/// Checks that run at once; each holds as many decoded images as the machine has threads, eight at most.
const MAX_CHECKS: usize = 2;
/// Groups and outliers that are listed, unless the client says how many.
const DEFAULT_LISTED: u32 = 20;
/// Most of them.
const MAX_LISTED: u32 = 1_000;

/// What a client receives.
pub type Responses = ReceiverStream<Result<v1::CheckDatasetResponse, Status>>;
type Sender = streaming_job::Sender<v1::CheckDatasetResponse>;

/// The service over its handle.
#[derive(Clone)]
pub struct DatasetApi {
    /// Checks that run beside Predict.
    pub checks: Checks,
    /// Datasets with a name.
    pub crud: DatasetCrud,
}

#[tonic::async_trait]
impl DatasetService for DatasetApi {
    type CheckDatasetStream = Responses;

    async fn check_dataset(
        &self,
        request: Request<v1::CheckDatasetRequest>,
    ) -> Result<Response<Self::CheckDatasetStream>, Status> {
        let responses = self.checks.start(request.into_inner()).await?;
        Ok(Response::new(responses))
    }

    async fn register_dataset(
        &self,
        request: Request<v1::RegisterDatasetRequest>,
    ) -> Result<Response<v1::RegisterDatasetResponse>, Status> {
        let registered = self.crud.register(request.into_inner());
        registered.await.map(Response::new)
    }

    async fn create_dataset(
        &self,
        request: Request<v1::CreateDatasetRequest>,
    ) -> Result<Response<v1::CreateDatasetResponse>, Status> {
        let created = self.crud.create(request.into_inner());
        created.await.map(Response::new)
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::GetDatasetResponse>, Status> {
        let found = self.crud.get(request.into_inner());
        found.await.map(Response::new)
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let listed = self.crud.list(request.into_inner());
        listed.await.map(Response::new)
    }

    async fn delete_dataset(
        &self,
        request: Request<v1::DeleteDatasetRequest>,
    ) -> Result<Response<v1::DeleteDatasetResponse>, Status> {
        let deleted = self.crud.delete(request.into_inner());
        deleted.await.map(Response::new)
    }
}

/// Starts checks. Cheap to clone.
#[derive(Clone)]
pub struct Checks {
    context: JobContext,
    limit: JobLimit,
}

impl Checks {
    /// Joins the context; `tasks` owns the checks.
    pub fn new(context: JobContext, tasks: TaskTracker) -> Self {
        Checks {
            context,
            limit: JobLimit::new(MAX_CHECKS, tasks),
        }
    }

    /// Checks everything that needs no look at the images, and begins.
    async fn start(&self, request: v1::CheckDatasetRequest) -> Result<Responses, Status> {
        let slot = self.limit.acquire();
        let slot = slot.ok_or_else(|| status::too_many_checks(MAX_CHECKS))?;
        let check = Check::new(self.context.clone(), request, slot).await?;
        Ok(self.limit.start(|sender| check.run(sender)))
    }
}

/// One check.
struct Check {
    context: JobContext,
    /// Only the dataset and the seed are of interest.
    spec: Spec,
    near: Option<u32>,
    /// Whose predictions are held against the labels.
    model: Option<Arc<ServedModel>>,
    limit: Limit,
    started: Instant,
    /// Free again when the check ends.
    _slot: OwnedSemaphorePermit,
}

impl Check {
    async fn new(
        context: JobContext,
        request: v1::CheckDatasetRequest,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let started = Instant::now();
        let near = request.near_distance.unwrap_or(DEFAULT_NEAR_DISTANCE);
        let listed = request.max_listed.unwrap_or(DEFAULT_LISTED);
        let mut violations = Vec::new();
        for (field, value, most) in [
            ("near_distance", near, MAX_NEAR_DISTANCE),
            ("max_listed", listed, MAX_LISTED),
        ] {
            if value > most {
                violations.push(Violation {
                    field: field.to_owned(),
                    description: format!("{value} is out of range; 0 to {most} is allowed"),
                });
            }
        }
        let name = match request.model_version.as_str() {
            "" => None,
            name => match VersionName::parse(name) {
                Ok(name) => Some(name),
                Err(error) => {
                    violations.push(Violation {
                        field: "model_version".to_owned(),
                        description: error.to_string(),
                    });
                    None
                }
            },
        };
        let given = request.dataset.unwrap_or_default();
        let places = (&context.store, &context.data_roots);
        let spec = streaming_job::resolve(given, request.seed, places, violations).await?;
        let model = match name {
            None => None,
            Some(name) => {
                let served = context.registry.resolve(&name).await;
                Some(served.map_err(status::from_registry)?)
            }
        };
        if let Some(model) = model.as_ref().filter(|model| model.calibration.is_none()) {
            let description = format!(
                "{} has no intervals, for its training had too few validation images",
                model.name
            );
            return Err(status::invalid("model_version", &description));
        }
        Ok(Check {
            near: (!request.skip_near_duplicates).then_some(near),
            limit: Limit(listed as usize),
            context,
            spec,
            model,
            started,
            _slot: slot,
        })
    }

    /// Sends everything; ends early when the client leaves.
    async fn run(self, sender: Sender) {
        tracing::info!(dataset = self.spec.dataset.path, "checking a dataset");
        let (progress, told) = watch::channel(phase("scan", 0, 0));
        let told = (told, |progress| response(Kind::Progress(progress)));
        let report = |report| streaming_job::send(&sender, Ok(response(Kind::Report(report))));
        let shutdown = &self.context.shutdown;
        streaming_job::drive(&sender, shutdown, told, self.find(progress), report).await;
    }

    async fn find(
        &self,
        progress: watch::Sender<v1::CheckProgress>,
    ) -> Result<v1::DatasetCheck, Status> {
        let dataset = Arc::new(self.scan(progress.clone()).await?);
        let outliers = match &self.model {
            None => None,
            Some(model) => Some(self.outliers(model, &dataset, &progress).await?),
        };
        let (near, limit) = (self.near, self.limit);
        // Sorting and grouping everything once more is nothing for an async thread.
        let report = self
            .context
            .predictor
            .compute(move || report(&dataset, near, limit));
        let report = report
            .await
            .map_err(|error| status::from_inference(&error))?;
        Ok(v1::DatasetCheck {
            dataset_path: self.spec.dataset.path.clone(),
            outliers,
            duration: prost_types::Duration::try_from(self.started.elapsed()).ok(),
            ..report
        })
    }

    async fn scan(&self, progress: watch::Sender<v1::CheckProgress>) -> Result<Dataset, Status> {
        let options = dataset::Options {
            purpose: Purpose::Check,
            near: self.near,
            ..self
                .spec
                .dataset
                .options(self.spec.seed, self.context.limits)
        };
        let told = move |step: Phase, done, total| {
            progress.send_replace(phase(step.label(), done, total));
        };
        let path = &self.spec.dataset.path;
        streaming_job::scan(path, &self.context.data_roots, options, told).await
    }

    async fn outliers(
        &self,
        model: &Arc<ServedModel>,
        dataset: &Arc<Dataset>,
        progress: &watch::Sender<v1::CheckProgress>,
    ) -> Result<v1::LabelOutliers, Status> {
        let samples = Split::ALL.map(|split| dataset.split(split)).concat();
        let total = samples.len();
        let told = |done| {
            progress.send_replace(phase("predict", done, total));
        };
        told(0);
        let files: Vec<PathBuf> = samples.into_iter().map(|sample| sample.path).collect();
        let verdicts = predict_files(&self.context.predictor, model, files, told).await;
        let verdicts = verdicts.map_err(|error| status::from_inference(&error))?;
        let (model, dataset, limit) = (Arc::clone(model), Arc::clone(dataset), self.limit);
        let work = move || label_outliers(&model, &dataset, verdicts, limit);
        let found = self.context.predictor.compute(work).await;
        found.map_err(|error| status::from_inference(&error))
    }
}

fn phase(phase: &str, done: usize, total: usize) -> v1::CheckProgress {
    v1::CheckProgress {
        phase: phase.to_owned(),
        done: done as u64,
        total: total as u64,
    }
}

fn response(kind: Kind) -> v1::CheckDatasetResponse {
    v1::CheckDatasetResponse { kind: Some(kind) }
}
