//! The starter: a face model that is part of this program, so that one file trains and predicts without any other and without a network.
//!
//! `src/model/starter` holds it as a checkpoint does: `model.safetensors`, with the convolutions in 16 bits, and `manifest.json`, which says what it was
//! trained on and how well it does. [`write()`] makes both of the files of an ordinary training. A test compares the tensors with the manifest's SHA-256, so
//! that a program with a damaged starter is never built.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::{
    checkpoint::{self, MANIFEST_FILE, MODEL_FILE, Manifest},
    description::Description,
    init,
    precision::Precision,
    resnet18::{Mode, ResNet18, TrainableFrom},
    weights::{self, DType, StateDict, TensorData},
};
use crate::{
    files,
    imaging::{self, InputSpec, Limits},
    model,
};

/// The tensors, in the safetensors format.
static MODEL: &[u8] = include_bytes!("model.safetensors");
/// The description.
static MANIFEST: &[u8] = include_bytes!("manifest.json");

/// The most that a prediction may change by the rounding to 16 bits, in years.
pub const MAX_CHANGE: f64 = 0.05;

/// Why a model does not become a starter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image could not be prepared.
    #[error("{path}: {source}")]
    Image {
        /// The file.
        path: String,
        /// Why not.
        source: imaging::Error,
    },
    /// The rounding changes what the model predicts.
    #[error(
        "in 16 bits the age of {path} changes by {change:.4} years, and less than {MAX_CHANGE} is allowed: these weights do not bear the rounding"
    )]
    Rounding {
        /// The image.
        path: String,
        /// By how much, in years.
        change: f64,
    },
    /// The tensors are not the network's, or a file could not be read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
}

/// Its files by their names in a checkpoint.
pub fn files() -> [(&'static str, &'static [u8]); 2] {
    [(MODEL_FILE, MODEL), (MANIFEST_FILE, MANIFEST)]
}

/// Its description.
///
/// # Panics
/// Never: a test reads what is built in.
pub fn manifest() -> &'static Manifest {
    static PARSED: LazyLock<Manifest> = LazyLock::new(|| {
        checkpoint::parse_manifest(MANIFEST, &path_of(MANIFEST_FILE))
            .expect("a test reads the manifest that is built in")
    });
    &PARSED
}

/// SHA-256 of its tensors in hex.
///
/// # Panics
/// Never: a test compares the manifest with what is built in.
pub fn sha256() -> &'static str {
    &manifest().sha256[MODEL_FILE]
}

/// Its tensors, head included.
///
/// # Errors
/// Never: a test reads what is built in.
pub fn state() -> Result<StateDict, model::Error> {
    Ok(weights::parse(MODEL, &path_of(MODEL_FILE))?)
}

fn path_of(file: &str) -> PathBuf {
    Path::new("src/model/starter").join(file)
}

/// A model to make a starter of.
#[derive(Debug)]
pub struct Original<'a> {
    /// Its tensors, as `weights::read` gives them.
    pub state: &'a StateDict,
    /// Its description.
    pub manifest: Manifest,
    /// How it does on test images, field names as in `Evaluation` of the API.
    pub test: Option<Value>,
}

/// What was written, and what the rounding did.
#[derive(Debug)]
pub struct Rounded {
    /// Bytes of both files.
    pub size: u64,
    /// The largest change of an age in years.
    pub change: f64,
}

/// Writes a model's two files as a starter into the directory: the weights of convolutions in 16 bits, everything else as it is, and a manifest without the
/// names of directories and images.
///
/// # Errors
/// Images that cannot be read; a prediction on one of them that the rounding changes by [`MAX_CHANGE`] or more, and then nothing is written; a failure of the
/// file system.
pub fn write(
    directory: &Path,
    original: Original<'_>,
    images: &[PathBuf],
    limits: &Limits,
) -> Result<Rounded, Error> {
    let description = Description::of(&original.manifest).to_json();
    let description = description.map_err(model::Error::from)?;
    let bytes = serialize(original.state, description)?;
    let rounded =
        weights::parse(&bytes, &directory.join(MODEL_FILE)).map_err(model::Error::from)?;
    let change = check(original.state, &rounded, &original.manifest, images, limits)?;
    let mut manifest = without_names(original.manifest, original.test);
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    manifest.sha256 = BTreeMap::from([(MODEL_FILE.to_owned(), sha256)]);
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(io_error)?;
    text.push(b'\n');
    fs_err::create_dir_all(directory).map_err(model::Error::from)?;
    // The description last, so that one that is there describes tensors that are there.
    for (name, bytes) in [(MODEL_FILE, &bytes), (MANIFEST_FILE, &text)] {
        files::write_atomic_with(&directory.join(name), |aside| fs_err::write(aside, bytes))
            .map_err(model::Error::from)?;
    }
    let size = (bytes.len() + text.len()) as u64;
    Ok(Rounded { size, change })
}

