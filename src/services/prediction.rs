//! PredictionService.

use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use crate::{
    inference::predictor::{self, Answer, Predictor},
    names::VersionName,
    proto::v1::{self, prediction_service_server::PredictionService},
    registry::{self, DEFAULT_MODEL, LIVE, Registry},
    telemetry::metrics::{self, ImageOutcome, RejectionReason},
};

use super::{deadline::Deadline, interval::interval_level, status};

/// The service over its handles.
#[derive(Clone)]
pub struct PredictionApi {
    /// The engine and its door.
    pub predictor: Predictor,
    /// What the versions' names mean.
    pub registry: Registry,
    /// Most images in a call.
    pub max_images: usize,
}

#[tonic::async_trait]
impl PredictionService for PredictionApi {
    async fn predict(
        &self,
        request: Request<v1::PredictRequest>,
    ) -> Result<Response<v1::PredictResponse>, Status> {
        let arrived = Instant::now();
        let deadline = request.extensions().get::<Deadline>().map(|found| found.0);
        let request = request.into_inner();
        let count = request.images.len();
        if count == 0 {
            return Err(status::invalid(
                "images",
                "there is none; give at least one encoded image",
            ));
        }
        if count > self.max_images {
            metrics::prediction_rejected(RejectionReason::TooLarge);
            return Err(status::invalid(
                "images",
                &format!(
                    "{count} images are too many; {} are allowed in a call",
                    self.max_images
                ),
            ));
        }
        let name = match request.model.as_str() {
            "" => VersionName::alias(DEFAULT_MODEL, LIVE),
            name => VersionName::parse(name).map_err(|error| status::bad_name("model", &error))?,
        };
        let model = self.registry.served(&name).await.map_err(|error| {
            if matches!(error, registry::Error::NoLiveVersion { .. }) {
                metrics::prediction_rejected(RejectionReason::NoModel);
            }
            status::from_registry(error)
        })?;
        let interval_level = interval_level(&model, request.interval_level)?;
        let admission = self.predictor.admit(count).map_err(|error| {
            (0..count).for_each(|_| metrics::image_finished(ImageOutcome::Overloaded));
            status::from_inference(&error)
        })?;
        let model_version = model.name.clone();
        // At the deadline the layer around the services drops the work, and with it what has not been computed.
        let work = self.predictor.predict(
            predictor::Request {
                model,
                images: request.images,
                annotate: request.annotate,
                interval_level,
                deadline,
            },
            admission,
        );
        let answers = work.await.map_err(|error| status::from_inference(&error))?;
        let durations = durations(&answers, arrived.elapsed());
        Ok(Response::new(v1::PredictResponse {
            predictions: answers.into_iter().map(prediction).collect(),
            model_version,
            durations: Some(durations),
        }))
    }
}

fn prediction(answer: Answer) -> v1::Prediction {
    v1::Prediction {
        age: answer.age,
        interval: answer
            .interval
            .map(|(lower, upper, confidence)| v1::Interval {
                lower,
                upper,
                confidence,
            }),
        annotated_png: answer.annotated_png.unwrap_or_default().into(),
        width: answer.dimensions.0,
        height: answer.dimensions.1,
    }
}

fn durations(answers: &[Answer], total: Duration) -> v1::PredictDurations {
    let longest =
        |of: fn(&Answer) -> Duration| message(answers.iter().map(of).max().unwrap_or_default());
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
