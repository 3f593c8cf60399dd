//! PredictBatch, averages over mirror images, the prediction cache, and fairness between clients.

use image::imageops;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use visage::proto::v1::{
    self, BatchImage, PredictBatchOptions, PredictBatchRequest, predict_batch_request::Part,
    predict_batch_response::Result as Outcome,
};

use crate::support::{PATIENCE, Server, code, files_of, reason, wait_until};

fn options(options: PredictBatchOptions) -> PredictBatchRequest {
    PredictBatchRequest {
        part: Some(Part::Options(options)),
    }
}

fn image(id: &str, image: impl Into<prost::bytes::Bytes>) -> PredictBatchRequest {
    PredictBatchRequest {
        part: Some(Part::Image(BatchImage {
            id: id.to_owned(),
            image: image.into(),
        })),
    }
}

/// All responses of a call, and its final status.
async fn batch(
    server: &Server,
    requests: Vec<PredictBatchRequest>,
) -> (Vec<v1::PredictBatchResponse>, Result<(), Status>) {
    let requests = tokio_stream::iter(requests);
    let mut answers = match server.predictions().predict_batch(requests).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => found.push(answer),
            Err(status) => return (found, Err(status)),
        }
    }
    (found, Ok(()))
}

fn faces(server: &Server, count: usize) -> Vec<Vec<u8>> {
    let files = files_of(&server.faces("to-predict", count, 5));
    files
        .iter()
        .map(|file| fs_err::read(file).unwrap())
        .collect()
}

async fn predict(server: &Server, request: v1::PredictRequest) -> v1::PredictResponse {
    let answer = server.predictions().predict(request).await;
    answer.unwrap().into_inner()
}

fn age(response: &v1::PredictBatchResponse) -> f64 {
    match response.result.as_ref().unwrap() {
        Outcome::Prediction(prediction) => prediction.age,
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn batch_responses_are_in_order_and_complete() {
    // Far more images than the server admits at once.
    let server = Server::start(&[
        "--starter",
        "--max-queued-images",
        "8",
        "--max-images-per-request",
        "8",
        "--max-batch",
        "4",
    ]);
    let faces = faces(&server, 7);
    let mut expected = Vec::new();
    for face in &faces {
        let request = v1::PredictRequest {
            images: vec![face.clone().into()],
            ..Default::default()
        };
        expected.push(predict(&server, request).await.predictions[0].clone());
    }
    let count = 100;
    let requests =
        (0..count).map(|index| image(&format!("face {index}"), faces[index % 7].clone()));
    let (answers, end) = batch(&server, requests.collect()).await;
    end.unwrap();
    assert_eq!(answers.len(), count);
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.index, index as u64);
        assert_eq!(answer.id, format!("face {index}"));
        assert_eq!(answer.model_version, "models/age/versions/1");
        // The batch size may change the last digits.
        let difference = age(answer) - expected[index % 7].age;
        assert!(difference.abs() < 0.05, "{index}: {difference}");
    }
    let metrics = server.page("/metrics").await;
    assert!(metrics.contains("visage_predict_queue_depth 0\n"));
    assert!(metrics.contains("visage_predict_images_total{outcome=\"ok\"} 107\n"));
}