/// The largest change of an age on the images in years.
fn check(
    before: &StateDict,
    after: &StateDict,
    manifest: &Manifest,
    images: &[PathBuf],
    limits: &Limits,
) -> Result<f64, Error> {
    let network = |state| -> Result<ResNet18, model::Error> {
        ResNet18::new(&init::exact(state)?, TrainableFrom::DEFAULT, Precision::F32)
    };
    let networks = [network(before)?, network(after)?];
    let mut largest = 0.0;
    for path in images {
        let pixels = prepare(path, &manifest.input, limits)?;
        let side = i64::from(manifest.input.size);
        let [before, after] = networks.each_ref().map(|network| {
            tch::no_grad(|| {
                let image = Tensor::f_from_slice(&pixels)?.f_view([1, 3, side, side])?;
                let age = f64::try_from(network.forward(&image, Mode::Eval)?)?;
                Ok::<_, model::Error>(age * manifest.label.scale + manifest.label.offset)
            })
        });
        let change = (after? - before?).abs();
        // What is no number is no small change.
        let is_small = change < MAX_CHANGE;
        if !is_small {
            return Err(Error::Rounding {
                path: path.display().to_string(),
                change,
            });
        }
        largest = f64::max(largest, change);
    }
    Ok(largest)
}

fn prepare(path: &Path, input: &InputSpec, limits: &Limits) -> Result<Vec<f32>, Error> {
    let bytes = fs_err::read(path).map_err(model::Error::from)?;
    let mut pixels = vec![0.0; input.values()];
    imaging::preprocess(&bytes, limits, input, &mut pixels).map_err(|source| Error::Image {
        path: path.display().to_string(),
        source,
    })?;
    Ok(pixels)
}

/// The safetensors file with the weights of convolutions in IEEE half precision, which rounds eight times finer than bfloat16 does and holds every weight
/// below 65,504. BatchNorms and the head are small, and their errors would be those of whole channels and ages: they stay in 32 bits.
fn serialize(state: &StateDict, description: String) -> Result<Vec<u8>, model::Error> {
    let tensors: BTreeMap<&str, (Dtype, &[usize], Vec<u8>)> = state
        .iter()
        .map(|(name, tensor)| (name.as_str(), rounded(tensor)))
        .collect();
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.to_vec(), bytes);
        (*name, view.expect("the bytes were made for this shape"))
    });
    safetensors::serialize(views, Some(weights::metadata(description))).map_err(io_error)
}

fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> model::Error {
    std::io::Error::other(error).into()
}

fn rounded(tensor: &TensorData) -> (Dtype, &[usize], Vec<u8>) {
    let is_convolution = tensor.shape.len() == 4;
    let (dtype, bytes) = if tensor.dtype == DType::I64 {
        (Dtype::I64, tensor.data.clone())
    } else if is_convolution {
        let halves = tensor.to_f32().into_iter().map(f16::from_f32);
        (Dtype::F16, halves.flat_map(f16::to_le_bytes).collect())
    } else {
        let floats = tensor.to_f32().into_iter();
        (Dtype::F32, floats.flat_map(f32::to_le_bytes).collect())
    };
    (dtype, &tensor.shape, bytes)
}

