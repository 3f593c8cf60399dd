//! PredictionService.

use std::time::{Duration, Instant};

use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    inference::{
        self,
        predictor::{self, Answer, Predictor},
    },
    names::VersionName,
    proto::v1::{self, prediction_service_server::PredictionService},
    registry::{self, DEFAULT_MODEL, LIVE, Registry},
    telemetry::metrics::{self, ImageOutcome, RejectionReason},
};

use super::status;

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
        let deadline = deadline(request.metadata(), arrived);
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
        let admission = self.predictor.admit(count).map_err(|error| {
            (0..count).for_each(|_| metrics::image_finished(ImageOutcome::Overloaded));
            status::from_inference(&error)
        })?;
        let model_version = model.name.clone();
        let work = self.predictor.predict(
            predictor::Request {
                model,
                images: request.images,
                annotate: request.annotate,
                deadline,
            },
            admission,
        );
        let answers = match deadline {
            // Dropping the work drops what has not been computed.
            Some(deadline) => tokio::time::timeout_at(deadline.into(), work)
                .await
                .unwrap_or(Err(inference::Error::DeadlineExceeded)),
            None => work.await,
        };
        let answers = answers.map_err(|error| status::from_inference(&error))?;
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

/// When to give up, from the `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
///
/// A moment before the client does: the answer has to get there, and the transport's own watch over the same header would say CANCELLED.
fn deadline(metadata: &MetadataMap, arrived: Instant) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    let moment = (timeout / 2).min(Duration::from_millis(10));
    arrived.checked_add(timeout - moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_comes_from_the_grpc_timeout_header() {
        let now = Instant::now();
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata, now).map(|deadline| deadline - now)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(240)));
        assert_eq!(read("5S"), Some(Duration::from_millis(4_990)));
        assert_eq!(read("12m"), Some(Duration::from_millis(6)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(89_999_999)));
        assert_eq!(read("123456789n"), None);
        assert_eq!(read("5x"), None);
        assert_eq!(deadline(&MetadataMap::new(), now), None);
    }
}
