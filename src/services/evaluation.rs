//! EvaluateModelVersion: a dataset of the server through the model that serves, beside what clients wait for.
//!
//! A task for each call scans the dataset, predicts its images in the background's share of the queue, and makes the report. It ends when its client
//! leaves, when the server shuts down, or when the client does not take what is sent for a minute.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::{
    dataset::{self, Dataset, Phase, Purpose, Roots, Sample, dataset_report, left_out_columns},
    evaluation::{
        Image, Scored,
        metrics::{Baseline, Intervals, evaluate, predicted_image},
        plots,
    },
    inference::{FilePrediction, ServedModel, predict_files},
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::{
        v1::{self, DatasetSplit, SplitGrouping, evaluate_model_version_response::Kind},
        validation::Violation,
    },
    store::{MAX_PAGE_BYTES, Room, Store},
    training::spec::Spec,
};

use super::{
    prediction::interval_level,
    status,
    streaming_job::{self, JobContext, JobLimit},
};

/// Evaluations that run at once; they share what background work may have.
const MAX_EVALUATIONS: usize = 4;
/// Predictions of a page.
const PAGE: usize = 500;

/// What a client receives.
pub type Responses = ReceiverStream<Result<v1::EvaluateModelVersionResponse, Status>>;
type Sender = streaming_job::Sender<v1::EvaluateModelVersionResponse>;

/// Starts evaluations. Cheap to clone.
#[derive(Clone)]
pub struct Evaluations {
    context: JobContext,
    limit: JobLimit,
}

impl Evaluations {
    /// Joins the context; `tasks` owns the evaluations.
    pub fn new(context: JobContext, tasks: TaskTracker) -> Self {
        Evaluations {
            context,
            limit: JobLimit::new(MAX_EVALUATIONS, tasks),
        }
    }

    /// Checks everything that needs no look at the images, and begins.
    ///
    /// # Errors
    /// Bad fields, a version that does not exist, or too many evaluations.
    pub(super) async fn start(
        &self,
        request: v1::EvaluateModelVersionRequest,
    ) -> Result<Responses, Status> {
        let slot = self.limit.acquire();
        let slot = slot.ok_or_else(|| status::too_many_evaluations(MAX_EVALUATIONS))?;
        let evaluation = Evaluation::check(self.context.clone(), request, slot).await?;
        Ok(self.limit.start(|sender| evaluation.run(sender)))
    }
}

/// One evaluation.
struct Evaluation {
    context: JobContext,
    /// The version's weights, and what is recorded of it.
    model: Arc<ServedModel>,
    version: v1::ModelVersion,
    /// Only the dataset and the seed are of interest.
    spec: Spec,
    split: DatasetSplit,
    level: Option<f64>,
    wants_plots: bool,
    wants_predictions: bool,
    started: Instant,
    /// Free again when the evaluation ends.
    _slot: OwnedSemaphorePermit,
}

/// What an evaluation found.
struct Found {
    predictions: Vec<v1::PredictedImage>,
    report: v1::EvaluationReport,
}

impl Evaluation {
    async fn check(
        context: JobContext,
        request: v1::EvaluateModelVersionRequest,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let started = Instant::now();
        let name = match request.name.as_str() {
            "" => VersionName::alias(DEFAULT_MODEL, LIVE),
            name => VersionName::parse(name).map_err(|error| status::bad_name("name", &error))?,
        };
        let model = context.registry.resolve(&name).await;
        let model = model.map_err(status::from_registry)?;
        // By its number: the alias may have moved since.
        let number =
            VersionName::parse(&model.name).map_err(|error| status::bad_name("name", &error))?;
        let version = context.registry.version(&number).await;
        let version = version.map_err(status::from_registry)?;
        let places = (&context.store, &context.data_roots);
        let (spec, split) = check_fields(&request, &version, places).await?;
        Ok(Evaluation {
            level: interval_level(&model, request.interval_level, "interval_level")?,
            context,
            model,
            version,
            spec,
            split,
            wants_plots: request.include_plots,
            wants_predictions: request.include_predictions,
            started,
            _slot: slot,
        })
    }

    /// Sends everything; ends early when the client leaves.
    async fn run(self, sender: Sender) {
        tracing::info!(
            model = self.model.name,
            dataset = self.spec.dataset.path,
            "evaluating"
        );
        let (progress, told) = watch::channel(phase("scan", 0, 0));
        let told = (told, |progress| response(Kind::Progress(progress)));
        let report = |found| send_found(found, &sender);
        let shutdown = &self.context.shutdown;
        streaming_job::drive(&sender, shutdown, told, self.find(progress), report).await;
    }

