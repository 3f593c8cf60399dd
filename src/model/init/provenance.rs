//! Images that initial weights were trained on.

use std::path::{Path, PathBuf};

use crate::{
    artifacts,
    model::{
        starter,
        training_images::{TRAINING_IMAGES_FILE, TrainingImages, beside},
        weights,
    },
};

/// Identity of a weights file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provenance {
    pub(super) path: PathBuf,
    /// SHA-256 of the file in hex.
    pub(super) sha256: String,
    /// SHA-256 of the record of its training images in hex, if its description or the manifest
    /// beside it has one.
    pub(super) record: Option<String>,
}

impl Provenance {
    /// Returns the images that the weights were trained on, or the reason why they are unknown.
    ///
    /// The record is built in for the starter. Otherwise it is the file beside the weights, or an
    /// artifact of the server whose directory is given, that has the SHA-256 of the description.
    pub(super) fn training_images(
        &self,
        artifacts: Option<&Path>,
    ) -> Result<TrainingImages, String> {
        if weights::is_imagenet(&self.sha256) {
            return Ok(TrainingImages::default());
        }
        let of_starter = &starter::manifest().sha256[TRAINING_IMAGES_FILE];
        if self.sha256 == starter::sha256() || self.record.as_ref() == Some(of_starter) {
            return starter::training_images().map_err(|error| error.to_string());
        }
        let Some(record) = &self.record else {
            return Err(
                "the file does not name a record of the images that it was trained on".to_owned(),
            );
        };
        let stored = artifacts.and_then(|directory| artifacts::file_in(directory, record));
        let candidates = [Some(beside(&self.path)), stored];
        let found = candidates
            .into_iter()
            .flatten()
            .find_map(|path| TrainingImages::read(&path, record).ok());
        found.ok_or_else(|| {
            format!(
                "the file names a record of the images that it was trained on, but {TRAINING_IMAGES_FILE} with the SHA-256 {record} is neither beside it nor on this server"
            )
        })
    }
}
