use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use fs_err as fs;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    imaging::InputSpec,
    model::{
        Error,
        checkpoint::{FORMAT_VERSION, LabelScale, MANIFEST_FILE},
        description::{ARCHITECTURE, Description},
        layout::layout,
        starter,
        training_images::TrainingImages,
        weights::{DType, HubOptions, StateDict, TensorData, to_pth},
    },
};

/// A network of ones with this many outputs.
fn ones(outputs: usize) -> StateDict {
    let ones = |(name, shape): (String, Vec<usize>)| {
        let data = vec![1; shape.iter().product()];
        let dtype = DType::U8;
        (name, TensorData { dtype, shape, data })
    };
    layout(outputs).into_iter().map(ones).collect()
}

fn write(path: &Path, state: &StateDict, description: Option<&Description>) {
    let entries = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let description = description.map(|description| description.to_json().unwrap());
    fs::write(path, to_pth(entries, description.as_deref())).unwrap();
}

fn description() -> Description {
    Description {
        format_version: FORMAT_VERSION,
        architecture: ARCHITECTURE.to_owned(),
        input: InputSpec {
            size: 96,
            ..InputSpec::default()
        },
        label: LabelScale {
            scale: 2.0,
            offset: 30.0,
        },
        training_images: None,
    }
}

fn check_file(path: &Path) -> Result<WeightsFile, Error> {
    check(path.to_str().unwrap(), "")
}

#[test]
fn a_file_that_describes_itself_is_an_age_model() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.pth");
    write(&path, &ones(1), Some(&description()));
    assert_eq!(check_file(&path).unwrap().description, Some(description()));

    // The description is of another head.
    write(&path, &ones(1000), Some(&description()));
    let file = check_file(&path).unwrap();
    assert_eq!(file.description, None);
    for part in ["the last layer is random", "fc.weight [1000, 512]"] {
        assert!(file.source.contains(part), "{}", file.source);
    }

    let changes: [fn(&mut Description); 4] = [
        |description| description.format_version += 1,
        |description| description.architecture = "resnet50".to_owned(),
        |description| description.label.scale = 0.0,
        |description| description.input.size = 0,
    ];
    for change in changes {
        let mut unusable = description();
        change(&mut unusable);
        write(&path, &ones(1), Some(&unusable));
        assert_eq!(check_file(&path).unwrap().description, None);
    }
}

#[test]
fn a_manifest_beside_a_file_describes_it_if_it_has_its_checksum() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("renamed.pth");
    write(&path, &ones(1), None);
    assert_eq!(check_file(&path).unwrap().description, None);

    let mut manifest = starter::manifest().clone();
    let place = directory.path().join(MANIFEST_FILE);
    fs::write(&place, serde_json::to_vec(&manifest).unwrap()).unwrap();
    assert_eq!(check_file(&path).unwrap().description, None);

    let digest = Sha256::digest(fs::read(&path).unwrap());
    let sha256 = digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    manifest.sha256 = BTreeMap::from([("model.safetensors".to_owned(), sha256)]);
    fs::write(&place, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let found = check_file(&path).unwrap().description;
    assert_eq!(found, Some(Description::of(&manifest)));
}

#[test]
fn the_starter_is_known_without_a_description() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("downloaded.safetensors");
    fs::write(&path, starter::files()[0].1).unwrap();
    let found = check_file(&path).unwrap().description;
    assert_eq!(found, Some(Description::of(starter::manifest())));
}

#[test]
fn a_head_on_another_scale_predicts_years_once_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.pth");
    write(&path, &ones(1), Some(&description()));
    let init = Init::Path {
        path: path.to_str().unwrap().to_owned(),
        key: String::new(),
        version: String::new(),
    };
    let sources = WeightSources {
        directories: Vec::new(),
        hub: HubOptions::new(directory.path().to_owned()),
        artifacts: None,
    };
    let loaded = load(&init, 1, &sources).unwrap();
    // By hand: 1 · 2, and 1 · 2 + 30.
    assert_eq!(loaded.state["fc.weight"].double_value(&[0, 511]), 2.0);
    assert_eq!(loaded.state["fc.bias"].double_value(&[0]), 32.0);
    assert_eq!(
        loaded.state["conv1.weight"].double_value(&[0, 0, 0, 0]),
        1.0
    );
}

#[test]
fn a_head_behind_a_dropout_is_replaced_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.pth");
    let mut state = ones(1);
    for name in ["weight", "bias"] {
        let tensor = state.remove(&format!("fc.{name}")).unwrap();
        state.insert(format!("fc.1.{name}"), tensor);
    }
    write(&path, &state, None);
    let source = check_file(&path).unwrap().source;
    assert!(
        source.contains("random") && source.contains("fc.1.weight [1, 512]"),
        "{source}"
    );
}

