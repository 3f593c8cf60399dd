//! The built-in face model: served immediately and used as initial weights.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;
use visage::proto::{
    open_inference::{
        ModelReadyRequest, RepositoryIndexRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
    },
    v1::{self, HeadBias, InitKind, Promote, TrainingState, VersionOrigin},
};

use crate::support::{Server, ask, files_of, small_spec, wait_until};

/// A file of the starter in the repository.
fn asset(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/starter");
    fs_err::read(directory.join(name)).unwrap()
}

fn manifest() -> Value {
    serde_json::from_slice(&asset("manifest.json")).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

async fn version(server: &Server, which: &str) -> Option<v1::ModelVersion> {
    let request = v1::GetModelVersionRequest {
        name: format!("models/age/versions/{which}"),
    };
    let response = server.models().get_model_version(request).await;
    response.ok()?.into_inner().version
}

async fn count_versions(server: &Server) -> usize {
    let request = v1::ListModelVersionsRequest::default();
    let response = server.models().list_model_versions(request).await.unwrap();
    response.into_inner().versions.len()
}

/// The predicted age of a drawn face.
async fn age(server: &Server, version: &str) -> f64 {
    let face = files_of(&server.faces("to-predict", 1, 5)).remove(0);
    let request = v1::PredictRequest {
        images: vec![fs_err::read(face).unwrap().into()],
        model: version.to_owned(),
        ..Default::default()
    };
    let answer = server.predictions().predict(request).await.unwrap();
    answer.into_inner().predictions[0].age
}

#[tokio::test]
async fn a_new_server_with_the_starter_predicts_immediately() {
    let server = Server::start(&["--starter"]);
    let answer = server.predict().await.unwrap();
    assert_eq!(answer.model_version, "models/age/versions/1");
    let manifest = manifest();
    let prediction = &answer.predictions[0];
    assert!((-20.0..150.0).contains(&prediction.age), "{prediction:?}");
    let is_calibrated = !manifest["calibration"].is_null();
    assert_eq!(prediction.interval.is_some(), is_calibrated);

    let live = version(&server, "live").await.unwrap();
    assert_eq!(live.origin(), VersionOrigin::Starter);
    assert_eq!((live.version, live.checkpoint.as_str()), (1, ""));
    assert_eq!(live.aliases, ["live"]);
    assert!(live.training_images_recorded);
    for name in ["model.safetensors", "manifest.json", "training-images.bin"] {
        let file = live.files.iter().find(|file| file.name == name).unwrap();
        assert_eq!(file.sha256, sha256(&asset(name)));
    }
    let metrics = live.metrics.unwrap();
    let mae = manifest["metrics"]["val_mae"].as_f64().unwrap();
    assert!((metrics.val_mae - mae).abs() < 1e-9, "{metrics:?}");
    assert_eq!(live.val_digest, manifest["dataset"]["val_digest"]);
    assert_eq!(u64::from(live.input_size), manifest["input"]["size"]);
    assert_eq!(live.test.is_some(), manifest.get("test").is_some());
}

#[tokio::test]
async fn the_starter_is_registered_once_and_never_replaces_a_version() {
    let mut server = Server::start(&["--starter"]);
    server.kill();
    server.start_again();
    assert_eq!(count_versions(&server).await, 1);
    // Another version is made live, then the alias is removed: the next start keeps both changes.
    let own = server.train_small().await;
    let request = v1::SetAliasRequest {
        name: own.clone(),
        alias: "live".to_owned(),
        expected_version: Some(1),
    };
    server.models().set_alias(request).await.unwrap();
    server.kill();
    server.start_again();
    assert_eq!(version(&server, "live").await.unwrap().name, own);
    assert_eq!(server.predict().await.unwrap().model_version, own);
    let request = v1::DeleteAliasRequest {
        alias: "live".to_owned(),
        ..Default::default()
    };
    server.models().delete_alias(request).await.unwrap();
    server.kill();
    server.start_again();
    assert!(server.predict().await.is_err());
    assert_eq!(count_versions(&server).await, 2);
}

/// Waits for this health of the prediction service.
async fn predictions_are(server: &Server, wanted: ServingStatus) {
    let health = HealthClient::new(server.channel());
    let request = HealthCheckRequest {
        service: "visage.v1.PredictionService".to_owned(),
    };
    wait_until("the health of predictions", || {
        let (mut health, request) = (health.clone(), request.clone());
        async move {
            let answer = health.check(request).await;
            answer.is_ok_and(|answer| answer.into_inner().status() == wanted)
        }
    })
    .await;
}

#[tokio::test]
async fn an_unloadable_live_version_is_reported_until_another_is_live() {
    let mut server = Server::start(&["--starter"]);
    let own = server.train_small().await;
    predictions_are(&server, ServingStatus::Serving).await;
    server.kill();
    let stored = sha256(&asset("model.safetensors"));
    let path = server.path(&format!("data/artifacts/sha256/{}/{stored}", &stored[..2]));
    let mut weights = fs_err::read(&path).unwrap();
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    // It may be read-only.
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, weights).unwrap();

    server.start_again();
    predictions_are(&server, ServingStatus::NotServing).await;
    let url = format!("http://{}/readyz", server.http);
    let (status, mut answer) = ask("GET", url, &[], None);
    assert_eq!(status, 503);
    let readiness = answer.body_mut().read_to_string().unwrap();
    assert!(
        readiness.contains("failed to load the live version"),
        "{readiness}"
    );
    assert!(server.predict().await.is_err());
    let mut protocol = GrpcInferenceServiceClient::new(server.channel());
    let index = protocol
        .repository_index(RepositoryIndexRequest::default())
        .await;
    let index = index.unwrap().into_inner().models;
    let of = |version: &str| index.iter().find(|one| one.version == version).unwrap();
    assert_eq!(of("1").state, "UNAVAILABLE");
    assert!(of("1").reason.contains("SHA-256"), "{}", of("1").reason);
    assert_eq!(
        (of("2").state.as_str(), of("2").reason.as_str()),
        ("READY", "")
    );
    for (version, is_ready) in [("", false), ("1", false), ("2", true)] {
        let request = ModelReadyRequest {
            name: "age".to_owned(),
            version: version.to_owned(),
        };
        let answer = protocol.model_ready(request).await.unwrap().into_inner();
        assert_eq!(answer.ready, is_ready, "version {version:?}");
    }

    let request = v1::SetAliasRequest {
        name: own.clone(),
        alias: "live".to_owned(),
        expected_version: None,
    };
    server.models().set_alias(request).await.unwrap();
    predictions_are(&server, ServingStatus::Serving).await;
    assert_eq!(server.predict().await.unwrap().model_version, own);
}

