//! The request that the flags of `visage train` result in.

use std::path::Path;

use clap::Parser as _;

use crate::{
    cli::{
        commands::train::request::start_request,
        program::{Cli, Command},
    },
    proto::v1::{InitKind, Recipe, StartTrainingRequest, TrainingSpec},
};

fn request(arguments: &[&str]) -> StartTrainingRequest {
    let cli = Cli::try_parse_from([&["visage", "train"], arguments].concat()).unwrap();
    let Command::Train(args) = cli.command else {
        unreachable!("`train` was parsed");
    };
    start_request(*args).unwrap()
}

fn spec(arguments: &[&str]) -> TrainingSpec {
    request(arguments).spec.unwrap()
}

#[test]
fn flags_set_their_fields_and_leave_others_unset() {
    let directory = tempfile::tempdir().unwrap();
    let faces = directory.path().canonicalize().unwrap();
    let dataset = format!("{}/./", faces.display());
    let arguments = ["--dataset", &dataset, "--init", "random", "--epochs", "10"];
    let more = ["--trainable", "layer4,fc", "--label", "a=b=c"];
    let request = request(&[&arguments[..], &more].concat());
    let spec = request.spec.unwrap();
    assert_eq!(Path::new(&spec.dataset.unwrap().path), faces);
    assert_eq!(spec.init.unwrap().kind(), InitKind::Random);
    assert_eq!(spec.max_epochs, Some(10));
    assert_eq!(spec.batch_size, None);
    assert_eq!(spec.trainable, ["layer4", "fc"]);
    assert_eq!(request.labels["a"], "b=c");
    assert!(uuid::Uuid::parse_str(&request.request_id).is_ok());
}

#[test]
fn paths_that_do_not_exist_here_become_absolute() {
    let init = ["--init", "w.pth", "--init-key", "model_ema"];
    let spec = spec(&[&["--dataset", "absent/./faces"], &init[..]].concat());
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        Path::new(&spec.dataset.unwrap().path),
        here.join("absent/faces")
    );
    let init = spec.init.unwrap();
    assert_eq!(init.kind(), InitKind::Path);
    assert_eq!(Path::new(&init.path), here.join("w.pth"));
    assert_eq!(init.key, "model_ema");
}

#[test]
fn a_recipe_is_sent_without_its_own_values() {
    let set = ["--set", "augmentation.erasing=0"];
    let arguments = ["--dataset", "d", "--recipe", "best", "--init", "starter"];
    let spec = spec(&[&arguments[..], &set].concat());
    assert_eq!(spec.recipe(), Recipe::Best);
    let init = spec.init.unwrap();
    assert_eq!((init.kind(), init.path.as_str()), (InitKind::Starter, ""));
    assert_eq!(spec.augmentation.unwrap().erasing, Some(0.0));
    assert_eq!(spec.max_epochs, None);
}

#[test]
fn set_overrides_other_flags() {
    let lr = [
        "--dataset",
        "/faces",
        "--lr",
        "1e-3",
        "--set",
        "optimizer.learning_rate=2e-3",
    ];
    let optimizer = spec(&[&lr[..], &["--set", "optimizer.beta1=0.5"]].concat()).optimizer;
    let optimizer = optimizer.unwrap();
    assert_eq!(optimizer.learning_rate, Some(2e-3));
    assert_eq!(optimizer.beta1, Some(0.5));
}