#[tokio::test]
async fn bad_image_has_a_response_of_its_own() {
    let server = Server::start(&["--starter"]);
    let faces = faces(&server, 2);
    let annotate = PredictBatchOptions {
        annotate: true,
        interval_level: Some(0.8),
        ..Default::default()
    };
    let requests = vec![
        options(annotate),
        image("first", faces[0].clone()),
        image("broken", b"no image".to_vec()),
        image("", Vec::new()),
        image("last", faces[1].clone()),
    ];
    let (answers, end) = batch(&server, requests).await;
    end.unwrap();
    let ids: Vec<&str> = answers.iter().map(|answer| answer.id.as_str()).collect();
    assert_eq!(ids, ["first", "broken", "", "last"]);
    for index in [0, 3] {
        match answers[index].result.as_ref().unwrap() {
            Outcome::Prediction(prediction) => {
                assert!(!prediction.annotated_png.is_empty());
                assert_eq!(prediction.interval.unwrap().confidence, 0.8);
            }
            Outcome::Error(error) => panic!("{error:?}"),
        }
    }
    for index in [1, 2] {
        match answers[index].result.as_ref().unwrap() {
            Outcome::Prediction(prediction) => panic!("{prediction:?}"),
            Outcome::Error(error) => {
                assert_eq!(error.code, Code::InvalidArgument as i32);
                assert_eq!(error.reason, "INVALID_IMAGE");
                assert!(
                    error.message.contains(&format!("image {index}")),
                    "{error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn invalid_calls_end_with_an_error() {
    let server = Server::start(&["--starter"]);
    let face = faces(&server, 1).remove(0);
    let of_model = |model: &str| {
        options(PredictBatchOptions {
            model: model.to_owned(),
            ..Default::default()
        })
    };
    let (_, end) = batch(&server, vec![of_model("models/age/versions/9")]).await;
    assert_eq!(code(&end), Code::NotFound);
    let (_, end) = batch(&server, vec![of_model("9")]).await;
    assert_eq!(code(&end), Code::InvalidArgument);
    let (answers, end) = batch(
        &server,
        vec![of_model(""), image("a", face.clone()), of_model("")],
    )
    .await;
    assert_eq!((answers.len(), code(&end)), (1, Code::InvalidArgument));
    assert!(
        end.unwrap_err()
            .message()
            .contains("got 1 images before them")
    );
    let (answers, end) = batch(
        &server,
        vec![image("a", face), PredictBatchRequest::default()],
    )
    .await;
    assert_eq!((answers.len(), code(&end)), (1, Code::InvalidArgument));
    let (answers, end) = batch(&server, Vec::new()).await;
    end.unwrap();
    assert!(answers.is_empty());
}

/// Returns true once the server has neither an image nor a call of PredictBatch in flight.
async fn is_empty(server: &Server) -> bool {
    let metrics = server.page("/metrics").await;
    let calls = "visage_rpc_in_flight{method=\"visage.v1.PredictionService/PredictBatch\"} 0\n";
    metrics.contains("visage_predict_queue_depth 0\n") && metrics.contains(calls)
}

/// Sends an image repeatedly until it is aborted.
fn endless(
    face: Vec<u8>,
    annotate: bool,
) -> (
    tokio_stream::wrappers::ReceiverStream<PredictBatchRequest>,
    tokio::task::JoinHandle<()>,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let sending = tokio::spawn(async move {
        let batch_options = PredictBatchOptions {
            annotate,
            ..Default::default()
        };
        let mut sent = sender.send(options(batch_options)).await;
        while sent.is_ok() {
            sent = sender.send(image("again", face.clone())).await;
        }
    });
    (
        tokio_stream::wrappers::ReceiverStream::new(receiver),
        sending,
    )
}

#[tokio::test]
async fn client_that_disconnects_leaves_no_work_behind() {
    let limits = ["--max-queued-images", "4", "--max-images-per-request", "4"];
    let server = Server::start(&[&["--starter", "--max-batch", "2"][..], &limits].concat());
    let (requests, sending) = endless(faces(&server, 1).remove(0), false);
    let answers = server.predictions().predict_batch(requests).await.unwrap();
    let mut answers = answers.into_inner();
    for _ in 0..20 {
        answers.next().await.unwrap().unwrap();
    }
    drop(answers);
    sending.abort();
    wait_until("empty again", || is_empty(&server)).await;
}

#[tokio::test]
async fn client_that_does_not_read_blocks_no_permits_of_others() {
    // Three permits for all batch images.
    let limits = ["--max-queued-images", "4", "--max-images-per-request", "3"];
    let server = Server::start(&[&["--starter", "--max-batch", "2"][..], &limits].concat());
    let face = faces(&server, 1).remove(0);
    let (requests, sending) = endless(face.clone(), true);
    // Its responses exceed the flow-control window, which the client never extends.
    let stalled = server.predictions().predict_batch(requests).await.unwrap();
    wait_until("without an image", || async {
        let metrics = server.page("/metrics").await;
        let done = metrics.lines().find_map(|line| {
            let count = line.strip_prefix("visage_predict_images_total{outcome=\"ok\"} ")?;
            count.parse::<u32>().ok()
        });
        // The images in flight, and those in the HTTP/2 buffers.
        done.unwrap() >= 16 && metrics.contains("visage_predict_queue_depth 0\n")
    })
    .await;
    let requests = (0..20).map(|index| image(&index.to_string(), face.clone()));
    let (answers, end) = batch(&server, requests.collect()).await;
    end.unwrap();
    assert_eq!(answers.len(), 20);
    sending.abort();
    drop(stalled);
}

#[tokio::test]
async fn shutdown_completes_received_images_and_reports_itself() {
    let mut server = Server::start(&["--starter"]);
    let face = faces(&server, 1).remove(0);
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(image("first", face)).await.unwrap();
    let answers = server.predictions().predict_batch(requests).await.unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().id, "first");
    crate::support::signal(server.pid(), "TERM");
    let end = tokio::time::timeout(PATIENCE, answers.next()).await;
    let status = end.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "SHUTTING_DOWN");
    assert_eq!(server.wait().await, Some(0));
}

/// The image as a PNG of the network's size, and its mirror image. Neither is resized, so that the
/// network also receives exact mirror images.
fn with_mirror_image(face: &[u8]) -> [Vec<u8>; 2] {
    let image = image::load_from_memory(face).unwrap().to_rgb8();
    let plain = imageops::resize(&image, 192, 192, imageops::FilterType::Triangle);
    let mirrored = imageops::flip_horizontal(&plain);
    [plain, mirrored].map(|image| {
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    })
}

#[tokio::test]
async fn average_over_the_mirror_image_is_the_mean_of_both_ages() {
    let server = Server::start(&["--starter", "--precision", "f32"]);
    let [plain, mirrored] = with_mirror_image(&faces(&server, 1)[0]);
    let asking = |images: Vec<Vec<u8>>, average_flip| v1::PredictRequest {
        images: images.into_iter().map(Into::into).collect(),
        explain: true,
        average_flip,
        ..Default::default()
    };
    let both = predict(
        &server,
        asking(vec![plain.clone(), mirrored.clone()], false),
    )
    .await;
    let [one, other] = [&both.predictions[0], &both.predictions[1]];
    assert!(
        (one.age - other.age).abs() > 0.01,
        "the same either way: {}",
        one.age
    );
    let mean = f64::midpoint(one.age, other.age);
    let averaged = predict(&server, asking(vec![plain, mirrored], true)).await;
    for averaged in &averaged.predictions {
        assert!(
            (averaged.age - mean).abs() < 1e-3,
            "{} {mean}",
            averaged.age
        );
        let explanation = averaged.explanation.as_ref().unwrap();
        let sum: f64 = explanation
            .years
            .iter()
            .map(|years| f64::from(*years))
            .sum();
        assert!((sum + explanation.base_years - averaged.age).abs() < 1e-3);
    }
    // The left half of the explanation is the mean of the image's left half and its mirror image's
    // right half.
    let [one, other, averaged] = [one, other, &averaged.predictions[0]]
        .map(|prediction| prediction.explanation.clone().unwrap());
    let columns = one.columns as usize;
    let expected = f32::midpoint(one.years[0], other.years[columns - 1]);
    assert!((averaged.years[0] - expected).abs() < 1e-3);
}

#[tokio::test]
async fn repeated_image_is_served_from_the_cache() {
    let server = Server::start(&["--starter", "--response-cache-bytes", "1MiB"]);
    let faces = faces(&server, 2);
    let asking = |images: &[&Vec<u8>], annotate| v1::PredictRequest {
        images: images.iter().map(|image| image.to_vec().into()).collect(),
        annotate,
        ..Default::default()
    };
    let cached = |response: &v1::PredictResponse| -> Vec<bool> {
        let predictions = response.predictions.iter();
        predictions.map(|prediction| prediction.cached).collect()
    };
    let first = predict(&server, asking(&[&faces[0]], false)).await;
    assert_eq!(cached(&first), [false]);
    let again = predict(&server, asking(&[&faces[1], &faces[0]], false)).await;
    assert_eq!(cached(&again), [false, true]);
    assert_eq!(again.predictions[1].age, first.predictions[0].age);
    assert_eq!(again.predictions[1].interval, first.predictions[0].interval);
    // Other options are not served from the cache.
    let drawn = predict(&server, asking(&[&faces[0]], true)).await;
    assert_eq!(cached(&drawn), [false]);
    let drawn_again = predict(&server, asking(&[&faces[0]], true)).await;
    assert_eq!(cached(&drawn_again), [true]);
    assert_eq!(
        drawn_again.predictions[0].annotated_png,
        drawn.predictions[0].annotated_png
    );
    // Failures are not cached.
    for _ in 0..2 {
        let broken = b"no image".to_vec();
        let mut client = server.predictions();
        let refused = client.predict(asking(&[&broken], false)).await;
        assert_eq!(code(&refused), Code::InvalidArgument);
    }
    let metrics = server.page("/metrics").await;
    let counted = |line: &str| metrics.contains(line);
    assert!(
        counted("visage_response_cache_lookups_total{result=\"hit\"} 2\n"),
        "{metrics}"
    );
    assert!(
        counted("visage_response_cache_lookups_total{result=\"miss\"} 5\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn client_that_overloads_does_not_block_others() {
    let limits = ["--max-queued-images", "16", "--max-images-per-request", "8"];
    // The clients of the test are those of a proxy.
    let options = [
        "--starter",
        "--max-batch",
        "8",
        "--trusted-proxies",
        "127.0.0.1",
    ];
    let server = Server::start(&[&options[..], &limits].concat());
    let face = prost::bytes::Bytes::from(faces(&server, 1).remove(0));
    let asking = move |client: &str, images: usize| {
        let mut request = tonic::Request::new(v1::PredictRequest {
            images: vec![face.clone(); images],
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("client-id", client.parse().unwrap());
        request
    };
    server
        .predictions()
        .predict(asking("little", 1))
        .await
        .unwrap();
    // Six clients with eight images each request three times the number of permits.
    let stop = tokio_util::sync::CancellationToken::new();
    let greedy: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, stop, asking) = (server.predictions(), stop.clone(), asking.clone());
            tokio::spawn(async move {
                let mut refused = Vec::new();
                while !stop.is_cancelled() {
                    if let Err(status) = client.predict(asking("much", 8)).await {
                        refused.push(reason(&status));
                    }
                }
                refused
            })
        })
        .collect();
    for _ in 0..30 {
        server
            .predictions()
            .predict(asking("little", 1))
            .await
            .unwrap();
    }
    stop.cancel();
    let mut refused = Vec::new();
    for caller in greedy {
        refused.extend(caller.await.unwrap());
    }
    assert!(
        refused.iter().any(|reason| reason == "CLIENT_SHARE_FULL"),
        "{refused:?}"
    );
    // A name that is too long is refused, not truncated.
    let refused = server
        .predictions()
        .predict(asking(&"x".repeat(65), 1))
        .await;
    assert_eq!(code(&refused), Code::InvalidArgument);
}