#[tokio::test]
async fn a_server_that_has_a_version_does_not_get_the_starter() {
    let mut server = Server::start(&[]);
    let refused = server.predict().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let own = server.train_small().await;
    assert_eq!(
        version(&server, "live").await.unwrap().origin(),
        VersionOrigin::Training
    );
    server.kill();
    server.start_again_with(&["--starter"]);
    assert_eq!(count_versions(&server).await, 1);
    assert_eq!(version(&server, "live").await.unwrap().name, own);
}

/// Trains from the starter with a learning rate that is too small to change the weights.
fn unmoved(faces: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        init: Some(v1::InitSpec {
            kind: InitKind::Starter.into(),
            ..Default::default()
        }),
        trainable: vec!["fc".to_owned()],
        input_size: manifest()["input"]["size"].as_u64().map(|size| size as u32),
        max_epochs: Some(1),
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(1e-12),
            ..Default::default()
        }),
        precision: v1::Precision::F32.into(),
        promote: Promote::Never.into(),
        ..small_spec(faces)
    }
}

async fn train(server: &Server, spec: v1::TrainingSpec) -> v1::Training {
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    training
}

#[tokio::test]
async fn a_training_starts_from_the_whole_starter_including_its_head() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 40, 3);
    let training = train(&server, unmoved(&faces)).await;
    let source = &training.init_source;
    assert!(
        source.contains("starter") && source.contains(&sha256(&asset("model.safetensors"))),
        "{source}"
    );
    let starter = age(&server, "models/age/versions/1").await;
    let kept = age(&server, &training.model_version).await;
    assert!((kept - starter).abs() < 1e-3, "{kept} and {starter}");

    // The bias is the mean age if requested.
    let asked = v1::TrainingSpec {
        head_bias: HeadBias::MeanAge.into(),
        ..unmoved(&faces)
    };
    let training = train(&server, asked).await;
    let model = asset("model.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&model).unwrap();
    let bias = tensors.tensor("fc.bias").unwrap();
    let bias = f32::from_le_bytes(bias.data().try_into().unwrap());
    let splits = training.dataset.as_ref().unwrap().splits.iter();
    let mean = splits
        .filter(|split| split.split == "train")
        .map(|split| split.age_mean);
    let expected = starter - f64::from(bias) + mean.sum::<f64>();
    let reset = age(&server, &training.model_version).await;
    assert!((reset - expected).abs() < 1e-3, "{reset} and {expected}");
}

#[tokio::test]
async fn without_imagenet_weights_the_error_lists_three_remedies() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        init: None,
        ..small_spec(&server.faces("faces", 40, 3))
    };
    let directory = server.path("data/weights").canonicalize().unwrap();
    for validate_only in [true, false] {
        let request = v1::StartTrainingRequest {
            spec: Some(spec.clone()),
            validate_only,
            ..Default::default()
        };
        let refused = server
            .trainings()
            .start_training(request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "WEIGHTS_UNAVAILABLE");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "spec.init");
        for part in [
            "offline mode is on",
            "put torchvision's file resnet18-f37072fd.pth into",
            directory.to_str().unwrap(),
            "let the server reach the hub",
            "; start from the built-in face model (STARTER), ",
        ] {
            let description = &violations[0].description;
            assert!(
                description.contains(part),
                "expected {part} in {description}"
            );
        }
    }
    // Nothing was queued.
    let listed = server
        .trainings()
        .list_trainings(v1::ListTrainingsRequest::default())
        .await;
    assert_eq!(listed.unwrap().into_inner().trainings, []);
}
