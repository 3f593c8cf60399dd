//! The part of a manifest that a weights file carries, so that one file is enough to continue from
//! a model.
//!
//! A safetensors file has it in its metadata, a `.pth` file in an entry of its own; other programs
//! ignore both.

use std::{io::Read as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{FORMAT_VERSION, LabelScale, MANIFEST_FILE, Manifest, parse_manifest},
    starter,
    training_images::TRAINING_IMAGES_FILE,
    weights::Found,
};
use crate::imaging::InputSpec;

/// Size limit of a manifest in bytes; one with a long spec and all calibration levels has 10 KiB.
const MAX_MANIFEST: u64 = 1 << 20;
/// The architecture of every model.
pub(crate) const ARCHITECTURE: &str = "resnet18";

/// Input and output of a model, and the images that it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Always [`ARCHITECTURE`].
    pub architecture: String,
    pub input: InputSpec,
    pub label: LabelScale,
    /// SHA-256 of the record of the training images in hex; absent if these are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_images: Option<String>,
}

impl Description {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Description {
            format_version: manifest.format_version,
            architecture: manifest.architecture.clone(),
            input: manifest.input.clone(),
            label: manifest.label,
            training_images: manifest.sha256.get(TRAINING_IMAGES_FILE).cloned(),
        }
    }

    /// # Errors
    /// A number that JSON cannot express, which no manifest has.
    pub(crate) fn to_json(&self) -> Result<String, std::io::Error> {
        serde_json::to_string(self).map_err(std::io::Error::other)
    }

    /// The description of the model in a file: the file's own, that of a manifest beside it, or the
    /// starter's. `None` if none of them describes exactly these tensors and is valid.
    pub(crate) fn find(path: &Path, found: &Found, sha256: &str) -> Option<Self> {
        let own = found.description.as_deref();
        let own = own.and_then(|text| serde_json::from_str::<Self>(text).ok());
        let described = own
            .or_else(|| beside(path, sha256).as_ref().map(Self::of))
            .or_else(|| (sha256 == starter::sha256()).then(|| Self::of(starter::manifest())));
        described.filter(Self::is_valid)
    }

    fn is_valid(&self) -> bool {
        let LabelScale { scale, offset } = self.label;
        self.format_version <= FORMAT_VERSION
            && self.architecture == ARCHITECTURE
            && self.input.validate().is_ok()
            && scale.is_finite()
            && scale != 0.0
            && offset.is_finite()
    }
}

/// The manifest in the file's directory, if it has the file's checksum.
fn beside(path: &Path, sha256: &str) -> Option<Manifest> {
    let path = path.with_file_name(MANIFEST_FILE);
    // Before opening: opening a pipe blocks until it has a writer.
    let is_file = fs_err::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let file = is_file.then(|| fs_err::File::open(&path).ok())??;
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST).read_to_end(&mut bytes).ok()?;
    let manifest = parse_manifest(&bytes, &path).ok()?;
    let describes_file = manifest.sha256.values().any(|found| found == sha256);
    describes_file.then_some(manifest)
}
