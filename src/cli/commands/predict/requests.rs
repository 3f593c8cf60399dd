//! Requests for groups of images, and their results.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    cli::{
        client::{Client, RetryPolicy, request},
        commands::predict::groups::Group,
        error::Error,
        status_text::describe,
    },
    proto::v1::{PredictDurations, PredictRequest, Prediction},
};

/// A prediction, or the reason why the image has none.
pub(super) type ImageResult = Result<PredictedImage, String>;

#[derive(Debug)]
pub(super) struct PredictedImage {
    pub(super) prediction: Prediction,
    pub(super) model_version: String,
    pub(super) durations: PredictDurations,
}

/// Predicts one group, in the order of the files. One bad image fails the whole call, so bad images
/// are removed by their index
/// and the rest is sent again.
///
/// # Errors
/// A failure of the call, such as a missing model version.
pub(super) async fn predict(
    client: Client,
    retry: RetryPolicy,
    template: PredictRequest,
    group: Group,
) -> Result<Vec<(usize, ImageResult)>, Error> {
    let refused = group.refused.into_iter();
    let mut results: Vec<(usize, ImageResult)> = refused
        .map(|(index, reason)| (index, Err(reason)))
        .collect();
    // Sets of images to request; several only after a refusal without an index.
    let mut first = Vec::new();
    for (key, image) in group.images {
        match image.read().await {
            Ok(data) => first.push((key, data)),
            Err(reason) => results.push((key, Err(reason))),
        }
    }
    let mut pending = vec![first];
    while let Some(images) = pending.pop() {
        if images.is_empty() {
            continue;
        }
        let message = PredictRequest {
            images: images.iter().map(|(_, data)| data.clone()).collect(),
            ..template.clone()
        };
        let response = client
            .repeat(&retry, async || {
                let request = request(message.clone());
                client.predictions().predict(request).await
            })
            .await;
        let refusal = match response {
            Ok(response) => {
                if response.predictions.len() != images.len() {
                    return Err(Error::Contract(format!(
                        "got {} predictions for {} images",
                        response.predictions.len(),
                        images.len()
                    )));
                }
                let durations = response.durations.unwrap_or_default();
                for ((key, _), prediction) in images.into_iter().zip(response.predictions) {
                    let predicted = PredictedImage {
                        prediction,
                        model_version: response.model_version.clone(),
                        durations,
                    };
                    results.push((key, Ok(predicted)));
                }
                continue;
            }
            Err(Error::Refused(status)) => status,
            Err(error) => return Err(error),
        };
        match Blame::of(&refusal) {
            Blame::Images(blamed) if blamed.iter().any(|(index, _)| *index < images.len()) => {
                let mut rest = Vec::new();
                for (index, (key, data)) in images.into_iter().enumerate() {
                    match blamed.iter().find(|(bad, _)| *bad == index) {
                        Some((_, reason)) => results.push((key, Err(reason.clone()))),
                        None => rest.push((key, data)),
                    }
                }
                pending.push(rest);
            }
            Blame::Unknown if images.len() > 1 => {
                pending.extend(images.into_iter().rev().map(|image| vec![image]));
            }
            Blame::Unknown => {
                let reason = describe(&refusal);
                results.extend(
                    images
                        .into_iter()
                        .map(|(key, _)| (key, Err(reason.clone()))),
                );
            }
            Blame::Images(_) | Blame::Call => return Err(Error::Refused(refusal)),
        }
    }
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results)
}

/// The cause of a refusal.
#[derive(Debug, PartialEq)]
enum Blame {
    /// These images, by index in the request, each with the reason.
    Images(Vec<(usize, String)>),
    /// Possibly an image, without an index.
    Unknown,
    Call,
}

impl Blame {
    fn of(status: &Status) -> Self {
        if status.code() != Code::InvalidArgument {
            return Self::Call;
        }
        let violations = status
            .get_details_bad_request()
            .map(|bad_request| bad_request.field_violations)
            .unwrap_or_default();
        if violations.is_empty() {
            return Self::Unknown;
        }
        let blamed: Option<Vec<(usize, String)>> = violations
            .into_iter()
            .map(|violation| Some((image_index(&violation.field)?, violation.description)))
            .collect();
        blamed.map_or(Self::Call, Self::Images)
    }
}

/// The N of `images[N]`.
fn image_index(field: &str) -> Option<usize> {
    field
        .strip_prefix("images[")?
        .split_once(']')?
        .0
        .parse()
        .ok()
}
