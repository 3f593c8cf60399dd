//! The part of a manifest that travels within a file of weights, so that one file is enough to continue from a model.
//!
//! A safetensors file has it in its metadata, a `.pth` file in an entry of its own; other programs ignore both.

use std::{io::Read as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{self, FORMAT_VERSION, LabelScale, MANIFEST_FILE, Manifest},
    starter,
    weights::Found,
};
use crate::imaging::InputSpec;

/// A manifest with a long spec and all levels of calibration has 10 KiB.
const MAX_MANIFEST: u64 = 1 << 20;
/// The architecture of every model.
pub const ARCHITECTURE: &str = "resnet18";

/// How to use a model's tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// The network: always [`ARCHITECTURE`].
    pub architecture: String,
    /// How an image becomes the network's input.
    pub input: InputSpec,
    /// How an output becomes an age.
    pub label: LabelScale,
}

impl Description {
    /// The part of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        Description {
            format_version: manifest.format_version,
            architecture: manifest.architecture.clone(),
            input: manifest.input.clone(),
            label: manifest.label,
        }
    }

    /// As text for a file.
    ///
    /// # Errors
    /// Never for what a manifest can hold; a number that JSON cannot express.
    pub fn to_json(&self) -> Result<String, std::io::Error> {
        serde_json::to_string(self).map_err(std::io::Error::other)
    }

    /// The description of the model in a file: the file's own, that of a manifest beside it, or the starter's. `None` where
    /// none of them describes these very tensors in a way that this program understands.
    pub fn find(path: &Path, found: &Found, sha256: &str) -> Option<Self> {
        let own = found.description.as_deref();
        let own = own.and_then(|text| serde_json::from_str::<Self>(text).ok());
        let described = own
            .or_else(|| beside(path, sha256).as_ref().map(Self::of))
            .or_else(|| (sha256 == starter::sha256()).then(|| Self::of(starter::manifest())));
        described.filter(Self::is_understood)
    }

    fn is_understood(&self) -> bool {
        let LabelScale { scale, offset } = self.label;
        self.format_version <= FORMAT_VERSION
            && self.architecture == ARCHITECTURE
            && self.input.validate().is_ok()
            && scale.is_finite()
            && scale != 0.0
            && offset.is_finite()
    }
}

/// The manifest in the file's directory, where it has the file's checksum.
fn beside(path: &Path, sha256: &str) -> Option<Manifest> {
    let path = path.with_file_name(MANIFEST_FILE);
    // Before it is opened: to open a pipe waits for its writer.
    let is_file = fs_err::metadata(&path).is_ok_and(|metadata| metadata.is_file());
    let file = is_file.then(|| fs_err::File::open(&path).ok())??;
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST).read_to_end(&mut bytes).ok()?;
    let manifest = checkpoint::parse_manifest(&bytes, &path).ok()?;
    let is_of_it = manifest.sha256.values().any(|found| found == sha256);
    is_of_it.then_some(manifest)
}
