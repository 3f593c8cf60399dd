//! Finds torchvision's ImageNet weights of ResNet18: in the weights directories, in torch's and the hub's caches, on the hub.

use std::path::{Path, PathBuf};

use super::hub::{self, HubError, HubOptions};
use super::shapes::{Mismatch, check_shapes, resnet18_shapes};
use super::{Error, Source, StateDict, load};

/// SHA-256 of torchvision's `resnet18-f37072fd.pth` (46,830,571 bytes).
pub const TORCHVISION_SHA256: &str =
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec";
/// SHA-256 of `model.safetensors` (46,807,446 bytes) in the hub's `timm/resnet18.tv_in1k`: the same weights.
pub const TIMM_SHA256: &str = "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81";

/// The name under which torchvision publishes and caches the weights.
pub(super) const TORCHVISION_FILE: &str = "resnet18-f37072fd.pth";
/// Names looked for in each weights directory, in this order.
const LOCAL_FILES: [&str; 3] = [
    TORCHVISION_FILE,
    "resnet18.safetensors",
    "model.safetensors",
];
const IMAGENET_CLASSES: usize = 1000;

/// ResNet18's `IMAGENET1K_V1` weights with the head of 1000 classes, and where they were found.
///
/// Looks in this order for `resnet18-f37072fd.pth`, `resnet18.safetensors` or `model.safetensors` in each of
/// `weights_dirs`, for torchvision's download below `hub.torch_home`, and for timm's file in the hub's cache; then
/// downloads it into that cache. The first file found is used or is the error: one that is damaged is not passed over.
/// The exception is the hub's cache, whose file is fetched again.
///
/// Blocks on the disk and the network, so it belongs on a thread of its own.
///
/// # Errors
/// A file found is unreadable, damaged or of another model; or there is none and [`Error::Unavailable`] says why the
/// download failed and which file to put where.
pub fn imagenet(weights_dirs: &[PathBuf], hub: &HubOptions) -> Result<(StateDict, Source), Error> {
    for dir in weights_dirs {
        for name in LOCAL_FILES {
            let path = dir.join(name);
            if path.is_file() {
                return resnet18(&path, format!("{name} from a weights directory"));
            }
        }
    }
    if let Some(home) = &hub.torch_home {
        let path = home.join("hub/checkpoints").join(TORCHVISION_FILE);
        if path.is_file() {
            return resnet18(&path, format!("{TORCHVISION_FILE} from torch's cache"));
        }
    }
    from_hub(hub).map_err(|error| match error {
        FromHub::Weights(error) => error,
        FromHub::Hub(reason) => Error::Unavailable {
            reason,
            place: weights_dirs.first().map_or_else(
                || "a weights directory".to_owned(),
                |dir| dir.display().to_string(),
            ),
        },
    })
}

/// The two kinds of failure on the hub's path: of the file, or of getting it.
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
                tracing::warn!(%error, "weights in the hub's cache are unusable, fetching them again")
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

/// Reads a file and checks that it holds ResNet18 with 1000 outputs.
fn resnet18(path: &Path, description: String) -> Result<(StateDict, Source), Error> {
    let (state, sha256) = load(path)?;
    // Files from before torch 0.4.1, this one's ancestor among them, have no batch counters.
    let allow = Mismatch {
        counters: true,
        missing_head: false,
    };
    if let Err(error) = check_shapes(&state, &resnet18_shapes(IMAGENET_CLASSES), &allow) {
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
