//! Weights files as initial weights.

use std::path::{Path, PathBuf};

use crate::{
    artifacts,
    model::{
        Error,
        description::Description,
        layout::layout,
        weights::{Mismatch, StateDict, check_shapes, check_values, load_resnet18, without_head},
    },
};

use super::provenance::Provenance;

/// A file of initial weights may lack the head and the counters.
pub(super) const FILLABLE: Mismatch = Mismatch {
    counters: true,
    missing_head: true,
};

/// A usable weights file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightsFile {
    /// The path with the file's SHA-256, and the tensors that are used.
    pub source: String,
    /// The description of an age model; `None` for any other network.
    pub description: Option<Description>,
}

/// Checks a file for use as [`Init::Path`](super::Init::Path): reads all of it, values included.
///
/// # Errors
/// The file is missing, damaged or of another network, or has values that no training can start
/// from.
pub(crate) fn check(path: &str, key: &str) -> Result<WeightsFile, Error> {
    let (found, file, _) = read(path, key)?;
    check_shapes(&found, &layout(1), &FILLABLE)?;
    check_values(&found)?;
    Ok(file)
}

/// Reads the network in a file, without a head that has to be replaced.
pub(super) fn read(path: &str, key: &str) -> Result<(StateDict, WeightsFile, Provenance), Error> {
    let key = Some(key).filter(|key| !key.is_empty());
    let (found, sha256) = load_resnet18(Path::new(path), key)?;
    if let Some(expected) = stored_digest(Path::new(path))
        && expected != sha256
    {
        return Err(Error::Checksum {
            path: path.to_owned(),
            expected,
            found: sha256,
        });
    }
    let description = Description::find(Path::new(path), &found, &sha256);
    let provenance = Provenance {
        path: PathBuf::from(path),
        sha256: sha256.clone(),
        record: description
            .as_ref()
            .and_then(|description| description.training_images.clone()),
    };
    let mut source = format!("{path} (SHA-256 {sha256})");
    if found.place != "." {
        source += &format!(", {:?}", found.place);
    }
    if !found.prefix.is_empty() {
        source += &format!(", names without the prefix {:?}", found.prefix);
    }
    let head: Vec<String> = found
        .state
        .iter()
        .filter(|(name, _)| name.starts_with("fc."))
        .map(|(name, tensor)| format!("{name} {:?}", tensor.shape))
        .take(4)
        .collect();
    let state = without_head(found.state);
    let keeps_head = state.contains_key("fc.weight");
    if !keeps_head {
        source += "; the last layer is random";
        if !head.is_empty() {
            source += &format!(
                ", because the file has {} instead of fc.weight [1, 512]",
                head.join(", ")
            );
        }
    }
    let file = WeightsFile {
        source,
        description: description.filter(|_| keeps_head),
    };
    Ok((state, file, provenance))
}

/// The digest in the path of an artifact, as that of a model version; `None` for any other file.
fn stored_digest(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stored = artifacts::file_in(Path::new(""), name)?;
    path.ends_with(stored).then(|| name.to_owned())
}
