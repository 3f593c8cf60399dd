//! What Visage writes to disk and reads back: `model.safetensors` with torchvision's parameter names, and `manifest.json` beside it.
//!
//! `torchvision.models.resnet18(num_classes=1)` loads the tensors with `load_state_dict`; the manifest says how to prepare an image for them and
//! where they come from. A manifest of a newer format version is refused; unknown fields of this version are ignored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{Error, calibration::Calibration, description::Description, init, weights};
use crate::{files, imaging::InputSpec};

/// Name of the file with the tensors.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the file with the description.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The manifests that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The description beside the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Version of that program.
    pub visage_version: String,
    /// The network: always `resnet18`.
    pub architecture: String,
    /// The training it comes from, `trainings/{id}`.
    pub training: String,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The epoch's figures, field names as in `EpochMetrics` of the API.
    pub metrics: serde_json::Value,
    /// How an image becomes the network's input.
    pub input: InputSpec,
    /// [`crate::imaging::DECODER_REVISION`] of the program that decoded the training images.
    #[serde(default = "first_decoder_revision")]
    pub decoder_revision: u32,
    /// How an output becomes an age: age = output · scale + offset in years, and 0 where that is negative.
    pub label: LabelScale,
    /// For prediction intervals; absent with too few validation images.
    pub calibration: Option<Calibration>,
    /// Which data it was trained on.
    pub dataset: DatasetRecord,
    /// The training's spec with every default filled in, field names as in the API.
    pub spec: serde_json::Value,
    /// How it does on the training's test images, field names as in `Evaluation` of the API; in files alone that leave the server that has the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<serde_json::Value>,
    /// SHA-256 of the files beside it, in hex.
    pub sha256: BTreeMap<String, String>,
}

/// Programs that did not write the revision had the first.
fn first_decoder_revision() -> u32 {
    1
}

/// How an output becomes an age in years.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelScale {
    /// Factor.
    pub scale: f64,
    /// Added after it.
    pub offset: f64,
}

impl LabelScale {
    /// The age in years that an output of the network predicts: never negative.
    ///
    /// A regression has no lower bound, but an age has one, and prediction intervals start there. Outputs that are not finite stay so, because callers report
    /// them as errors.
    pub fn age(&self, output: f64) -> f64 {
        let years = output * self.scale + self.offset;
        // Not `max`, which would turn NaN into 0 and might keep -0.
        if years.is_finite() && years <= 0.0 {
            0.0
        } else {
            years
        }
    }
}

/// Which data a model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// Where it lay.
    pub path: String,
    /// Digest of the whole.
    pub digest: String,
    /// Digest of the validation images.
    pub val_digest: String,
    /// Mean age of the training images in years; older programs did not write it.
    #[serde(default)]
    pub mean_training_age: Option<f64>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its name in the checkpoint.
    pub name: &'static str,
    /// Where it lies.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Writes both files durably into the directory, which is made if need be; fills in the manifest's checksums.
///
/// # Errors
/// A full disk or another failure of the file system; libtorch's lack of memory.
pub fn write(
    directory: &Path,
    state: &BTreeMap<String, Tensor>,
    mut manifest: Manifest,
) -> Result<Vec<WrittenFile>, Error> {
    fs_err::create_dir_all(directory)?;
    let description = Description::of(&manifest).to_json()?;
    let model = write_file(directory, MODEL_FILE, &serialize(state, description)?)?;
    manifest.sha256 = BTreeMap::from([(MODEL_FILE.to_owned(), model.sha256.clone())]);
    let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::other)?;
    let manifest = write_file(directory, MANIFEST_FILE, &text)?;
    Ok(vec![model, manifest])
}

/// Reads a manifest.
///
/// # Errors
/// When it is missing, broken, or from a newer program.
pub fn read_manifest(path: &Path) -> Result<Manifest, Error> {
    parse_manifest(&fs_err::read(path)?, path)
}

/// Reads the bytes of a manifest; `path` is for the error alone.
///
/// # Errors
/// When it is broken, or from a newer program.
pub fn parse_manifest(bytes: &[u8], path: &Path) -> Result<Manifest, Error> {
    let refuse = |reason: String| Error::Manifest {
        path: path.display().to_string(),
        reason,
    };
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    let version = value
        .get("format_version")
        .and_then(serde_json::Value::as_u64);
    if version.is_none_or(|version| version > u64::from(FORMAT_VERSION)) {
        let found = version.map_or("missing".to_owned(), |version| version.to_string());
        return Err(refuse(format!(
            "format_version is {found}; this program reads versions up to {FORMAT_VERSION}, so update it"
        )));
    }
    serde_json::from_value(value).map_err(|error| refuse(error.to_string()))
}

