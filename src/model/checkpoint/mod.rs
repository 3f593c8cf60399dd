//! The stored model: `model.safetensors` with torchvision's parameter names, `manifest.json`, and
//! `training-images.bin` unless the training images are unknown.
//!
//! `torchvision.models.resnet18(num_classes=1)` loads the tensors with `load_state_dict`. The
//! manifest describes the input, the output and the origin of the model. A manifest of a newer
//! format version is refused; unknown fields of this version are ignored.

mod files;
mod manifest;

pub(crate) use files::{read_model, write};
pub(crate) use manifest::{
    DatasetRecord, FORMAT_VERSION, LabelScale, MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE,
    Manifest, parse_manifest, read_manifest,
};
