//! The Open Inference Protocol: requests that Triton's clients never send, and a shutdown during a
//! stream.
//!
//! `tests/python/test_open_inference.py` tests the rest with those clients.

use std::time::{Duration, Instant};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;
use visage::proto::{
    open_inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
        ModelStatisticsRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
    v1,
};

use crate::support::{PATIENCE, Server, files_of, reason, signal, wait_until};

/// Input size of the network in `small_spec`.
const SIDE: usize = 32;

fn client(server: &Server) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(server.channel())
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

fn request(input: InferInputTensor) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "age".to_owned(),
        inputs: vec![input],
        ..Default::default()
    }
}

/// A request with raw elements.
fn raw(input: InferInputTensor, bytes: Vec<u8>) -> ModelInferRequest {
    ModelInferRequest {
        raw_input_contents: vec![bytes.into()],
        ..request(input)
    }
}

/// Elements with their lengths, the encoding of BYTES.
fn prefixed(elements: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in elements {
        let length = u32::try_from(element.len()).unwrap();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(element);
    }
    bytes
}

fn in_list(mut input: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    input.contents = Some(contents);
    request(input)
}

fn ages(response: &ModelInferResponse) -> Vec<f32> {
    assert_eq!(response.outputs[0].name, "age");
    assert!(response.outputs[0].contents.is_none());
    let (values, rest) = response.raw_output_contents[0].as_chunks::<4>();
    assert!(rest.is_empty());
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

fn grey(images: usize) -> Vec<f32> {
    (0..images * 3 * SIDE * SIDE)
        .map(|index| (index % 7) as f32 / 7.0)
        .collect()
}

#[tokio::test]
async fn list_elements_equal_raw_ones() {
    let server = Server::start(&[]);
    server.train_small().await;
    let mut client = client(&server);
    let files = files_of(&server.path("small"));
    let images: Vec<Vec<u8>> = files[..3]
        .iter()
        .map(|file| fs_err::read(file).unwrap())
        .collect();
    let listed: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let image = || tensor("image", "BYTES", &[3, 1]);
    let contents = InferTensorContents {
        bytes_contents: images.iter().cloned().map(Into::into).collect(),
        ..Default::default()
    };
    let values = grey(2);
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    let side = SIDE as i64;
    let input = || tensor("input", "FP32", &[2, 3, side, side]);
    let numbers = InferTensorContents {
        fp32_contents: values.clone(),
        ..Default::default()
    };
    for (as_raw, as_list, count) in [
        (
            raw(image(), prefixed(&listed)),
            in_list(image(), contents),
            3,
        ),
        (raw(input(), bytes.collect()), in_list(input(), numbers), 2),
    ] {
        let by_raw = client.model_infer(as_raw).await.unwrap().into_inner();
        let by_list = client.model_infer(as_list).await.unwrap().into_inner();
        assert_eq!(by_raw.outputs, by_list.outputs);
        let (by_raw, by_list) = (ages(&by_raw), ages(&by_list));
        assert_eq!(by_raw.len(), count);
        for (one, other) in by_raw.iter().zip(&by_list) {
            assert!((one - other).abs() < 1e-3, "{by_raw:?} and {by_list:?}");
        }
    }
}

#[tokio::test]
async fn inconsistent_tensors_are_refused_with_their_field() {
    let server = Server::start(&[]);
    server.train_small().await;
    let mut client = client(&server);
    let image = |shape: &[i64]| tensor("image", "BYTES", shape);
    let side = SIDE as i64;
    let input = |shape: &[i64]| tensor("input", "FP32", shape);
    let two = prefixed(&[b"ab", b"cde"]);
    let floats = |count: usize| {
        let values = grey(count);
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let bytes_list = InferTensorContents {
        bytes_contents: vec![b"ab".as_slice().into()],
        ..Default::default()
    };
    let numbers = InferTensorContents {
        fp32_contents: grey(1),
        ..Default::default()
    };
    let mut shared = image(&[1]);
    shared.parameters.insert(
        "shared_memory_region".to_owned(),
        InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam("faces".to_owned())),
        },
    );
    let mut both = raw(image(&[2]), two.clone());
    both.inputs[0].contents = Some(bytes_list.clone());
    let mut surplus = raw(image(&[2]), two.clone());
    surplus.raw_input_contents.push(two.clone().into());
    let cases = [
        (request(image(&[1])), "they are missing"),
        (
            both,
            "inputs[0].contents: must be empty if the elements are in raw_input_contents",
        ),
        (
            surplus,
            "raw_input_contents: must have one element for each of the 1 inputs or be empty, got 2",
        ),
        (
            raw(image(&[3]), two.clone()),
            "element 2 of 3 must start with its length in 4 bytes, but 0 bytes are left",
        ),
        (
            raw(image(&[1]), two.clone()),
            "7 bytes follow the last of 1 elements",
        ),
        (
            raw(image(&[2]), two[..12].to_vec()),
            "element 1 of 2 must have 3 bytes, but 2 are left",
        ),
        (
            raw(image(&[1]), vec![0xff; 4]),
            "element 0 of 1 must have 4294967295 bytes, but 0 are left",
        ),
        (
            raw(image(&[0]), Vec::new()),
            "inputs[0].shape: must be [N] or [N,1] with N from 1 for image of models/age/versions/1, got [0]",
        ),
        (raw(image(&[-1]), two.clone()), "got [-1]"),
        (raw(image(&[2, 2]), two.clone()), "got [2, 2]"),
        (raw(image(&[i64::MAX]), two.clone()), "images are too many"),
        (
            in_list(image(&[2]), bytes_list.clone()),
            "the shape of 1 images must be [1] or [1,1], got [2]",
        ),
        (
            in_list(image(&[1]), numbers.clone()),
            "must be in the field for BYTES",
        ),
        (
            request(shared),
            "inputs[0].parameters[shared_memory_region]: is not supported",
        ),
        (
            raw(input(&[2, 3, side, side]), floats(1)),
            "the shape [2, 3, 32, 32] needs 24576 bytes, got 12288",
        ),
        (
            raw(input(&[1, 3, side, side]), floats(2)),
            "needs 12288 bytes, got 24576",
        ),
        (
            raw(input(&[1, 1, side, side]), floats(1)),
            "inputs[0].shape: must be [N,3,32,32] with N from 1",
        ),
        (
            raw(input(&[i64::MAX, 3, side, side]), floats(1)),
            "images are too many",
        ),
        (
            in_list(input(&[2, 3, side, side]), numbers),
            "needs 6144 numbers, got 3072",
        ),
        (
            in_list(input(&[1, 3, side, side]), bytes_list),
            "must be in the field for FP32",
        ),
    ];
    for (request, words) in cases {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{words}: {status:?}");
        assert!(
            status.message().contains(words),
            "{words}: {}",
            status.message()
        );
        assert_eq!(reason(&status), "INVALID_FIELDS", "{words}");
    }
    let bad = raw(image(&[2]), two);
    let status = client.model_infer(bad).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_IMAGE");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["index"], "0");
}

