//! The starter: a face model built into the program, so that it predicts and trains without any
//! other file.
//!
//! This directory has it in the form of a checkpoint: `model.safetensors`, with convolutions in 16
//! bits, and `manifest.json` with its training and metrics. `deploy/tools/starter.sh` trains it and
//! `deploy/tools/round_starter.py` writes the files. Tests compare the tensors with the manifest's
//! SHA-256, so that no program with a damaged starter is released.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{
    Error,
    checkpoint::{MANIFEST_FILE, MODEL_FILE, Manifest, parse_manifest},
    weights::{self, StateDict},
};

static MODEL: &[u8] = include_bytes!("model.safetensors");
static MANIFEST: &[u8] = include_bytes!("manifest.json");

/// Terms of its weights and of weights trained from them.
pub(crate) const TERMS: &str =
    "based on the starter, which was trained on UTKFace images, whose terms limit them to research";

/// Its files by their names in a checkpoint.
pub(crate) fn files() -> [(&'static str, &'static [u8]); 2] {
    [(MODEL_FILE, MODEL), (MANIFEST_FILE, MANIFEST)]
}

/// # Panics
/// Never: a test reads the built-in manifest.
pub(crate) fn manifest() -> &'static Manifest {
    static PARSED: LazyLock<Manifest> = LazyLock::new(|| {
        parse_manifest(MANIFEST, &path_of(MANIFEST_FILE))
            .expect("a test reads the built-in manifest")
    });
    &PARSED
}

/// SHA-256 of its tensors in hex.
///
/// # Panics
/// Never: a test compares it with the built-in tensors.
pub(crate) fn sha256() -> &'static str {
    &manifest().sha256[MODEL_FILE]
}

/// Its tensors, head included.
///
/// # Errors
/// Never: a test reads the built-in tensors.
pub(crate) fn state() -> Result<StateDict, Error> {
    Ok(weights::parse(MODEL, &path_of(MODEL_FILE))?)
}

fn path_of(file: &str) -> PathBuf {
    Path::new("src/model/starter").join(file)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        model::{layout::layout, tensors, weights::DType},
        proto::{self, v1},
    };

    /// The most that the tensors may add to the program, in bytes.
    const MAX_BYTES: usize = 23_000_000;

    #[test]
    fn the_built_in_tensors_match_their_manifest() {
        assert_eq!(format!("{:x}", Sha256::digest(MODEL)), sha256());
        assert!(MODEL.len() <= MAX_BYTES, "{} bytes", MODEL.len());
        let manifest = manifest();
        manifest.input.validate().unwrap();
        proto::from_json::<v1::EpochMetrics>(&manifest.metrics).unwrap();
        proto::from_json::<v1::TrainingSpec>(&manifest.spec).unwrap();
        if let Some(test) = &manifest.test {
            let test = proto::from_json::<v1::Evaluation>(test).unwrap();
            assert_eq!(test.worst_predictions, []);
        }
        for path in [
            &manifest.dataset.path,
            &manifest.spec["dataset"]["path"].to_string(),
        ] {
            assert!(!path.contains('/'), "{path} is a path of another machine");
        }
    }

    #[test]
    fn the_built_in_tensors_are_a_whole_network_of_finite_values() {
        let state = state().unwrap();
        assert_eq!(tensors::exact(&state).unwrap().len(), layout(1).len());
        for (name, tensor) in &state {
            let expected = match tensor.shape.len() {
                4 => DType::F16,
                0 => DType::I64,
                _ => DType::F32,
            };
            assert_eq!(tensor.dtype, expected, "{name}");
            let is_finite = tensor.to_f32().iter().all(|value| value.is_finite());
            assert!(is_finite, "{name}");
        }
    }
}