    async fn find(&self, progress: watch::Sender<v1::EvaluationProgress>) -> Result<Found, Status> {
        let dataset = self.scan(progress.clone()).await?;
        let samples = self.select(&dataset)?;
        let total = samples.len();
        progress.send_replace(phase("predict", 0, total));
        let files: Vec<PathBuf> = samples.iter().map(|sample| sample.path.clone()).collect();
        let told = |done| {
            progress.send_replace(phase("predict", done, total));
        };
        let verdicts = predict_files(&self.context.predictor, &self.model, files, told).await;
        let verdicts = verdicts.map_err(|error| status::from_inference(&error))?;
        let skipped = self.check_skipped(&samples, &verdicts)?;
        progress.send_replace(phase("report", 0, total));
        let left_out = left_out_columns(&dataset);
        let figures = self.figures(samples, verdicts, left_out).await?;
        let described = dataset_report(&dataset);
        Ok(Found {
            predictions: figures.predictions,
            report: v1::EvaluationReport {
                model_version: self.model.name.clone(),
                dataset_path: self.spec.dataset.path.clone(),
                warnings: self.warnings(&dataset),
                dataset_digest: dataset.digest,
                split: self.split.into(),
                evaluation: Some(figures.evaluation),
                skipped_images: skipped,
                rejects: described.rejects,
                duration: prost_types::Duration::try_from(self.started.elapsed()).ok(),
                predicted_plot_png: figures.predicted_plot.into(),
                residual_plot_png: figures.residual_plot.into(),
            },
        })
    }

    async fn scan(
        &self,
        progress: watch::Sender<v1::EvaluationProgress>,
    ) -> Result<Dataset, Status> {
        let options = dataset::Options {
            purpose: Purpose::Evaluation,
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

    /// The images of the split, by name.
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
            return Err(status::invalid(
                "split",
                &format!(
                    "it has no images; of the dataset {} are for training, {} for validation and {} for the test",
                    dataset.train.len(),
                    dataset.val.len(),
                    dataset.test.len()
                ),
            ));
        }
        samples.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(samples)
    }

    /// The number of images without a prediction; too many, or all, are an error.
    fn check_skipped(
        &self,
        samples: &[Sample],
        verdicts: &[FilePrediction],
    ) -> Result<u64, Status> {
        let all = verdicts.len();
        let skipped = verdicts.iter().filter(|verdict| verdict.is_err()).count();
        let limit = self.spec.dataset.max_reject_share;
        if skipped < all && skipped as f64 <= limit * all as f64 {
            return Ok(skipped as u64);
        }
        let first = samples
            .iter()
            .zip(verdicts)
            .find_map(|(sample, verdict)| Some((&sample.name, verdict.as_ref().err()?)));
        let example = first.map(|(name, reason)| format!("{name}: {reason}"));
        Err(status::invalid(
            "dataset.path",
            &format!(
                "{skipped} of {all} images could not be read, more than the allowed share of {limit}; first: {}",
                example.unwrap_or_default()
            ),
        ))
    }

    /// Computes and draws on the decoding threads.
    async fn figures(
        &self,
        samples: Vec<Sample>,
        verdicts: Vec<FilePrediction>,
        left_out: Option<v1::LeftOutColumns>,
    ) -> Result<Figures, Status> {
        let model = Arc::clone(&self.model);
        let (level, wants_plots, wants_predictions) =
            (self.level, self.wants_plots, self.wants_predictions);
        let work = move || {
            let images: Vec<Image<'_>> = samples
                .iter()
                .zip(verdicts)
                .filter_map(|(sample, verdict)| {
                    Some(Image {
                        name: &sample.name,
                        labels: sample.labels.iter().collect(),
                        scored: Scored {
                            age: f64::from(sample.age),
                            predicted: verdict.ok()?,
                        },
                    })
                })
                .collect();
            let intervals =
                level.and_then(|level| Intervals::at(model.calibration.as_ref(), level));
            let baseline = Baseline::new(model.mean_training_age, &images);
            let mut figures = Figures {
                evaluation: evaluate(&images, baseline, intervals, left_out),
                predictions: Vec::new(),
                predicted_plot: Vec::new(),
                residual_plot: Vec::new(),
            };
            if wants_predictions {
                figures.predictions = images.iter().map(predicted_image).collect();
            }
            if wants_plots {
                let scored: Vec<Scored> = images.iter().map(|image| image.scored).collect();
                let caption = format!(
                    "{} on {} images: MAE {:.2} years",
                    model.name,
                    images.len(),
                    figures.evaluation.mae
                );
                figures.predicted_plot =
                    plots::predicted_against_true(&scored, intervals, &caption)?;
                figures.residual_plot = plots::residuals_against_true(&scored, &caption)?;
            }
            Ok(figures)
        };
        let figures = self.context.predictor.compute(work).await;
        figures
            .map_err(|error| status::from_inference(&error))?
            .map_err(|error| status::from_plots(&error))
    }

