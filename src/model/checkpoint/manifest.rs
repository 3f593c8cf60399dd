//! The manifest of a model.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    imaging::InputSpec,
    model::{Error, calibration::Calibration},
};

/// Name of the file with the tensors in a checkpoint.
pub(crate) const MODEL_FILE: &str = "model.safetensors";
/// Name of the manifest in a checkpoint.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
/// The maximum size of a manifest. Those that Visage writes have some kilobytes.
pub(crate) const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// The newest manifest format that this program reads, and the one that it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The description of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    pub visage_version: String,
    /// Always `resnet18`.
    pub architecture: String,
    /// The training that produced it, `trainings/{id}`.
    pub training: String,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The metrics of the epoch; field names as in `EpochMetrics` of the API.
    pub metrics: serde_json::Value,
    pub input: InputSpec,
    /// [`crate::imaging::DECODER_REVISION`] of the program that decoded the training images.
    #[serde(default = "first_decoder_revision")]
    pub decoder_revision: u32,
    /// Age in years = output · scale + offset, and 0 where that is negative.
    pub label: LabelScale,
    /// Prediction intervals; absent with too few validation images.
    pub calibration: Option<Calibration>,
    pub dataset: DatasetRecord,
    /// The resolved spec of the training; field names as in the API.
    pub spec: serde_json::Value,
    /// Metrics on the test images; field names as in `Evaluation` of the API. Only in files that
    /// leave the server, which stores them elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<serde_json::Value>,
    /// SHA-256 of the other files of the checkpoint by name, in hex.
    pub sha256: BTreeMap<String, String>,
}

/// Programs that did not write a revision had revision 1.
fn first_decoder_revision() -> u32 {
    1
}

/// The linear map from outputs to ages in years.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelScale {
    pub scale: f64,
    pub offset: f64,
}

impl LabelScale {
    /// The predicted age in years, never negative.
    ///
    /// A regression has no lower bound, but an age and its interval have. Outputs that are not
    /// finite stay so, because callers report them as errors.
    pub(crate) fn age(&self, output: f64) -> f64 {
        let years = output * self.scale + self.offset;
        // `max` would turn NaN into 0 and might keep -0.
        if years.is_finite() && years <= 0.0 {
            0.0
        } else {
            years
        }
    }
}

/// The training data of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatasetRecord {
    pub path: String,
    pub digest: String,
    pub val_digest: String,
    /// Mean age of the training images in years; absent in manifests of older programs.
    #[serde(default)]
    pub mean_training_age: Option<f64>,
}

/// Reads a manifest.
///
/// # Errors
/// The manifest is missing, damaged, or from a newer program.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, Error> {
    parse_manifest(&fs_err::read(path)?, path)
}

/// Parses the bytes of a manifest; `path` is for the error only.
///
/// # Errors
/// The manifest is damaged, has a value out of range, or is from a newer program.
pub(crate) fn parse_manifest(bytes: &[u8], path: &Path) -> Result<Manifest, Error> {
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
            "format_version is {found}; this program reads versions up to {FORMAT_VERSION}; update it"
        )));
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| refuse(error.to_string()))?;
    manifest
        .input
        .validate()
        .map_err(|error| refuse(error.to_string()))?;
    let LabelScale { scale, offset } = manifest.label;
    if !scale.is_normal() || !offset.is_finite() {
        return Err(refuse(format!(
            "label must have a finite scale other than 0 and a finite offset, got scale {scale} and offset {offset}"
        )));
    }
    if let Some(calibration) = &manifest.calibration
        && !calibration.is_valid()
    {
        return Err(refuse(
            "calibration must have levels between 0 and 1 and finite half widths of at least 0"
                .to_owned(),
        ));
    }
    Ok(manifest)
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
    fn calibrations_without_a_meaning_are_refused() {
        for (field, value) in [
            ("confidence", 1.5),
            ("confidence", 0.0),
            ("half_width", -0.5),
            ("half_width", 1e300),
        ] {
            let mut bad = old();
            bad["calibration"][field] = value.into();
            let refused = read(&bad.to_string()).unwrap_err().to_string();
            assert!(refused.contains("calibration must have"), "{refused}");
        }
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
