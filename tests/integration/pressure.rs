//! Predictions beside other work: model loads, batch images, trainings.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt;
use visage::proto::v1::{self, Priority, Promote};

use crate::support::{Server, code, files_of, long_spec, reason, small_spec};

/// This many copies of an image.
fn request(server: &Server, images: usize, priority: Priority) -> v1::PredictRequest {
    let face = fs_err::read(&files_of(&server.faces("to-predict", 1, 7))[0]).unwrap();
    v1::PredictRequest {
        images: vec![face.into(); images],
        priority: priority.into(),
        ..Default::default()
    }
}

/// Trains a version with the full input size and returns its number.
async fn large_version(server: &Server) -> String {
    let faces = server.faces("faces", 40, 1);
    let spec = v1::TrainingSpec {
        promote: Promote::Never.into(),
        max_epochs: Some(1),
        input_size: Some(224),
        ..small_spec(&faces)
    };
    server.ended(&server.queue(spec).await).await.model_version
}

#[tokio::test]
async fn predictions_continue_while_another_version_is_loaded() {
    let mut server = Server::start(&["--starter"]);
    let version = large_version(&server).await;
    // The restarted server has only the live version loaded.
    server.kill();
    server.start_again();
    server.predict().await.unwrap();

    let mut models = server.models();
    let moving = tokio::spawn(async move {
        let request = v1::SetAliasRequest {
            name: version,
            alias: "live".to_owned(),
            ..Default::default()
        };
        let begun = Instant::now();
        models.set_alias(request).await.unwrap();
        (begun, Instant::now())
    });
    let mut predictions = Vec::new();
    while !moving.is_finished() {
        let begun = Instant::now();
        server.predict().await.unwrap();
        predictions.push((begun, Instant::now()));
    }
    let (begun, ended) = moving.await.unwrap();
    let is_within = |(first, last): &(Instant, Instant)| begun <= *first && *last <= ended;
    let within = predictions.iter().filter(|took| is_within(took)).count();
    assert!(within >= 2, "{within} of {} predictions", predictions.len());
    let answer = server.predict().await.unwrap();
    assert_eq!(answer.model_version, "models/age/versions/2");
}

#[tokio::test]
async fn batch_images_leave_permits_to_interactive_ones() {
    let options = ["--max-queued-images", "8", "--max-images-per-request", "8"];
    let server = Server::start(&[&["--starter", "--max-batch", "8"][..], &options].concat());
    let predict = async |images: usize, priority: Priority| {
        let request = request(&server, images, priority);
        server.predictions().predict(request).await
    };
    // Batch images may hold three quarters of the permits, even on an idle server.
    let refused = predict(7, Priority::Batch).await;
    assert_eq!(code(&refused), Code::ResourceExhausted);
    assert_eq!(reason(&refused.unwrap_err()), "QUEUE_FULL");
    let batch = predict(6, Priority::Batch).await.unwrap().into_inner();
    let interactive = predict(8, Priority::Interactive)
        .await
        .unwrap()
        .into_inner();
    let age = interactive.predictions[0].age;
    assert_eq!(batch.predictions.len(), 6);
    // The batch size may change the last digits.
    assert!((batch.predictions[0].age - age).abs() < 0.05);
}

#[tokio::test]
async fn call_that_would_miss_its_deadline_is_refused_immediately() {
    let server = Server::start(&["--starter", "--threads", "1"]);
    let images = |count| request(&server, count, Priority::Interactive);
    let fill = || {
        let calls = (0..16).map(|_| {
            let (mut client, request) = (server.predictions(), images(8));
            async move { client.predict(request).await }
        });
        futures_util::future::join_all(calls)
    };
    let hurried = async || {
        let mut request = tonic::Request::new(images(1));
        // Enough for one image on any processor, and too short for a hundred.
        request.set_timeout(Duration::from_millis(200));
        server.predictions().predict(request).await
    };
    // The pace that the server measures with many images, which have enough time.
    for answer in fill().await {
        answer.unwrap();
    }
    let many = fill();
    tokio::pin!(many);
    let refused = loop {
        tokio::select! {
            biased;
            _ = &mut many => panic!("128 images were computed, and no call was refused"),
            answer = hurried() => match answer {
                Err(status) if status.code() == Code::ResourceExhausted => break status,
                // Admitted before the others, or expired after admission.
                Ok(_) | Err(_) => {}
            },
        }
    };
    assert_eq!(reason(&refused), "WAIT_TOO_LONG", "{refused:?}");
    let retry = refused.get_details_retry_info().unwrap().retry_delay;
    assert!(retry.unwrap() > Duration::ZERO);
    // Admitted calls succeed.
    for answer in many.await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn unknown_priority_is_refused() {
    let server = Server::start(&["--starter"]);
    let request = v1::PredictRequest {
        priority: 9,
        ..request(&server, 1, Priority::Unspecified)
    };
    let refused = server.predictions().predict(request).await;
    assert_eq!(code(&refused), Code::InvalidArgument);
    let message = refused.unwrap_err().message().to_owned();
    assert!(
        message.contains("priority") && message.contains('9'),
        "{message}"
    );
}

/// Niceness and scheduling policy of each thread of a process: the 19th and the 41st field of
/// /proc/PID/task/TID/stat, whose second field may contain spaces. Policy 5 is SCHED_IDLE
/// (sched(7)).
fn priorities_of_threads(pid: u32) -> Vec<(i32, u32)> {
    let tasks = fs_err::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| fs_err::read_to_string(task.unwrap().path().join("stat")).ok())
        .map(|stat| {
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            (fields[16].parse().unwrap(), fields[38].parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn training_yields_to_predictions() {
    let (own, policy) = priorities_of_threads(std::process::id())[0];
    for (options, nice, is_idle) in [
        (&[][..], 10, false),
        (&["--worker-nice", "0"], 0, false),
        (&["--worker-nice", "20"], 19, true),
    ] {
        let server = Server::start(options);
        let faces = server.faces("faces", 60, 1);
        let training = server.queue(long_spec(&faces)).await;
        server.in_epoch(&training).await;
        let found = priorities_of_threads(server.worker_pid(&training));
        let idle = found.iter().filter(|(_, policy)| *policy == 5).count();
        assert!(
            found.iter().all(|(found, _)| *found == nice.max(own)),
            "{found:?}"
        );
        // All but the threads for heartbeats and for commands of the server.
        let expected = if is_idle { found.len() - 2 } else { 0 };
        assert!(idle == expected || policy == 5, "{found:?}");
        let server = priorities_of_threads(server.pid());
        assert!(server.contains(&(own, policy)), "{server:?}");
    }
}
