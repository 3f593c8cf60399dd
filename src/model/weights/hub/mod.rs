//! Downloads timm's copy of torchvision's ResNet18 weights from the Hugging Face hub.
//!
//! The file is stored in the hub's own cache layout, so that Python's `timm` and this program share
//! one download. Bytes go to a temporary file that every failure removes; only a file with the
//! right SHA-256 is synced and renamed into place.

mod cache;
mod download;
mod error;
mod options;
mod probe;

pub(super) use cache::cached;
pub(super) use download::download;
pub(crate) use error::HubError;
pub(crate) use options::HubOptions;
pub(super) use options::NAME;
pub(super) use probe::probe;
