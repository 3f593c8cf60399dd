//! PredictionService.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    detection::Square,
    inference::{
        FacePrediction, Image, PredictOptions, PredictRequest, Prediction, Predictor, Priority,
        RenderedExplanation, ServedModel,
    },
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::v1::{self, prediction_service_server::PredictionService},
    registry::{self, Registry},
    telemetry::metrics::{self, ImageOutcome, RejectionReason},
};

use super::{
    caller::Caller,
    compressed_if_large,
    interval::interval_level,
    predict_batch::{Answers, BatchCalls},
    status, uncompressed,
};

/// The service over its handles.
#[derive(Clone)]
pub struct PredictionApi {
    /// The engine and its door.
    pub predictor: Predictor,
    /// What the versions' names mean.
    pub registry: Registry,
    /// Most images in a call.
    pub max_images: usize,
    /// What calls of PredictBatch have in common.
    pub batch_calls: BatchCalls,
}

/// What is left to say once the version is known.
pub(super) struct PredictionInput {
    /// The images, as many as [`PredictionApi::check_count`] lets through.
    pub(super) images: Vec<Image>,
    /// Where in the request they are.
    pub(super) field: &'static str,
    /// What is wanted of each beside its age; the level of the intervals as [`interval_level`] has read it.
    pub(super) options: PredictOptions,
    /// Who asks, and until when.
    pub(super) caller: Caller,
    /// Whether somebody waits for it.
    pub(super) priority: Priority,
}

/// The way that every prediction goes, whatever protocol asks for it.
impl PredictionApi {
    /// Refuses more images than a call may have; `field` is where they are.
    ///
    /// # Errors
    /// INVALID_ARGUMENT.
    pub(super) fn check_count(&self, field: &str, count: usize) -> Result<(), Status> {
        if count <= self.max_images {
            return Ok(());
        }
        metrics::prediction_rejected(RejectionReason::TooLarge);
        Err(status::invalid(
            field,
            &format!(
                "{count} images are too many; {} are allowed in a call",
                self.max_images
            ),
        ))
    }

    /// The version that a name means.
    ///
    /// # Errors
    /// Those of [`Registry::resolve`].
    pub(super) async fn served(&self, name: &VersionName) -> Result<Arc<ServedModel>, Status> {
        self.registry.resolve(name).await.map_err(|error| {
            if matches!(error, registry::Error::NoLiveVersion { .. }) {
                metrics::prediction_rejected(RejectionReason::NoModel);
            }
            status::from_registry(error)
        })
    }

    /// The version that a request names, `live` of the default model where it names none.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, and those of [`PredictionApi::served`].
    pub(super) async fn named(&self, name: &str) -> Result<Arc<ServedModel>, Status> {
        let name = match name {
            "" => VersionName::alias(DEFAULT_MODEL, LIVE),
            name => VersionName::parse(name).map_err(|error| status::bad_name("model", &error))?,
        };
        self.served(&name).await
    }

    /// Admits and predicts.
    ///
    /// # Errors
    /// Those of [`Predictor::admit`] and [`Predictor::predict`].
    pub(super) async fn compute(
        &self,
        model: Arc<ServedModel>,
        images: PredictionInput,
    ) -> Result<Vec<Prediction>, Status> {
        let count = images.images.len();
        let Caller { client, deadline } = images.caller;
        let admission = self
            .predictor
            .admit(&model, &client, count, images.priority, deadline);
        let admission = admission.map_err(|error| {
            (0..count).for_each(|_| metrics::image_finished(ImageOutcome::Overloaded));
            status::from_inference(&error)
        })?;
        // At the deadline the layer around the services drops the work, and with it what has not been computed.
        let work = self.predictor.predict(
            PredictRequest {
                model,
                images: images.images,
                options: images.options,
                deadline,
                priority: images.priority,
                client,
            },
            admission,
        );
        work.await
            .map_err(|error| status::from_inference_of(&error, images.field))
    }
}

