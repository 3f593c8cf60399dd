//! Initial weights in the formats of other programs and of Visage.

use std::path::Path;

use tokio_stream::StreamExt as _;
use tonic_types::StatusExt as _;
use visage::{
    proto::v1::{self, HeadBias, InitKind, Promote, TrainingState},
    testing::{StateDict, TensorData, read_weights, to_pth},
};

use crate::support::{Server, files_of, small_spec};

/// A dry run with this file as initial weights.
fn dry_run(faces: &Path, path: &Path) -> v1::StartTrainingRequest {
    v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            init: Some(from_file(path)),
            input_size: None,
            ..small_spec(faces)
        }),
        validate_only: true,
        ..Default::default()
    }
}

fn from_file(path: &Path) -> v1::InitSpec {
    v1::InitSpec {
        kind: InitKind::Path.into(),
        path: path.to_str().unwrap().to_owned(),
        ..Default::default()
    }
}

async fn validated(server: &Server, request: v1::StartTrainingRequest) -> v1::Training {
    let response = server.trainings().start_training(request).await.unwrap();
    response.into_inner().training.unwrap()
}

/// The field violations of a refused call.
async fn refused(server: &Server, request: v1::StartTrainingRequest) -> Vec<(String, String)> {
    let status = server
        .trainings()
        .start_training(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = details.bad_request().unwrap().field_violations.iter();
    violations
        .map(|violation| (violation.field.clone(), violation.description.clone()))
        .collect()
}

/// Downloads the tensors of a version, as one file.
async fn download(server: &Server, version: &str, path: &Path) {
    let request = v1::DownloadModelFileRequest {
        name: version.to_owned(),
        ..Default::default()
    };
    let stream = server.models().download_model_file(request).await.unwrap();
    let mut parts = stream.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part.unwrap().data);
    }
    fs_err::write(path, bytes).unwrap();
}

async fn age(server: &Server, version: &str, face: &Path) -> f64 {
    let request = v1::PredictRequest {
        images: vec![fs_err::read(face).unwrap().into()],
        model: version.to_owned(),
        ..Default::default()
    };
    let response = server.predictions().predict(request).await.unwrap();
    response.into_inner().predictions[0].age
}

fn write_pth(path: &Path, state: &StateDict) {
    let entries = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
    fs_err::write(path, to_pth(entries, None)).unwrap();
}

#[tokio::test]
async fn a_training_on_a_downloaded_model_starts_where_that_model_is() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    // The starter, and a model that was trained from it.
    let mut version = "models/age/versions/1".to_owned();
    for name in ["starter.safetensors", "own.safetensors"] {
        let path = server.path(name);
        download(&server, &version, &path).await;
        let described = validated(&server, dry_run(&faces, &path)).await;
        let resolved = described.resolved_spec.unwrap();
        assert_eq!(resolved.head_bias(), HeadBias::Keep, "{name}");
        assert_eq!(resolved.input_size, Some(192), "{name}");
        assert!(
            described.init_source.contains(name),
            "{}",
            described.init_source
        );

        // A learning rate that is too small to change the weights.
        let spec = v1::TrainingSpec {
            init: Some(from_file(&path)),
            trainable: vec!["fc".to_owned()],
            input_size: None,
            max_epochs: Some(1),
            optimizer: Some(v1::OptimizerSpec {
                learning_rate: Some(1e-12),
                ..Default::default()
            }),
            precision: v1::Precision::F32.into(),
            promote: Promote::Never.into(),
            ..small_spec(&faces)
        };
        let training = server.ended(&server.queue(spec).await).await;
        assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
        let face = files_of(&faces).remove(0);
        let before = age(&server, &version, &face).await;
        let after = age(&server, &training.model_version, &face).await;
        assert!((after - before).abs() < 1e-3, "{after} and {before}");
        version = training.model_version;
    }
}

#[tokio::test]
async fn head_bias_is_kept_for_age_models_and_the_mean_age_otherwise() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    let path = server.path("age.safetensors");
    download(&server, "models/age/versions/1", &path).await;
    let mut asked = dry_run(&faces, &path);
    let spec = asked.spec.as_mut().unwrap();
    spec.set_head_bias(HeadBias::MeanAge);
    spec.input_size = Some(64);
    let resolved = validated(&server, asked).await.resolved_spec.unwrap();
    assert_eq!(
        (resolved.head_bias(), resolved.input_size),
        (HeadBias::MeanAge, Some(64))
    );

    // Without a description, the scale of the output is unknown.
    let state = read_weights(&path).unwrap();
    let plain = server.path("plain.pth");
    write_pth(&plain, &state);
    let resolved = validated(&server, dry_run(&faces, &plain))
        .await
        .resolved_spec
        .unwrap();
    assert_eq!(
        (resolved.head_bias(), resolved.input_size),
        (HeadBias::MeanAge, Some(224))
    );
}

