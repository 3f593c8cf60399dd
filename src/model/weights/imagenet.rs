//! Finds torchvision's ImageNet weights of ResNet18, in the weights directories, in the caches of
//! torch and the hub, or on the hub.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Error, StateDict,
    hub::{self, HubError, HubOptions},
    published::TORCHVISION_FILE,
    read::load,
    shapes::{Mismatch, check_shapes},
};
use crate::model::layout::layout;

/// Names looked for in each weights directory, in this order.
const LOCAL_FILES: [&str; 3] = [
    TORCHVISION_FILE,
    "resnet18.safetensors",
    "model.safetensors",
];
const IMAGENET_CLASSES: usize = 1000;

/// The origin of a set of weights, for logs and the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// For example "torchvision's resnet18-f37072fd.pth from a weights directory".
    pub description: String,
    pub path: PathBuf,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Finds ResNet18's `IMAGENET1K_V1` weights with the head of 1000 classes.
///
/// Searches in this order: `resnet18-f37072fd.pth`, `resnet18.safetensors` or `model.safetensors`
/// in each of `weights_dirs`, torchvision's download below `hub.torch_home`, and timm's file in the
/// hub's cache; then downloads timm's file into that cache. The first file is used, and an error if
/// damaged, except that a damaged file in the hub's cache is downloaded again.
///
/// Blocks on disk and network, so call it on a thread of its own.
///
/// # Errors
/// The file is unreadable, damaged or of another model; or [`Error::Unavailable`] if there is no
/// file and the download failed.
pub(crate) fn imagenet(
    weights_dirs: &[PathBuf],
    hub: &HubOptions,
) -> Result<(StateDict, Source), Error> {
    if let Some((path, description)) = local_file(weights_dirs, hub) {
        return resnet18(&path, description);
    }
    from_hub(hub).map_err(|error| match error {
        FromHub::Weights(error) => error,
        FromHub::Hub(reason) => unavailable(weights_dirs, reason),
    })
}

/// Checks that [`imagenet`] would find a file on this machine or on the hub, which is asked without
/// a download and has to respond within `timeout`. Does not read the file.
///
/// Blocks on disk and network, so call it on a thread of its own.
///
/// # Errors
/// [`Error::Unavailable`].
pub(crate) fn check_available(
    weights_dirs: &[PathBuf],
    hub: &HubOptions,
    timeout: Duration,
) -> Result<(), Error> {
    if local_file(weights_dirs, hub).is_some() || hub::cached(hub).is_some() {
        return Ok(());
    }
    hub::probe(hub, timeout).map_err(|reason| unavailable(weights_dirs, reason))
}

fn unavailable(weights_dirs: &[PathBuf], reason: HubError) -> Error {
    Error::Unavailable {
        reason,
        place: weights_dirs.first().map_or_else(
            || "a weights directory".to_owned(),
            |dir| dir.display().to_string(),
        ),
    }
}

/// Returns the first file in the weights directories or in torch's cache, with its description.
fn local_file(weights_dirs: &[PathBuf], hub: &HubOptions) -> Option<(PathBuf, String)> {
    for dir in weights_dirs {
        for name in LOCAL_FILES {
            let path = dir.join(name);
            if path.is_file() {
                return Some((path, format!("{name} from a weights directory")));
            }
        }
    }
    let home = hub.torch_home.as_ref()?;
    let path = home.join("hub/checkpoints").join(TORCHVISION_FILE);
    path.is_file()
        .then(|| (path, format!("{TORCHVISION_FILE} from torch's cache")))
}

/// A failure of the file, or of the download.
enum FromHub {
    Weights(Error),
    Hub(HubError),
}

fn from_hub(hub: &HubOptions) -> Result<(StateDict, Source), FromHub> {
    if let Some(path) = hub::cached(hub) {
        match cached_weights(&path, hub) {
            Ok(found) => return Ok(found),
            Err(error) if hub.offline => return Err(FromHub::Weights(error)),
            Err(error) => {
                tracing::warn!(%error, "weights in the hub's cache are unusable; downloading them again")
            }
        }
    }
    let path = hub::download(hub).map_err(FromHub::Hub)?;
    resnet18(&path, format!("{} from the Hugging Face hub", hub::NAME)).map_err(FromHub::Weights)
}

fn cached_weights(path: &Path, hub: &HubOptions) -> Result<(StateDict, Source), Error> {
    let (state, source) = resnet18(path, format!("{} from the hub's cache", hub::NAME))?;
    match &hub.expected_sha256 {
        Some(expected) if !expected.eq_ignore_ascii_case(&source.sha256) => Err(Error::Digest {
            path: source.path,
            expected: expected.clone(),
            found: source.sha256,
        }),
        Some(_) | None => Ok((state, source)),
    }
}

/// Reads a file and checks that it is a ResNet18 with 1000 outputs.
fn resnet18(path: &Path, description: String) -> Result<(StateDict, Source), Error> {
    let (state, sha256) = load(path)?;
    // Files from before torch 0.4.1 lack batch counters.
    let allow = Mismatch {
        counters: true,
        missing_head: false,
    };
    if let Err(error) = check_shapes(&state, &layout(IMAGENET_CLASSES), &allow) {
        return Err(Error::Misfit {
            path: path.to_owned(),
            reason: Box::new(error),
        });
    }
    let source = Source {
        description,
        path: path.to_owned(),
        sha256,
    };
    tracing::info!(path = %source.path.display(), sha256 = source.sha256, "loaded ImageNet weights");
    Ok((state, source))
}
