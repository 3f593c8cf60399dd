use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::report::{self, OfStarter, Results, own_dataset_warning};
use crate::{
    dataset::{
        self, DEFAULT_SEED, Dataset, DatasetSpec, Phase, Purpose, Sample, dataset_report,
        left_out_columns,
    },
    inference::{FilePrediction, ServedModel, predict_files},
    model::training_images::TrainingImages,
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::{
        v1::{
            self, DatasetSplit, InitKind, SplitGrouping, VersionOrigin,
            evaluate_model_version_response::Kind,
        },
        validation::Check,
    },
    services::{
        dataset_input,
        limit::CallLimit,
        prediction::interval_level,
        status::{self, Calls},
        streaming_job::{self, JobContext},
    },
    store::{MAX_PAGE_BYTES, Room},
};

/// Concurrent evaluations; they share the background part of the prediction queue.
const MAX_EVALUATIONS: usize = 4;
/// Predictions in a message.
const PAGE: usize = 500;

pub(crate) type Responses = ReceiverStream<Result<v1::EvaluateModelVersionResponse, Status>>;
type Sender = streaming_job::Sender<v1::EvaluateModelVersionResponse>;

/// Starts evaluations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Evaluations {
    context: JobContext,
    limit: CallLimit,
}

impl Evaluations {
    pub(crate) fn new(context: JobContext) -> Self {
        Evaluations {
            context,
            limit: CallLimit::new(Calls::Evaluations, MAX_EVALUATIONS),
        }
    }

    /// Performs all checks that do not read images, and starts the evaluation.
    ///
    /// # Errors
    /// Invalid fields, an unknown version, or too many evaluations.
    pub(in crate::services) async fn start(
        &self,
        request: v1::EvaluateModelVersionRequest,
    ) -> Result<Responses, Status> {
        let permit = self.limit.acquire()?;
        let evaluation = Evaluation::check(self.context.clone(), request, permit).await?;
        Ok(self.context.start(|sender| evaluation.run(sender)))
    }
}

struct Evaluation {
    context: JobContext,
    model: Arc<ServedModel>,
    version: v1::ModelVersion,
    /// The images that the version was trained on, if they are recorded.
    trained_on: Option<Arc<TrainingImages>>,
    dataset: DatasetSpec,
    seed: u64,
    split: DatasetSplit,
    options: report::Options,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The result of an evaluation.
struct Found {
    predictions: Vec<v1::PredictedImage>,
    report: v1::EvaluationReport,
}

impl Evaluation {
    async fn check(
        context: JobContext,
        request: v1::EvaluateModelVersionRequest,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let started = Instant::now();
        let name = match request.name.as_str() {
            "" => VersionName::alias(DEFAULT_MODEL, LIVE),
            name => VersionName::parse(name).map_err(|error| status::invalid("name", error))?,
        };
        let (version, model) = context.registry.resolve_with_record(&name).await?;
        let images = context.registry.training_images(&version).await?;
        let mut check = Check::default();
        let split = check.choice("split", request.split, DatasetSplit::All);
        let mut given = request.dataset.unwrap_or_default();
        // As in the training, so that the same images are in each split.
        let trained_on = version.spec.as_ref();
        if let Some(dataset) = trained_on.and_then(|spec| spec.dataset.as_ref()) {
            given.validation_fraction = given.validation_fraction.or(dataset.validation_fraction);
            given.test_fraction = given.test_fraction.or(dataset.test_fraction);
            if given.split_grouping() == SplitGrouping::Unspecified {
                given.split_grouping = dataset.split_grouping;
            }
        }
        let seed = trained_on
            .and_then(|spec| spec.seed)
            .unwrap_or(DEFAULT_SEED);
        let (store, roots) = (&context.store, &context.data_roots);
        let dataset = dataset_input::resolve(given, store, roots, check).await?;
        Ok(Evaluation {
            options: report::Options {
                level: interval_level(&model, request.interval_level, "interval_level")?,
                plots: request.include_plots,
                predictions: request.include_predictions,
                of_starter: of_starter(&version),
            },
            context,
            model,
            version,
            trained_on: images.map(Arc::new),
            dataset,
            seed,
            split,
            started,
            _permit: permit,
        })
    }

    async fn run(self, sender: Sender) {
        tracing::info!(
            model = self.model.name,
            dataset = self.dataset.path,
            "evaluation started"
        );
        let (progress, receiver) = watch::channel(phase("scan", 0, 0));
        let progress_messages = (receiver, |progress| response(Kind::Progress(progress)));
        let deliver = |found| send_found(found, &sender);
        let shutdown = &self.context.shutdown;
        let work = self.evaluate(progress);
        streaming_job::drive(&sender, shutdown, progress_messages, work, deliver).await;
    }