#[tokio::test]
async fn an_exported_model_is_an_age_model_in_every_format() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    for format in ["pth", "safetensors", "torchscript"] {
        let path = server.path(&format!("export.{format}"));
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_visage"));
        command
            .args([
                "--server",
                &server.grpc,
                "models",
                "export",
                "1",
                "--format",
                format,
            ])
            .arg("--output")
            .arg(&path)
            .kill_on_drop(true);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let request = dry_run(&faces, &path);
        if format == "torchscript" {
            let violations = refused(&server, request).await;
            let [(field, description)] = violations.as_slice() else {
                panic!("{violations:?}");
            };
            assert_eq!(field, "spec.init.path");
            assert!(
                description.contains("TorchScript")
                    && description.contains("visage models export --format safetensors"),
                "{description}"
            );
            continue;
        }
        let resolved = validated(&server, request).await.resolved_spec.unwrap();
        assert_eq!(resolved.head_bias(), HeadBias::Keep, "{format}");
    }
}

#[tokio::test]
async fn weights_with_nan_are_refused_before_a_training_is_queued() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    let path = server.path("age.safetensors");
    download(&server, "models/age/versions/1", &path).await;
    let mut state = read_weights(&path).unwrap();
    let variance = state.get_mut("layer1.0.bn1.running_var").unwrap();
    variance.data[12..16].copy_from_slice(&(-1.0f32).to_le_bytes());
    let broken = server.path("broken.pth");
    write_pth(&broken, &state);
    for validate_only in [true, false] {
        let request = v1::StartTrainingRequest {
            validate_only,
            ..dry_run(&faces, &broken)
        };
        let violations = refused(&server, request).await;
        let [(field, description)] = violations.as_slice() else {
            panic!("{violations:?}");
        };
        assert_eq!(field, "spec.init.path");
        assert!(
            description.contains("tensor \"layer1.0.bn1.running_var\" has -1.0 at [3]"),
            "{description}"
        );
    }
    let listed = server
        .trainings()
        .list_trainings(v1::ListTrainingsRequest::default())
        .await;
    assert!(listed.unwrap().into_inner().trainings.is_empty());
}

#[tokio::test]
async fn init_key_selects_a_network_and_unknown_keys_are_refused() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    let path = server.path("age.safetensors");
    download(&server, "models/age/versions/1", &path).await;
    let state = read_weights(&path).unwrap();
    // Two encoders in one file, as contrastive learning saves them.
    let both = ["encoder_q", "encoder_k"].into_iter().flat_map(|encoder| {
        let prefixed = move |(name, tensor): (&String, &TensorData)| {
            (format!("{encoder}.{name}"), tensor.clone())
        };
        state.iter().map(prefixed)
    });
    let file = server.path("both.pth");
    write_pth(&file, &both.collect());

    let with_key = |key: &str| {
        let mut request = dry_run(&faces, &file);
        let init = request.spec.as_mut().unwrap().init.as_mut().unwrap();
        init.key = key.to_owned();
        request
    };
    let violations = refused(&server, with_key("")).await;
    assert_eq!(violations[0].0, "spec.init.path");
    for part in ["\"encoder_k\"", "\"encoder_q\"", "spec.init.key"] {
        assert!(violations[0].1.contains(part), "{violations:?}");
    }
    let violations = refused(&server, with_key("encoder")).await;
    assert_eq!(violations[0].0, "spec.init.key");

    let training = validated(&server, with_key("encoder_q")).await;
    assert!(
        training.init_source.contains("\"encoder_q.\""),
        "{}",
        training.init_source
    );
    assert_eq!(
        training.resolved_spec.unwrap().init.unwrap().key,
        "encoder_q"
    );
}

#[tokio::test]
async fn a_training_continues_from_a_version_by_alias_and_keeps_its_number() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    let from_version = |version: &str| v1::InitSpec {
        version: version.to_owned(),
        ..Default::default()
    };
    let spec = v1::TrainingSpec {
        init: Some(from_version("models/age/versions/live")),
        promote: Promote::Never.into(),
        input_size: None,
        ..small_spec(&faces)
    };
    let training = server.ended(&server.queue(spec.clone()).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:?}");
    let resolved = training.resolved_spec.unwrap();
    // As for a file of the same model: the size and the head are those of the version.
    assert_eq!(resolved.head_bias(), HeadBias::Keep);
    assert_eq!(resolved.input_size, Some(192));
    let init = resolved.init.unwrap();
    assert_eq!(
        (init.kind(), init.version.as_str()),
        (InitKind::Path, "models/age/versions/1")
    );
    assert!(
        training.init_source.starts_with("models/age/versions/1: "),
        "{}",
        training.init_source
    );

    let request = |init: v1::InitSpec| v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            init: Some(init),
            ..spec.clone()
        }),
        validate_only: true,
        ..Default::default()
    };
    for (init, rule) in [
        (
            from_version("models/age/versions/9"),
            "must be an existing version",
        ),
        (from_version("version 9"), "must be of the form"),
        (
            v1::InitSpec {
                kind: InitKind::Random.into(),
                ..from_version("models/age/versions/1")
            },
            "must be empty unless spec.init.kind is PATH or unset",
        ),
    ] {
        let violations = refused(&server, request(init)).await;
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].0, "spec.init.version");
        assert!(violations[0].1.starts_with(rule), "{violations:?}");
    }
}
