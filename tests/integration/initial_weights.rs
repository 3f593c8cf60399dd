//! ImageNet weights from a hub that responds, refuses or hangs, the ids of trainings that never
//! started, and the validation of initial weights.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use visage::{
    proto::v1::{self, TrainingState, training_event::Kind},
    testing::{read_weights, to_pth},
};

use crate::support::{Server, small_spec};

/// The limit of the server on a response of the hub, and time for the rest of a call.
const HUB_TIMEOUT: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(5);

/// A hub at this address instead of the offline mode of the tests.
fn server_with_hub(address: &str) -> Server {
    let endpoint = format!("HF_ENDPOINT=http://{address}");
    Server::start_under(&["env", "HF_HUB_OFFLINE=0", &endpoint], &[])
}

/// The default weights.
fn imagenet_request(server: &Server, validate_only: bool) -> v1::StartTrainingRequest {
    v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            init: None,
            ..small_spec(&server.faces("faces", 40, 3))
        }),
        training_id: "mine".to_owned(),
        validate_only,
        ..Default::default()
    }
}

async fn start(
    server: &Server,
    request: v1::StartTrainingRequest,
) -> Result<v1::StartTrainingResponse, Status> {
    let response = server.trainings().start_training(request).await?;
    Ok(response.into_inner())
}

fn assert_unavailable(refused: &Status) {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "WEIGHTS_UNAVAILABLE");
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "spec.init");
    let description = &violations[0].description;
    assert!(
        description.contains("no response from http"),
        "{description}"
    );
}

#[tokio::test]
async fn a_hub_that_refuses_or_hangs_fails_the_start_and_a_file_repairs_it() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let server = server_with_hub(&address);
    for validate_only in [true, false] {
        let request = imagenet_request(&server, validate_only);
        assert_unavailable(&start(&server, request).await.unwrap_err());
    }
    // The name decides; the worker verifies the content.
    let file = server.path("data/weights/resnet18-f37072fd.pth");
    fs_err::write(file, b"not read here").unwrap();
    let request = imagenet_request(&server, true);
    start(&server, request).await.unwrap();

    // Accepts connections and never responds.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server_with_hub(&hanging.local_addr().unwrap().to_string());
    for validate_only in [true, false] {
        let begun = Instant::now();
        let request = imagenet_request(&server, validate_only);
        assert_unavailable(&start(&server, request).await.unwrap_err());
        assert!(
            begun.elapsed() < HUB_TIMEOUT + SLACK,
            "{:?}",
            begun.elapsed()
        );
    }
}

/// Responds to HEAD with success and to everything else with 404.
fn respond(stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let status = if first.starts_with("HEAD ") {
        "200 OK"
    } else {
        "404 Not Found"
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    (&stream).write_all(head.as_bytes())
}

#[tokio::test]
async fn the_id_of_a_training_that_never_started_is_free_again() {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server_with_hub(&hub.local_addr().unwrap().to_string());
    // Ends with the process of the test.
    std::thread::spawn(move || {
        hub.incoming()
            .flatten()
            .for_each(|stream| drop(respond(stream)))
    });
    start(&server, imagenet_request(&server, true))
        .await
        .unwrap();
    start(&server, imagenet_request(&server, false))
        .await
        .unwrap();
    // The hub promised the file and does not have it.
    let failed = server.ended("trainings/mine").await;
    assert_eq!(failed.state(), TrainingState::Failed);
    assert_eq!(failed.failure.unwrap().reason, "INIT_WEIGHTS");
    let before = server.events("trainings/mine").await;
    assert!(before.len() > 2, "{before:#?}");

    let again = v1::StartTrainingRequest {
        spec: Some(small_spec(&server.faces("faces", 40, 3))),
        ..imagenet_request(&server, false)
    };
    let check = v1::StartTrainingRequest {
        validate_only: true,
        ..again.clone()
    };
    start(&server, check).await.unwrap();
    start(&server, again.clone()).await.unwrap();
    let ended = server.ended("trainings/mine").await;
    assert_eq!(
        ended.state(),
        TrainingState::Succeeded,
        "{:?}",
        ended.failure
    );
    assert_eq!((ended.attempt, ended.failure), (1, None));
    let events = server.events("trainings/mine").await;
    assert_eq!(events[0].sequence, 1);
    let token = |event: &v1::TrainingEvent| event.resume_token.clone();
    assert!(
        !before
            .iter()
            .map(token)
            .any(|old| events.iter().map(token).any(|new| new == old))
    );
    // Now it has trained.
    let refused = start(&server, again).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
}

/// Metrics of epoch 0 and of the other epochs, in the order of their events.
fn epochs(events: &[v1::TrainingEvent]) -> Vec<v1::EpochMetrics> {
    let metrics = |event: &v1::TrainingEvent| match &event.kind {
        Some(Kind::InitialValidated(metrics)) => {
            assert_eq!(metrics.epoch, 0);
            Some(*metrics)
        }
        Some(Kind::EpochCompleted(metrics)) => {
            assert!(metrics.epoch > 0);
            Some(*metrics)
        }
        _ => None,
    };
    events.iter().filter_map(metrics).collect()
}

#[tokio::test]
async fn initial_weights_that_predict_ages_are_validated_without_a_change_of_the_training() {
    let server = Server::start(&["--starter"]);
    let faces = server.faces("faces", 60, 5);
    let spec = |init: v1::InitSpec| v1::TrainingSpec {
        init: Some(init),
        input_size: Some(64),
        precision: v1::Precision::F32.into(),
        head_bias: v1::HeadBias::Keep.into(),
        promote: v1::Promote::Never.into(),
        ..small_spec(&faces)
    };
    let starter = v1::InitSpec {
        kind: v1::InitKind::Starter.into(),
        ..Default::default()
    };
    let validated = server.ended(&server.queue(spec(starter)).await).await;
    assert_eq!(
        validated.state(),
        TrainingState::Succeeded,
        "{validated:#?}"
    );
    let initial = validated.initial.unwrap();
    let found = epochs(&server.events(&validated.name).await);
    let numbers: Vec<u32> = found.iter().map(|metrics| metrics.epoch).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(found[0], initial);
    assert_eq!(initial.val_images, found[1].val_images);
    assert!((initial.val_rmse.powi(2) - initial.val_loss).abs() < 1e-9);
    assert_eq!((initial.train_images, initial.is_best), (0, false));
    assert!(validated.best.unwrap().epoch > 0);

    // The same weights in a file that does not say that they predict ages.
    let root = server.path("data/weights");
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/model/starter/model.safetensors"
    );
    let state = read_weights(std::path::Path::new(weights)).unwrap();
    let tensors = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let path = root.join("plain.pth");
    fs_err::write(&path, to_pth(tensors, None)).unwrap();
    let plain = v1::InitSpec {
        kind: v1::InitKind::Path.into(),
        path: path.to_str().unwrap().to_owned(),
        ..Default::default()
    };
    let other = server.ended(&server.queue(spec(plain)).await).await;
    assert_eq!(other.state(), TrainingState::Succeeded, "{other:#?}");
    assert_eq!(other.initial, None);
    let without = epochs(&server.events(&other.name).await);
    assert_eq!(without.len(), 2);
    for (with, without) in found[1..].iter().zip(&without) {
        let values = |metrics: &v1::EpochMetrics| {
            [metrics.train_loss, metrics.val_loss, metrics.val_mae].map(f64::to_bits)
        };
        assert_eq!(values(with), values(without));
    }
}