    /// What the reader of the figures should know.
    fn warnings(&self, dataset: &Dataset) -> Vec<String> {
        let mut warnings = dataset.report.warnings.clone();
        let is_own = dataset.digest == self.version.dataset_digest;
        let about = match self.split {
            DatasetSplit::Unspecified | DatasetSplit::All => {
                "this is the dataset of the version's training, and most of these images were learned from; the figures are too good"
            }
            DatasetSplit::Train => {
                "the version learned from these images; the figures are too good"
            }
            DatasetSplit::Validation => {
                "the version's best epoch was chosen and its intervals were calibrated with these images; the figures are a little too good"
            }
            DatasetSplit::Test => return warnings,
        };
        warnings.extend(is_own.then(|| about.to_owned()));
        warnings
    }
}

/// What was computed of the predictions.
struct Figures {
    evaluation: v1::Evaluation,
    predictions: Vec<v1::PredictedImage>,
    predicted_plot: Vec<u8>,
    residual_plot: Vec<u8>,
}

/// The dataset as a training would have it, with its path resolved, and the split; all violations at once.
async fn check_fields(
    request: &v1::EvaluateModelVersionRequest,
    version: &v1::ModelVersion,
    places: (&Store, &Roots),
) -> Result<(Spec, DatasetSplit), Status> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, description: String| {
        violations.push(Violation {
            field: field.to_owned(),
            description,
        });
    };
    let split = match DatasetSplit::try_from(request.split) {
        Ok(DatasetSplit::Unspecified) => DatasetSplit::All,
        Ok(split) => split,
        Err(_) => {
            refuse(
                "split",
                format!("{} is not known to this server", request.split),
            );
            DatasetSplit::All
        }
    };
    let mut given = request.dataset.clone().unwrap_or_default();
    // So that the same images are split as in the training.
    let of_training = version.spec.as_ref();
    if let Some(dataset) = of_training.and_then(|spec| spec.dataset.as_ref()) {
        given.validation_fraction = given.validation_fraction.or(dataset.validation_fraction);
        given.test_fraction = given.test_fraction.or(dataset.test_fraction);
        if given.split_grouping() == SplitGrouping::Unspecified {
            given.split_grouping = dataset.split_grouping;
        }
    }
    let seed = of_training.and_then(|spec| spec.seed);
    let spec = streaming_job::resolve(given, seed, places, violations).await?;
    Ok((spec, split))
}

fn phase(phase: &str, done: usize, total: usize) -> v1::EvaluationProgress {
    v1::EvaluationProgress {
        phase: phase.to_owned(),
        done: done as u64,
        total: total as u64,
    }
}

/// Sends the pages and the report; false when the client has left.
async fn send_found(found: Found, sender: &Sender) -> bool {
    let mut predictions = found.predictions.into_iter().peekable();
    loop {
        let mut room = Room::new(PAGE, MAX_PAGE_BYTES);
        let page: Vec<_> =
            std::iter::from_fn(|| predictions.next_if(|next| room.take(next))).collect();
        if page.is_empty() {
            break;
        }
        let page = v1::PredictionPage { predictions: page };
        if !send(sender, Ok(Kind::Predictions(page))).await {
            return false;
        }
    }
    send(sender, Ok(Kind::Report(found.report))).await
}

/// Sends one message; false when the client has left or does not take it in time.
async fn send(sender: &Sender, message: Result<Kind, Status>) -> bool {
    streaming_job::send(sender, message.map(response)).await
}

fn response(kind: Kind) -> v1::EvaluateModelVersionResponse {
    v1::EvaluateModelVersionResponse { kind: Some(kind) }
}