    async fn evaluate(
        &self,
        progress: watch::Sender<v1::EvaluationProgress>,
    ) -> Result<Found, Status> {
        let dataset = self.scan(progress.clone()).await?;
        let samples = self.select(&dataset)?;
        let total = samples.len();
        progress.send_replace(phase("predict", 0, total));
        let files: Vec<PathBuf> = samples.iter().map(|sample| sample.path.clone()).collect();
        let on_progress = |done| {
            progress.send_replace(phase("predict", done, total));
        };
        let predictor = &self.context.predictor;
        let predictions = predict_files(predictor, &self.model, files, on_progress).await?;
        let skipped = self.check_skipped(&samples, &predictions)?;
        progress.send_replace(phase("report", 0, total));
        let (model, options) = (Arc::clone(&self.model), self.options);
        let left_out = left_out_columns(&dataset);
        let trained_on = self.trained_on.clone();
        let compute = move || {
            let trained_on = trained_on.as_deref();
            report::compute(&model, &samples, predictions, trained_on, left_out, options)
        };
        let Results {
            evaluation,
            predictions,
            predicted_plot,
            residual_plot,
            trained_on_warning,
        } = predictor.compute(compute).await??;
        let mut warnings = dataset.report.warnings.clone();
        warnings.extend(trained_on_warning);
        if dataset.digest == self.version.dataset_digest {
            warnings.extend(own_dataset_warning(self.split, self.trained_on.is_some()));
        }
        Ok(Found {
            predictions,
            report: v1::EvaluationReport {
                model_version: self.model.name.clone(),
                dataset_path: self.dataset.path.clone(),
                warnings,
                rejects: dataset_report(&dataset).rejects,
                dataset_digest: dataset.digest,
                split: self.split.into(),
                evaluation: Some(evaluation),
                skipped_images: skipped,
                duration: prost_types::Duration::try_from(self.started.elapsed()).ok(),
                predicted_plot_png: predicted_plot.into(),
                residual_plot_png: residual_plot.into(),
            },
        })
    }

    async fn scan(
        &self,
        progress: watch::Sender<v1::EvaluationProgress>,
    ) -> Result<Dataset, Status> {
        let options = dataset::Options {
            purpose: Purpose::Evaluation,
            ..self.dataset.options(self.seed, self.context.limits)
        };
        let on_progress = move |step: Phase, done, total| {
            progress.send_replace(phase(step.label(), done, total));
        };
        let (path, roots) = (&self.dataset.path, &self.context.data_roots);
        dataset_input::scan(path, roots, options, "dataset.", on_progress).await
    }

    /// Selects the images of the split, sorted by name.
    fn select(&self, dataset: &Dataset) -> Result<Vec<Sample>, Status> {
        let parts = match self.split {
            DatasetSplit::Unspecified | DatasetSplit::All => {
                vec![&dataset.train, &dataset.val, &dataset.test]
            }
            DatasetSplit::Train => vec![&dataset.train],
            DatasetSplit::Validation => vec![&dataset.val],
            DatasetSplit::Test => vec![&dataset.test],
        };
        let mut samples: Vec<Sample> = parts.into_iter().flatten().cloned().collect();
        if samples.is_empty() {
            let description = format!(
                "must be a split with images; the dataset has {} images for training, {} for validation and {} for testing. \
                 Select another split, or all images of a dataset that the version was not trained on. \
                 Images in a directory `test`, or in rows with the split `test` of a manifest, are test images.",
                dataset.train.len(),
                dataset.val.len(),
                dataset.test.len()
            );
            return Err(status::invalid("split", description));
        }
        samples.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(samples)
    }

    /// Counts images without a prediction; fails if there are too many, or all.
    fn check_skipped(
        &self,
        samples: &[Sample],
        predictions: &[FilePrediction],
    ) -> Result<u64, Status> {
        let all = predictions.len();
        let skipped = predictions.iter().filter(|found| found.is_err()).count();
        let limit = self.dataset.max_reject_share;
        if skipped < all && skipped as f64 <= limit * all as f64 {
            return Ok(skipped as u64);
        }
        let first = samples
            .iter()
            .zip(predictions)
            .find_map(|(sample, found)| Some((&sample.name, found.as_ref().err()?)));
        let example = first.map(|(name, reason)| format!("{name}: {reason}"));
        let description = format!(
            "{skipped} of {all} images cannot be read, more than the allowed share of {limit}; the first is {}",
            example.unwrap_or_default()
        );
        Err(status::invalid("dataset.path", description))
    }
}

fn of_starter(version: &v1::ModelVersion) -> Option<OfStarter> {
    let init = version.spec.as_ref().and_then(|spec| spec.init.as_ref());
    match version.origin() {
        VersionOrigin::Starter => Some(OfStarter::Itself),
        VersionOrigin::Unspecified | VersionOrigin::Training => init
            .is_some_and(|init| init.kind() == InitKind::Starter)
            .then_some(OfStarter::FineTuned),
    }
}

fn phase(phase: &str, done: usize, total: usize) -> v1::EvaluationProgress {
    v1::EvaluationProgress {
        phase: phase.to_owned(),
        done: done as u64,
        total: total as u64,
    }
}

/// Sends pages of predictions and the report; returns false if the client has disconnected.
async fn send_found(found: Found, sender: &Sender) -> bool {
    let mut predictions = found.predictions.into_iter().peekable();
    loop {
        let mut room = Room::new(PAGE, MAX_PAGE_BYTES);
        let page: Vec<_> =
            std::iter::from_fn(|| predictions.next_if(|next| room.take(next))).collect();
        if page.is_empty() {
            break;
        }
        let page = Kind::Predictions(v1::PredictionPage { predictions: page });
        if !streaming_job::send(sender, Ok(response(page))).await {
            return false;
        }
    }
    streaming_job::send(sender, Ok(response(Kind::Report(found.report)))).await
}

fn response(kind: Kind) -> v1::EvaluateModelVersionResponse {
    v1::EvaluateModelVersionResponse { kind: Some(kind) }
}