/// Reads the tensors to the CPU, as f32, with checksum, names and shapes checked.
///
/// # Errors
/// When the file is missing, damaged, or of another network.
pub fn read_model(path: &Path, sha256: &str) -> Result<BTreeMap<String, Tensor>, Error> {
    let bytes = fs_err::read(path)?;
    let found = format!("{:x}", Sha256::digest(&bytes));
    if found != sha256 {
        return Err(Error::Checksum {
            path: path.display().to_string(),
            expected: sha256.to_owned(),
            found,
        });
    }
    init::exact(&weights::parse(&bytes, path)?)
}

fn write_file(directory: &Path, name: &'static str, bytes: &[u8]) -> Result<WrittenFile, Error> {
    let path = directory.join(name);
    files::write_atomic(&path, bytes)?;
    Ok(WrittenFile {
        name,
        path,
        size: bytes.len() as u64,
        sha256: format!("{:x}", Sha256::digest(bytes)),
    })
}

/// The tensors in the safetensors format, parameters in f32 and counts in i64, with the description of the model.
fn serialize(state: &BTreeMap<String, Tensor>, description: String) -> Result<Vec<u8>, Error> {
    let mut entries = Vec::with_capacity(state.len());
    for (name, tensor) in state {
        let (kind, dtype, width) = if tensor.kind() == Kind::Int64 {
            (Kind::Int64, Dtype::I64, 8)
        } else {
            (Kind::Float, Dtype::F32, 4)
        };
        let tensor = tensor
            .f_detach()?
            .f_to_device(tch::Device::Cpu)?
            .f_to_kind(kind)?
            .f_contiguous()?;
        let shape: Vec<usize> = tensor.size().iter().map(|side| *side as usize).collect();
        let count = shape.iter().product::<usize>();
        let mut bytes = vec![0; count * width];
        tensor.f_copy_data_u8(&mut bytes, count)?;
        entries.push((name.as_str(), dtype, shape, bytes));
    }
    let views = entries.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (*name, view.expect("the bytes were made for this shape"))
    });
    let metadata = Some(weights::metadata(description));
    safetensors::serialize(views, metadata).map_err(|error| std::io::Error::other(error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first programs wrote it: no levels, no mean age, no revision of the decoder.
    const OLD: &str = r#"{
        "format_version": 1, "visage_version": "0.1.0", "architecture": "resnet18", "training": "trainings/t", "epoch": 3, "metrics": {},
        "input": null,
        "label": {"scale": 1.0, "offset": 0.0},
        "calibration": {"confidence": 0.9, "half_width": 7.5, "images": 40},
        "dataset": {"path": "/faces", "digest": "aa", "val_digest": "bb"}, "spec": {}, "sha256": {}
    }"#;

    fn old() -> serde_json::Value {
        let mut old: serde_json::Value = serde_json::from_str(OLD).unwrap();
        old["input"] = serde_json::to_value(InputSpec::default()).unwrap();
        old
    }

    fn read(text: &str) -> Result<Manifest, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(MANIFEST_FILE);
        fs_err::write(&path, text).unwrap();
        read_manifest(&path)
    }

    #[test]
    fn an_age_is_never_negative_and_an_output_that_is_not_finite_stays_so() {
        let label = LabelScale {
            scale: 2.0,
            offset: 1.0,
        };
        let ages = [3.0, -0.25, -0.5, -4.5, -1e30].map(|output| label.age(output));
        assert_eq!(ages, [7.0, 0.5, 0.0, 0.0, 0.0]);
        assert!(label.age(-4.5).is_sign_positive());
        let minus_zero = LabelScale {
            scale: 1.0,
            offset: -0.0,
        };
        assert!(minus_zero.age(-0.0).is_sign_positive());
        assert!(label.age(f64::NAN).is_nan());
        assert_eq!(label.age(f64::INFINITY), f64::INFINITY);
        assert_eq!(label.age(f64::NEG_INFINITY), f64::NEG_INFINITY);
    }

    #[test]
    fn a_manifest_of_an_older_program_is_read() {
        let manifest = read(&old().to_string()).unwrap();
        assert_eq!(manifest.dataset.mean_training_age, None);
        assert_eq!(manifest.decoder_revision, 1);
        let calibration = manifest.calibration.unwrap();
        assert_eq!(calibration.level_for(0.9), Some(0.9));
        assert_eq!(calibration.half_width(0.9, 70.0), Some(7.5));
    }

    #[test]
    fn unknown_fields_are_ignored_and_newer_formats_refused() {
        let mut newer = old();
        newer["calibration"]["shape"] = "heteroscedastic".into();
        newer["dataset"]["licence"] = "CC0".into();
        assert!(read(&newer.to_string()).is_ok());
        newer["format_version"] = 2.into();
        let refused = read(&newer.to_string()).unwrap_err().to_string();
        assert!(refused.contains("format_version is 2"), "{refused}");
    }
}
