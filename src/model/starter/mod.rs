//! The starter: a face model built into the program, so that it predicts and trains without any
//! other file.
//!
//! This directory has it in the form of a checkpoint: `model.safetensors`, with convolutions in 16
//! bits, `manifest.json` with its training and metrics, and `training-images.bin` with hashes of
//! its training images. `deploy/tools/starter.sh` trains it and `deploy/tools/round_starter.py`
//! writes the files. Tests compare them with the manifest's SHA-256, so that no program with a
//! damaged starter is released.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{
    Error,
    checkpoint::{MANIFEST_FILE, MODEL_FILE, Manifest, parse_manifest},
    training_images::{TRAINING_IMAGES_FILE, TrainingImages},
    weights::{self, StateDict},
};

static MODEL: &[u8] = include_bytes!("model.safetensors");
static MANIFEST: &[u8] = include_bytes!("manifest.json");
static TRAINING_IMAGES: &[u8] = include_bytes!("training-images.bin");

/// Terms of its weights and of weights trained from them.
pub(crate) const TERMS: &str =
    "based on the starter, which was trained on UTKFace images, whose terms limit them to research";

/// Its files by their names in a checkpoint.
pub(crate) fn files() -> [(&'static str, &'static [u8]); 3] {
    [
        (MODEL_FILE, MODEL),
        (MANIFEST_FILE, MANIFEST),
        (TRAINING_IMAGES_FILE, TRAINING_IMAGES),
    ]
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

/// The images that it was trained on.
///
/// # Errors
/// Never: a test reads the built-in record.
pub(crate) fn training_images() -> Result<TrainingImages, Error> {
    TrainingImages::parse(TRAINING_IMAGES, &path_of(TRAINING_IMAGES_FILE))
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
        for (name, bytes) in files() {
            let digest = format!("{:x}", Sha256::digest(bytes));
            // The manifest has no digest of itself.
            let expected = manifest().sha256.get(name);
            assert!(
                expected.is_none_or(|expected| *expected == digest),
                "{name}"
            );
        }
        assert_eq!(manifest().sha256.len(), 2);
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

    /// The count is that of the training images whose bytes differ; see the model card.
    #[test]
    fn the_built_in_record_has_the_images_of_the_training() {
        let record = training_images().unwrap();
        assert_eq!(record.to_bytes(), TRAINING_IMAGES);
        assert_eq!(TRAINING_IMAGES.len(), 24 + 8 * 18_620);
    }

    /// Compares the record with the images themselves, which are not part of the repository.
    #[test]
    fn the_built_in_record_is_that_of_the_training_images_where_these_are_available() {
        let Some(directory) = utkface() else {
            #[expect(clippy::print_stderr, reason = "the reason of a skipped test")]
            {
                eprintln!("skipped: no directory shared/data/utkface beside the repository");
            }
            return;
        };
        let hashes = |split: &str| {
            let files = fs_err::read_dir(directory.join(split)).unwrap();
            let hash = |file: std::io::Result<fs_err::DirEntry>| {
                let bytes = fs_err::read(file.unwrap().path()).unwrap();
                <[u8; 32]>::from(Sha256::digest(bytes))
            };
            files.map(hash).collect::<Vec<_>>()
        };
        let (train, validation) = (hashes("train"), hashes("val"));
        assert_eq!((train.len(), validation.len()), (18_928, 2_344));
        let record = training_images().unwrap();
        assert_eq!(TrainingImages::of(&train), record);
        assert_eq!(record.count(&validation), 0);
    }

    fn utkface() -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = root.parent()?.join("shared/data/utkface");
        directory.is_dir().then_some(directory)
    }
}
