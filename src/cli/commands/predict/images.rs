//! Input images, their grouping into requests, and their results.

use std::{
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use prost::bytes::Bytes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    cli::{
        client::{Client, RetryPolicy, request},
        error::Error,
        output::text::size_text,
        status_text::describe,
    },
    proto::v1::{Limits, PredictDurations, PredictRequest, Prediction},
};

/// Upper bounds of the encoding overhead, per request and per image.
const REQUEST_OVERHEAD: u64 = 1024;
const IMAGE_OVERHEAD: u64 = 16;
/// Limit of standard input, which is read before the server's limits are known.
const MAX_STDIN_BYTES: u64 = 1 << 30;

#[derive(Clone, Debug)]
pub(super) struct Image {
    source: Source,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory(Bytes),
}

/// A prediction, or the reason why the image has none.
pub(super) type ImageResult = Result<PredictedImage, String>;

#[derive(Debug)]
pub(super) struct PredictedImage {
    pub(super) prediction: Prediction,
    pub(super) model_version: String,
    pub(super) durations: PredictDurations,
}

impl Image {
    /// Checks that the file exists, without reading it; `-` is standard input, which is read here.
    pub(super) fn find(name: &Path) -> Result<Self, String> {
        if name == Path::new("-") {
            let mut data = Vec::new();
            std::io::stdin()
                .take(MAX_STDIN_BYTES)
                .read_to_end(&mut data)
                .map_err(|error| format!("failed to read standard input: {error}"))?;
            return Ok(Self {
                bytes: data.len() as u64,
                source: Source::Memory(Bytes::from(data)),
            });
        }
        let metadata =
            std::fs::metadata(name).map_err(|error| match error.kind() == ErrorKind::NotFound {
                true => "file not found".to_owned(),
                false => format!("failed to read the file: {error}"),
            })?;
        if metadata.is_dir() {
            return Err(format!(
                "is a directory; name its files, such as {}",
                name.join("*.jpg").display()
            ));
        }
        Ok(Self {
            bytes: metadata.len(),
            source: Source::File(name.to_owned()),
        })
    }

    /// Refuses an image that the server would refuse.
    pub(super) fn check(self, limits: &Limits) -> Result<Self, String> {
        let largest = largest_image(limits);
        if self.bytes == 0 {
            return Err("is empty".to_owned());
        }
        if self.bytes > largest {
            return Err(format!(
                "is {} large, above the server's limit of {} per image",
                size_text(self.bytes),
                size_text(largest)
            ));
        }
        Ok(self)
    }

    async fn read(&self) -> Result<Bytes, String> {
        match &self.source {
            Source::Memory(data) => Ok(data.clone()),
            Source::File(path) => fs_err::tokio::read(path)
                .await
                .map(Bytes::from)
                .map_err(|error| error.to_string()),
        }
    }
}

/// The largest image that fits the server's limit on images and, in its own request, on messages.
fn largest_image(limits: &Limits) -> u64 {
    let alone = limits
        .max_message_bytes
        .saturating_sub(REQUEST_OVERHEAD + IMAGE_OVERHEAD);
    limits.max_image_bytes.min(alone)
}

/// Splits the images, in order, into groups that fit into one request each.
pub(super) fn group<T>(images: Vec<(T, Image)>, limits: &Limits) -> Vec<Vec<(T, Image)>> {
    let max_images = usize::try_from(limits.max_images_per_request.max(1)).unwrap_or(usize::MAX);
    let max_bytes = limits.max_message_bytes.saturating_sub(REQUEST_OVERHEAD);
    let mut groups = Vec::new();
    let mut current = Vec::new();
    let mut used = 0;
    for (key, image) in images {
        let needed = image.bytes + IMAGE_OVERHEAD;
        let is_full = current.len() >= max_images || used + needed > max_bytes;
        if is_full && !current.is_empty() {
            groups.push(std::mem::take(&mut current));
            used = 0;
        }
        used += needed;
        current.push((key, image));
    }
    if !current.is_empty() {
        groups.push(current);
    }
    groups
}

/// Predicts one group. One bad image fails the whole call, so bad images are removed by their index
/// and the rest is sent again.
///
/// # Errors
/// A failure of the call, such as a missing model version.
pub(super) async fn predict<T>(
    client: Client,
    retry: RetryPolicy,
    template: PredictRequest,
    group: Vec<(T, Image)>,
) -> Result<Vec<(T, ImageResult)>, Error> {
    let mut results = Vec::with_capacity(group.len());
    // Sets of images to request; several only after a refusal without an index.
    let mut first = Vec::new();
    for (key, image) in group {
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
