use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::report::{Limit, label_outliers, report};
use crate::{
    dataset::{
        self, DEFAULT_NEAR_DISTANCE, DEFAULT_SEED, Dataset, DatasetSpec, MAX_NEAR_DISTANCE, Phase,
        Purpose, Split,
    },
    inference::{ServedModel, predict_files},
    names::VersionName,
    proto::{
        v1::{self, check_dataset_response::Kind},
        validation::Check as FieldCheck,
    },
    services::{
        dataset_input,
        limit::CallLimit,
        status::{self, Calls},
        streaming_job::{self, JobContext},
    },
};

/// Concurrent checks; each holds a decoded image for each processor, at most eight.
const MAX_CHECKS: usize = 2;
/// Groups and outliers that a report lists.
const DEFAULT_LISTED: u32 = 20;
const MAX_LISTED: u32 = 1_000;

pub(super) type Responses = ReceiverStream<Result<v1::CheckDatasetResponse, Status>>;
type Sender = streaming_job::Sender<v1::CheckDatasetResponse>;

/// Starts checks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checks {
    context: JobContext,
    limit: CallLimit,
}

impl Checks {
    pub(crate) fn new(context: JobContext) -> Self {
        Checks {
            context,
            limit: CallLimit::new(Calls::DatasetChecks, MAX_CHECKS),
        }
    }

    /// Performs all checks that do not read images, and starts the job.
    pub(super) async fn start(
        &self,
        request: v1::CheckDatasetRequest,
    ) -> Result<Responses, Status> {
        let permit = self.limit.acquire()?;
        let check = Check::new(self.context.clone(), request, permit).await?;
        Ok(self.context.start(|sender| check.run(sender)))
    }
}

/// A check of one dataset: scans and compares at low priority, predicts at background priority if
/// requested, and sends a report.
struct Check {
    context: JobContext,
    dataset: DatasetSpec,
    seed: u64,
    /// The maximum distance of near-duplicates; `None` to skip them.
    near: Option<u32>,
    /// The version whose predictions are compared with the labels.
    model: Option<Arc<ServedModel>>,
    limit: Limit,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Check {
    async fn new(
        context: JobContext,
        request: v1::CheckDatasetRequest,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let started = Instant::now();
        let mut check = FieldCheck::default();
        let near = check.integer(
            "near_distance",
            request.near_distance,
            DEFAULT_NEAR_DISTANCE,
            0..=MAX_NEAR_DISTANCE,
        );
        let listed = check.integer(
            "max_listed",
            request.max_listed,
            DEFAULT_LISTED,
            0..=MAX_LISTED,
        );
        let name = match request.model_version.as_str() {
            "" => None,
            name => VersionName::parse(name)
                .map_err(|error| check.refuse("model_version", error.to_string()))
                .ok(),
        };
        let given = request.dataset.unwrap_or_default();
        let (store, roots) = (&context.store, &context.data_roots);
        let dataset = dataset_input::resolve(given, store, roots, check).await?;
        let model = match name {
            None => None,
            Some(name) => Some(context.registry.resolve(&name).await?),
        };
        if let Some(model) = model.as_ref().filter(|model| model.calibration.is_none()) {
            let description = format!(
                "must have intervals; the training of {} had too few validation images for them",
                model.name
            );
            return Err(status::invalid("model_version", description));
        }
        Ok(Check {
            near: (!request.skip_near_duplicates).then_some(near),
            limit: Limit(listed as usize),
            seed: request.seed.unwrap_or(DEFAULT_SEED),
            context,
            dataset,
            model,
            started,
            _permit: permit,
        })
    }

    async fn run(self, sender: Sender) {
        tracing::info!(dataset = self.dataset.path, "dataset check started");
        let (progress, receiver) = watch::channel(phase("scan", 0, 0));
        let progress_messages = (receiver, |progress| response(Kind::Progress(progress)));
        let deliver = |report| streaming_job::send(&sender, Ok(response(Kind::Report(report))));
        let shutdown = &self.context.shutdown;
        let work = self.check(progress);
        streaming_job::drive(&sender, shutdown, progress_messages, work, deliver).await;
    }

    async fn check(
        &self,
        progress: watch::Sender<v1::CheckProgress>,
    ) -> Result<v1::DatasetCheck, Status> {
        let dataset = Arc::new(self.scan(progress.clone()).await?);
        let outliers = match &self.model {
            None => None,
            Some(model) => Some(self.outliers(model, &dataset, &progress).await?),
        };
        let (near, limit) = (self.near, self.limit);
        // Sorting and grouping all images takes too long for an async thread.
        let report = move || report(&dataset, near, limit);
        Ok(v1::DatasetCheck {
            dataset_path: self.dataset.path.clone(),
            outliers,
            duration: prost_types::Duration::try_from(self.started.elapsed()).ok(),
            ..self.context.predictor.compute(report).await?
        })
    }

    async fn scan(&self, progress: watch::Sender<v1::CheckProgress>) -> Result<Dataset, Status> {
        let options = dataset::Options {
            purpose: Purpose::Check,
            near: self.near,
            ..self.dataset.options(self.seed, self.context.limits)
        };
        let on_progress = move |step: Phase, done, total| {
            progress.send_replace(phase(step.label(), done, total));
        };
        let (path, roots) = (&self.dataset.path, &self.context.data_roots);
        dataset_input::scan(path, roots, options, "dataset.", on_progress).await
    }

    async fn outliers(
        &self,
        model: &Arc<ServedModel>,
        dataset: &Arc<Dataset>,
        progress: &watch::Sender<v1::CheckProgress>,
    ) -> Result<v1::LabelOutliers, Status> {
        let samples = Split::ALL.map(|split| dataset.split(split)).concat();
        let total = samples.len();
        let on_progress = |done| {
            progress.send_replace(phase("predict", done, total));
        };
        on_progress(0);
        let files: Vec<PathBuf> = samples.into_iter().map(|sample| sample.path).collect();
        let predictor = &self.context.predictor;
        let predictions = predict_files(predictor, model, files, on_progress).await?;
        let (model, dataset, limit) = (Arc::clone(model), Arc::clone(dataset), self.limit);
        let find = move || label_outliers(&model, &dataset, predictions, limit);
        Ok(predictor.compute(find).await?)
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
