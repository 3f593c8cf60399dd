//! The images of a Predict run: which files, in which groups, and what became of each.

use std::{
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use prost::bytes::Bytes;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::proto::v1::{Limits, PredictDurations, PredictRequest, Prediction};

use super::{
    Error,
    client::{Client, Patience, request},
    error::describe,
    report::size_text,
};

/// What a request needs beside its images, and each image beside its bytes, with room to spare.
const REQUEST_OVERHEAD: u64 = 1024;
const IMAGE_OVERHEAD: u64 = 16;
/// Standard input is read before the server's limits are known; nothing above this is an image.
const MAX_STDIN_BYTES: u64 = 1 << 30;

/// One image that the user named.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) source: Source,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Memory(Bytes),
}

/// What became of one image: a prediction, or why there is none.
pub(super) type Verdict = Result<Predicted, String>;

#[derive(Debug)]
pub(super) struct Predicted {
    pub(super) prediction: Prediction,
    pub(super) model_version: String,
    pub(super) durations: PredictDurations,
}

impl Image {
    /// Looks at the file without reading it; `-` is standard input, which is read at once.
    pub(super) fn find(name: &Path) -> Result<Self, String> {
        if name == Path::new("-") {
            let mut data = Vec::new();
            std::io::stdin()
                .take(MAX_STDIN_BYTES)
                .read_to_end(&mut data)
                .map_err(|error| format!("cannot read standard input: {error}"))?;
            return Ok(Self {
                bytes: data.len() as u64,
                source: Source::Memory(Bytes::from(data)),
            });
        }
        let metadata =
            std::fs::metadata(name).map_err(|error| match error.kind() == ErrorKind::NotFound {
                true => "there is no such file".to_owned(),
                false => format!("cannot be read: {error}"),
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

    /// Refuses what the server would refuse anyway, without sending it.
    pub(super) fn check(self, limits: &Limits) -> Result<Self, String> {
        let largest = largest_image(limits);
        if self.bytes == 0 {
            return Err("is empty".to_owned());
        }
        if self.bytes > largest {
            return Err(format!(
                "is {} large, above the server's limit of {} for an image",
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

/// An image must fit the server's limit on images and, in a request of its own, that on messages.
fn largest_image(limits: &Limits) -> u64 {
    let alone = limits
        .max_message_bytes
        .saturating_sub(REQUEST_OVERHEAD + IMAGE_OVERHEAD);
    limits.max_image_bytes.min(alone)
}

/// Cuts the images, in order, into groups that one request may carry.
pub(super) fn group<T>(images: Vec<(T, Image)>, limits: &Limits) -> Vec<Vec<(T, Image)>> {
    let most = usize::try_from(limits.max_images_per_request.max(1)).unwrap_or(usize::MAX);
    let room = limits.max_message_bytes.saturating_sub(REQUEST_OVERHEAD);
    let mut groups = Vec::new();
    let mut current = Vec::new();
    let mut used = 0;
    for (key, image) in images {
        let needed = image.bytes + IMAGE_OVERHEAD;
        let is_full = current.len() >= most || used + needed > room;
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

/// Predicts one group. The server fails a call for one bad image, so that one is taken out by its index and the rest is sent again.
///
/// # Errors
/// What concerns the whole call, such as a model that does not exist.
pub(super) async fn predict<T>(
    client: Client,
    patience: Patience,
    template: PredictRequest,
    group: Vec<(T, Image)>,
) -> Result<Vec<(T, Verdict)>, Error> {
    let mut verdicts = Vec::with_capacity(group.len());
    // Sets of images that still have to be asked for; more than one only when a refusal names no index.
    let mut first = Vec::new();
    for (key, image) in group {
        match image.read().await {
            Ok(data) => first.push((key, data)),
            Err(reason) => verdicts.push((key, Err(reason))),
        }
    }
    let mut waiting = vec![first];
    while let Some(images) = waiting.pop() {
        if images.is_empty() {
            continue;
        }
        let message = PredictRequest {
            images: images.iter().map(|(_, data)| data.clone()).collect(),
            ..template.clone()
        };
        let answer = client
            .repeat(&patience, || {
                let call = request(message.clone());
                let mut predictions = client.predictions();
                async move { predictions.predict(call).await }
            })
            .await;
        let refusal = match answer {
            Ok(response) => {
                if response.predictions.len() != images.len() {
                    return Err(Error::Contract(format!(
                        "{} predictions came for {} images",
                        response.predictions.len(),
                        images.len()
                    )));
                }
                let durations = response.durations.unwrap_or_default();
                for ((key, _), prediction) in images.into_iter().zip(response.predictions) {
                    let predicted = Predicted {
                        prediction,
                        model_version: response.model_version.clone(),
                        durations,
                    };
                    verdicts.push((key, Ok(predicted)));
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
                        Some((_, reason)) => verdicts.push((key, Err(reason.clone()))),
                        None => rest.push((key, data)),
                    }
                }
                waiting.push(rest);
            }
            Blame::Someone if images.len() > 1 => {
                waiting.extend(images.into_iter().rev().map(|image| vec![image]));
            }
            Blame::Someone => {
                let reason = describe(&refusal);
                verdicts.extend(
                    images
                        .into_iter()
                        .map(|(key, _)| (key, Err(reason.clone()))),
                );
            }
            Blame::Images(_) | Blame::Call => return Err(Error::Refused(refusal)),
        }
    }
    Ok(verdicts)
}

/// What a refusal is about.
#[derive(Debug, PartialEq)]
enum Blame {
    /// These images, by their index in the request, each with the reason.
    Images(Vec<(usize, String)>),
    /// Perhaps an image, but it does not say which.
    Someone,
    /// The whole call.
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
            return Self::Someone;
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
