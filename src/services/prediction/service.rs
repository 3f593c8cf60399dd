//! The methods of PredictionService.

use std::time::Instant;

use tonic::{Request, Response, Status, Streaming};

use super::{
    batch::{BatchResponses, BatchStreams},
    interval::interval_level,
    message,
    resolver::{PredictionInput, PredictionResolver},
};
use crate::{
    inference::{Image, PredictOptions, Priority},
    proto::v1::{self, prediction_service_server::PredictionService},
    services::{
        caller::Caller,
        compression::{compressed_if_large, uncompressed},
        status,
    },
};

#[derive(Clone)]
pub(crate) struct PredictionApi {
    pub resolver: PredictionResolver,
    pub batch_streams: BatchStreams,
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
                "at least one encoded image is required",
            ));
        }
        self.resolver.check_count("images", request.images.len())?;
        let model = self.resolver.resolve_field(&request.model).await?;
        let has_pngs = request.annotate || request.explain;
        let input = PredictionInput {
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
        let predictions = self.resolver.predict(model, input).await?;
        let durations = message::durations(&predictions, arrived.elapsed());
        let response = v1::PredictResponse {
            predictions: predictions.into_iter().map(message::prediction).collect(),
            model_version,
            durations: Some(durations),
        };
        status::check_response(&response)?;
        Ok(match has_pngs {
            true => uncompressed(response),
            false => compressed_if_large(response),
        })
    }

    type PredictBatchStream = BatchResponses;

    async fn predict_batch(
        &self,
        request: Request<Streaming<v1::PredictBatchRequest>>,
    ) -> Result<Response<BatchResponses>, Status> {
        self.batch_streams.predict(&self.resolver, request).await
    }
}

fn priority(value: i32) -> Result<Priority, Status> {
    match v1::Priority::try_from(value) {
        Ok(v1::Priority::Unspecified | v1::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(v1::Priority::Batch) => Ok(Priority::Batch),
        Err(_) => Err(status::invalid(
            "priority",
            format!("must be PRIORITY_INTERACTIVE (1), PRIORITY_BATCH (2) or unset, got {value}"),
        )),
    }
}