#[tonic::async_trait]
impl PredictionService for PredictionApi {
    async fn predict(
        &self,
        request: Request<v1::PredictRequest>,
    ) -> Result<Response<v1::PredictResponse>, Status> {
        let arrived = Instant::now();
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let priority = priority(request.priority)?;
        if request.images.is_empty() {
            return Err(status::invalid(
                "images",
                "there is none; give at least one encoded image",
            ));
        }
        self.check_count("images", request.images.len())?;
        let model = self.named(&request.model).await?;
        let has_pngs = request.annotate || request.explain;
        let images = PredictionInput {
            options: PredictOptions {
                annotate: request.annotate,
                explain: request.explain,
                detect_faces: request.detect_faces,
                average_flip: request.average_flip,
                interval_level: interval_level(&model, request.interval_level, "interval_level")?,
            },
            images: request.images.into_iter().map(Image::Encoded).collect(),
            field: "images",
            caller,
            priority,
        };
        let model_version = model.name.clone();
        let answers = self.compute(model, images).await?;
        let durations = durations(&answers, arrived.elapsed());
        let response = v1::PredictResponse {
            predictions: answers.into_iter().map(prediction).collect(),
            model_version,
            durations: Some(durations),
        };
        Ok(match has_pngs {
            true => uncompressed(response),
            false => compressed_if_large(response),
        })
    }

    type PredictBatchStream = Answers;

    async fn predict_batch(
        &self,
        request: Request<Streaming<v1::PredictBatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.answer_batch(request).await
    }
}

fn priority(given: i32) -> Result<Priority, Status> {
    match v1::Priority::try_from(given) {
        Ok(v1::Priority::Unspecified | v1::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(v1::Priority::Batch) => Ok(Priority::Batch),
        Err(_) => Err(status::invalid(
            "priority",
            &format!(
                "{given} is none; give PRIORITY_INTERACTIVE (1), PRIORITY_BATCH (2) or nothing"
            ),
        )),
    }
}

pub(super) fn prediction(answer: Prediction) -> v1::Prediction {
    let face_detection = match &answer.faces {
        None => v1::FaceDetection::Unspecified,
        Some(faces) if faces.is_empty() => v1::FaceDetection::NoFace,
        Some(_) => v1::FaceDetection::Found,
    };
    let (explanation, explanation_png) = explained(answer.explanation);
    v1::Prediction {
        age: answer.age,
        interval: answer.interval.map(interval),
        annotated_png: answer.annotated_png.unwrap_or_default().into(),
        width: answer.dimensions.0,
        height: answer.dimensions.1,
        explanation_png,
        faces: answer
            .faces
            .unwrap_or_default()
            .into_iter()
            .map(face)
            .collect(),
        explanation,
        face_detection: face_detection.into(),
        cached: answer.cached.unwrap_or_default(),
    }
}

fn face(answer: FacePrediction) -> v1::FacePrediction {
    let (explanation, explanation_png) = explained(answer.explanation);
    v1::FacePrediction {
        r#box: Some(face_box(answer.face.crop)),
        score: answer.face.score as f32,
        age: answer.age,
        interval: answer.interval.map(interval),
        explanation_png,
        explanation,
        detected: Some(face_box(answer.face.detected)),
    }
}

fn face_box(square: Square) -> v1::FaceBox {
    v1::FaceBox {
        left: square.left,
        top: square.top,
        width: square.side,
        height: square.side,
    }
}

fn interval((lower, upper, confidence): (f64, f64, f64)) -> v1::Interval {
    v1::Interval {
        lower,
        upper,
        confidence,
    }
}

fn explained(explained: Option<RenderedExplanation>) -> (Option<v1::Explanation>, Bytes) {
    let Some(RenderedExplanation { explanation, png }) = explained else {
        return (None, Bytes::new());
    };
    let side = u32::try_from(explanation.side).unwrap_or(u32::MAX);
    let message = v1::Explanation {
        rows: side,
        columns: side,
        years: explanation.years,
        base_years: explanation.base,
    };
    (Some(message), png.unwrap_or_default().into())
}

fn durations(answers: &[Prediction], total: Duration) -> v1::PredictDurations {
    let longest =
        |of: fn(&Prediction) -> Duration| message(answers.iter().map(of).max().unwrap_or_default());
    v1::PredictDurations {
        decode: longest(|answer| answer.decode),
        queue: longest(|answer| answer.queue),
        inference: longest(|answer| answer.inference),
        total: message(total),
    }
}

fn message(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