/// The manifest for elsewhere: directories keep their last name only, and single images are not told of.
fn without_names(mut manifest: Manifest, test: Option<Value>) -> Manifest {
    manifest.dataset.path = last_name(&manifest.dataset.path);
    for part in ["dataset", "init"] {
        if let Some(Value::String(path)) = manifest.spec.pointer_mut(&format!("/{part}/path")) {
            *path = last_name(path);
        }
    }
    manifest.test = test.map(|mut test| {
        if let Some(images) = test.get_mut("worst_predictions") {
            *images = Value::Array(Vec::new());
        }
        test
    });
    manifest
}

fn last_name(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::resnet18::layout,
        proto::{self, v1},
    };

    /// The most that the tensors may add to the program, in bytes.
    const MAX_BYTES: usize = 23_000_000;

    #[test]
    fn what_is_built_in_is_what_its_manifest_says() {
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
    fn it_is_the_whole_network_with_numbers_in_it() {
        let state = state().unwrap();
        assert_eq!(init::exact(&state).unwrap().len(), layout(1).len());
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

    /// A network of zeros but for the first convolution, whose values and the head's bias are given.
    fn zeros(weight: f32, bias: f32) -> StateDict {
        let entry = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let value = match name.as_str() {
                "conv1.weight" => weight,
                "fc.bias" => bias,
                _ if name.ends_with("running_var") => 1.0,
                _ => 0.0,
            };
            let is_count = name.ends_with("num_batches_tracked");
            let tensor = TensorData {
                dtype: if is_count { DType::I64 } else { DType::F32 },
                shape,
                data: match is_count {
                    true => vec![0; 8],
                    false => value.to_le_bytes().repeat(count),
                },
            };
            (name, tensor)
        };
        layout(1).into_iter().map(entry).collect()
    }

    fn description() -> Manifest {
        let mut manifest = manifest().clone();
        manifest.dataset.path = "/home/someone/faces".to_owned();
        manifest.spec = serde_json::json!({
            "dataset": {"path": "/home/someone/faces"},
            "init": {"kind": "INIT_KIND_PATH", "path": "/home/someone/resnet18.pth"},
        });
        manifest
    }

    fn image(directory: &Path) -> PathBuf {
        let path = directory.join("grey.png");
        image::RgbImage::from_pixel(40, 40, image::Rgb([90, 120, 60]))
            .save(&path)
            .unwrap();
        path
    }

    #[test]
    fn convolutions_are_rounded_to_half_precision_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let images = [image(directory.path())];
        // 0.1 in half precision is 0.0999755859375; 31.3 would be 31.296875.
        let state = zeros(0.1, 31.3);
        let original = Original {
            state: &state,
            manifest: description(),
            test: Some(
                serde_json::json!({"mae": 4.5, "worst_predictions": [{"file": "34_me.jpg"}]}),
            ),
        };
        let target = directory.path().join("starter");
        let rounded = write(&target, original, &images, &Limits::default()).unwrap();
        // All of the BatchNorms are zero, so the convolution says nothing.
        assert_eq!(rounded.change, 0.0);
        let written = checkpoint::read_manifest(&target.join(MANIFEST_FILE)).unwrap();
        let state =
            checkpoint::read_model(&target.join(MODEL_FILE), &written.sha256[MODEL_FILE]).unwrap();
        assert_eq!(
            state["conv1.weight"].double_value(&[63, 2, 6, 6]),
            0.0999755859375
        );
        assert_eq!(state["fc.bias"].double_value(&[0]) as f32, 31.3);
        assert_eq!(written.dataset.path, "faces");
        assert_eq!(written.spec["dataset"]["path"], "faces");
        assert_eq!(written.spec["init"]["path"], "resnet18.pth");
        let test = serde_json::json!({"mae": 4.5, "worst_predictions": []});
        assert_eq!(written.test, Some(test));
        assert_eq!(written.calibration, manifest().calibration);
    }

    #[test]
    fn weights_that_do_not_bear_the_rounding_are_refused_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let images = [image(directory.path())];
        // Above 65,504, the largest half.
        let state = zeros(70_000.0, 30.0);
        let original = Original {
            state: &state,
            manifest: description(),
            test: None,
        };
        let target = directory.path().join("starter");
        let refused = write(&target, original, &images, &Limits::default()).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("grey.png") && text.contains("less than 0.05"),
            "{text}"
        );
        assert!(!target.exists());
    }
}