#[test]
fn values_that_are_not_finite_are_refused_in_tensors_that_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.pth");
    let nan = |shape: Vec<usize>| TensorData {
        dtype: DType::F32,
        data: f32::NAN.to_le_bytes().repeat(shape.iter().product()),
        shape,
    };
    let mut state = ones(1);
    state.insert("bn1.running_var".to_owned(), nan(vec![64]));
    write(&path, &state, None);
    let message = check_file(&path).unwrap_err().to_string();
    assert!(
        message.contains("tensor \"bn1.running_var\" has NaN at [0]"),
        "{message}"
    );

    // A head of 1000 classes is not used.
    let mut state = ones(1000);
    state.insert("fc.bias".to_owned(), nan(vec![1000]));
    write(&path, &state, None);
    check_file(&path).unwrap();
}

/// The images that weights in this file were trained on; `artifacts` is the directory of a store.
fn trained_on(path: &Path, artifacts: Option<&Path>) -> Option<TrainingImages> {
    let init = Init::Path {
        path: path.to_str().unwrap().to_owned(),
        key: String::new(),
        version: String::new(),
    };
    let sources = WeightSources {
        directories: Vec::new(),
        hub: HubOptions::new(path.parent().unwrap().to_owned()),
        artifacts: artifacts.map(Path::to_owned),
    };
    load(&init, 1, &sources).unwrap().training_images
}

#[test]
fn training_images_of_a_file_are_found_beside_it_or_among_the_artifacts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.pth");
    let images = TrainingImages::of(&[[1; 32], [2; 32]]);
    let sha256 = format!("{:x}", Sha256::digest(images.to_bytes()));
    let described = Description {
        training_images: Some(sha256.clone()),
        ..description()
    };
    write(&path, &ones(1), Some(&described));
    let stored = directory.path().join("store");
    assert_eq!(trained_on(&path, None), None);
    assert_eq!(trained_on(&path, Some(&stored)), None);

    let artifact = stored.join("sha256").join(&sha256[..2]);
    fs::create_dir_all(&artifact).unwrap();
    fs::write(artifact.join(&sha256), images.to_bytes()).unwrap();
    assert_eq!(trained_on(&path, Some(&stored)), Some(images.clone()));

    // A record beside it that is of another model is not used.
    let beside = directory.path().join("training-images.bin");
    fs::write(&beside, TrainingImages::default().to_bytes()).unwrap();
    assert_eq!(trained_on(&path, None), None);
    fs::write(&beside, images.to_bytes()).unwrap();
    assert_eq!(trained_on(&path, None), Some(images));

    // Without a description the file is foreign, whatever is beside it.
    write(&path, &ones(1), None);
    assert_eq!(trained_on(&path, Some(&stored)), None);
}

#[test]
fn training_images_of_a_manifest_beside_a_file_are_those_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.pth");
    write(&path, &ones(1), None);
    let images = TrainingImages::of(&[[7; 32]]);
    fs::write(
        directory.path().join("training-images.bin"),
        images.to_bytes(),
    )
    .unwrap();
    let mut manifest = starter::manifest().clone();
    let digest = |bytes: Vec<u8>| format!("{:x}", Sha256::digest(bytes));
    manifest.sha256 = BTreeMap::from([
        (
            "model.safetensors".to_owned(),
            digest(fs::read(&path).unwrap()),
        ),
        ("training-images.bin".to_owned(), digest(images.to_bytes())),
    ]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    fs::write(directory.path().join(MANIFEST_FILE), manifest).unwrap();
    assert_eq!(trained_on(&path, None), Some(images));
}

#[test]
fn initial_weights_have_the_training_images_of_their_source() {
    let directory = tempfile::tempdir().unwrap();
    let sources = WeightSources {
        directories: Vec::new(),
        hub: HubOptions::new(directory.path().to_owned()),
        artifacts: None,
    };
    let random = load(&Init::Random, 1, &sources).unwrap();
    assert_eq!(random.training_images, Some(TrainingImages::default()));
    let of_starter = Some(starter::training_images().unwrap());
    let loaded = load(&Init::Starter, 1, &sources).unwrap();
    assert_eq!(loaded.training_images, of_starter);
    let path = directory.path().join("downloaded.safetensors");
    fs::write(&path, starter::files()[0].1).unwrap();
    assert_eq!(trained_on(&path, None), of_starter);
    // The starter in another format has its description.
    let exported = directory.path().join("starter.pth");
    let described = Description::of(starter::manifest());
    write(&exported, &ones(1), Some(&described));
    assert_eq!(trained_on(&exported, None), of_starter);
}

/// The weights of a model version are named by their digest; damaged ones are not a start.
#[test]
fn a_stored_file_must_have_the_digest_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.pth");
    write(&path, &ones(1), None);
    let sha256 = format!("{:x}", Sha256::digest(fs::read(&path).unwrap()));
    let stored = directory.path().join("sha256").join(&sha256[..2]);
    fs::create_dir_all(&stored).unwrap();
    let sound = stored.join(&sha256);
    fs::copy(&path, &sound).unwrap();
    super::check(sound.to_str().unwrap(), "").unwrap();
    write(&sound, &ones(2), None);
    let refused = super::check(sound.to_str().unwrap(), "").unwrap_err();
    assert!(matches!(refused, Error::Checksum { expected, .. } if expected == sha256));
}