#[tokio::test]
async fn a_full_queue_refuses_a_request_and_counts_it() {
    let server = Server::start(&[
        "--max-queued-images",
        "4",
        "--max-images-per-request",
        "4",
        "--max-batch",
        "4",
    ]);
    server.train_small().await;
    let mut client = client(&server);
    let mut large = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(7_000, 7_000)
        .write_to(&mut large, image::ImageFormat::Png)
        .unwrap();
    let slow = v1::PredictRequest {
        images: vec![large.into_inner().into(); 4],
        ..Default::default()
    };
    let begun = Instant::now();
    let refused = loop {
        let (mut predictions, slow) = (server.predictions(), slow.clone());
        let busy = tokio::spawn(async move { predictions.predict(slow).await });
        wait_until("four images are in the server", async || {
            let metrics = server.page("/metrics").await;
            busy.is_finished() || metrics.contains("\nvisage_predict_queue_depth 4\n")
        })
        .await;
        let side = SIDE as i64;
        let values = InferTensorContents {
            fp32_contents: grey(1),
            ..Default::default()
        };
        let input = tensor("input", "FP32", &[1, 3, side, side]);
        let answer = client.model_infer(in_list(input, values)).await;
        busy.await.unwrap().unwrap();
        // On a busy machine the images may be computed already.
        if let Err(status) = answer {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it was never refused");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(reason(&refused), "QUEUE_FULL");
    assert!(refused.get_details_retry_info().is_some());
    let of_age = ModelStatisticsRequest {
        name: "age".to_owned(),
        version: String::new(),
    };
    let statistics = client.model_statistics(of_age).await.unwrap().into_inner();
    let requests = statistics.model_stats[0].inference_stats.unwrap();
    assert_eq!(requests.fail.unwrap().count, 1);
    assert!(requests.success.unwrap().count > 0);
}

#[tokio::test]
async fn shutdown_ends_a_stream_with_a_retry_delay() {
    let mut server = Server::start(&[]);
    server.train_small().await;
    let mut client = client(&server);
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let side = SIDE as i64;
    let values = InferTensorContents {
        fp32_contents: grey(1),
        ..Default::default()
    };
    let input = tensor("input", "FP32", &[1, 3, side, side]);
    requests.send(in_list(input, values)).await.unwrap();
    let stream = client.model_stream_infer(ReceiverStream::new(receiver));
    let mut answers = stream.await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(ages(&first.infer_response.unwrap()).len(), 1);
    signal(server.pid(), "TERM");
    // The client keeps its side open.
    let last = tokio::time::timeout(Duration::from_secs(60), answers.message());
    let status: Status = last.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some());
    drop(requests);
    assert_eq!(server.wait().await, Some(0));
}
