//! Clients in other languages: compressed calls, and error details that are described by
//! reflection.

use std::collections::{BTreeMap, BTreeSet};

use flate2::read::GzDecoder;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorProto;
use tonic::{Code, Status, codec::CompressionEncoding, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};
use visage::proto::{
    open_inference::{
        ServerMetadataRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    },
    v1::{
        self, dataset_service_client::DatasetServiceClient,
        model_service_client::ModelServiceClient,
        prediction_service_client::PredictionServiceClient,
        system_service_client::SystemServiceClient, training_event::Kind,
        training_service_client::TrainingServiceClient,
    },
};

use crate::support::{Server, files_of, long_spec, reason, small_spec};

const GZIP: CompressionEncoding = CompressionEncoding::Gzip;

macro_rules! compressing {
    ($client:ident, $server:expr, $encoding:expr) => {
        $client::new($server.channel())
            .send_compressed($encoding)
            .accept_compressed(GZIP)
    };
}

fn predict_request(server: &Server) -> v1::PredictRequest {
    let faces = server.faces("one", 1, 77);
    v1::PredictRequest {
        images: vec![fs_err::read(&files_of(&faces)[0]).unwrap().into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn every_service_accepts_and_sends_compressed_messages() {
    let server = Server::start(&["--starter"]);
    let asked = predict_request(&server);
    for encoding in [GZIP, CompressionEncoding::Deflate] {
        let mut announced = Vec::new();
        let mut note = |metadata: &tonic::metadata::MetadataMap| {
            announced.push(metadata.get("grpc-encoding").cloned());
        };
        let request = v1::ListTrainingsRequest::default();
        let mut trainings = compressing!(TrainingServiceClient, server, encoding);
        note(trainings.list_trainings(request).await.unwrap().metadata());
        let request = v1::ListModelVersionsRequest::default();
        let mut models = compressing!(ModelServiceClient, server, encoding);
        note(
            models
                .list_model_versions(request)
                .await
                .unwrap()
                .metadata(),
        );
        let mut predictions = compressing!(PredictionServiceClient, server, encoding);
        note(predictions.predict(asked.clone()).await.unwrap().metadata());
        let request = v1::ListDatasetsRequest::default();
        let mut datasets = compressing!(DatasetServiceClient, server, encoding);
        note(datasets.list_datasets(request).await.unwrap().metadata());
        let request = v1::GetServerInfoRequest::default();
        let mut system = compressing!(SystemServiceClient, server, encoding);
        note(system.get_server_info(request).await.unwrap().metadata());
        let request = ServerMetadataRequest::default();
        let mut triton = compressing!(GrpcInferenceServiceClient, server, encoding);
        note(triton.server_metadata(request).await.unwrap().metadata());
        let request = HealthCheckRequest::default();
        let mut health = compressing!(HealthClient, server, encoding);
        note(health.check(request).await.unwrap().metadata());
        for found in announced {
            assert_eq!(
                found.as_ref().map(|value| value.as_bytes()),
                Some(&b"gzip"[..])
            );
        }
        // Both versions of reflection, whose calls are streams.
        let symbol = "visage.v1.PredictionService";
        for found in [
            describing_files(&server, symbol, Some(encoding)).await,
            old_describing_files(&server, symbol, Some(encoding)).await,
        ] {
            assert_eq!(found.unwrap()[0].name(), "visage/v1/prediction.proto");
        }
    }
}

/// The messages of a gRPC-Web response to a call with these headers, each with its flag. The gRPC
/// client of the tests would decompress them.
fn messages_of(
    server: &Server,
    path: &str,
    message: &impl Message,
    accept: Option<&str>,
) -> Vec<(u8, Vec<u8>)> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap();
    let framed = [&[0][..], &length.to_be_bytes(), &bytes].concat();
    let request = ureq::post(format!("http://{}/{path}", server.grpc))
        .header("content-type", "application/grpc-web+proto");
    let request = match accept {
        Some(accept) => request.header("grpc-accept-encoding", accept),
        None => request,
    };
    let mut answer = request.send(framed).unwrap();
    let body = answer.body_mut().read_to_vec().unwrap();
    let mut rest = body.as_slice();
    let mut messages = Vec::new();
    while let Some((head, body)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        messages.push((head[0], body[..length].to_vec()));
        rest = &body[length..];
    }
    // The last frame holds the trailers.
    assert_eq!(messages.pop().map(|(flag, _)| flag), Some(0x80));
    messages
}

#[test]
fn responses_are_compressed_only_for_clients_that_accept_it() {
    let server = Server::start(&["--starter"]);
    let path = "visage.v1.ModelService/ListModelVersions";
    let request = v1::ListModelVersionsRequest::default();
    let mut expected = None;
    for (accept, is_compressed) in [
        (None, false),
        (Some("identity"), false),
        (Some("br,zstd"), false),
        (Some("gzip"), true),
        // The values that the Python and C++ clients send.
        (Some("identity, deflate, gzip"), true),
    ] {
        let messages = messages_of(&server, path, &request, accept);
        let [(flag, message)] = messages.as_slice() else {
            panic!("{accept:?}: {messages:?}");
        };
        assert_eq!(*flag, u8::from(is_compressed), "{accept:?}");
        let mut plain = Vec::new();
        match is_compressed {
            true => {
                let mut decoder = GzDecoder::new(message.as_slice());
                std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
                assert!(message.len() < plain.len(), "{} bytes", message.len());
            }
            false => plain.clone_from(message),
        }
        let versions = v1::ListModelVersionsResponse::decode(plain.as_slice()).unwrap();
        assert_eq!(versions.versions.len(), 1);
        assert_eq!(expected.get_or_insert(versions.clone()), &versions);
    }
    // A small response and one that is mostly a PNG are not compressed.
    let plain = predict_request(&server);
    let annotated = v1::PredictRequest {
        annotate: true,
        ..plain.clone()
    };
    for request in [plain, annotated] {
        let path = "visage.v1.PredictionService/Predict";
        let messages = messages_of(&server, path, &request, Some("gzip"));
        let [(0, message)] = messages.as_slice() else {
            panic!("{messages:?}");
        };
        let response = v1::PredictResponse::decode(message.as_slice()).unwrap();
        assert_eq!(response.predictions.len(), 1);
    }
}

#[tokio::test]
async fn a_compressed_message_may_be_as_large_as_a_plain_one_and_no_larger() {
    let server = Server::start(&[
        "--starter",
        "--max-image-bytes",
        "1MiB",
        "--max-message-bytes",
        "1MiB",
    ]);
    let zeros = |bytes: usize| v1::PredictRequest {
        images: vec![vec![0; bytes].into()],
        ..Default::default()
    };
    for encoding in [GZIP, CompressionEncoding::Deflate] {
        let mut client = compressing!(PredictionServiceClient, server, encoding);
        let bomb = client.predict(zeros(64 << 20)).await.unwrap_err();
        assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb:?}");
        assert!(bomb.message().contains("1048576 bytes"), "{bomb:?}");
        let bomb = client.predict(zeros(1 << 20)).await.unwrap_err();
        assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb:?}");
        // It is accepted, and then refused because it is not an image.
        let read = client.predict(zeros((1 << 20) - 100)).await.unwrap_err();
        assert_eq!(reason(&read), "INVALID_IMAGE", "{read:?}");
    }
    // The same limit without compression.
    let mut plain = PredictionServiceClient::new(server.channel());
    let large = plain.predict(zeros(1 << 20)).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    // Health and reflection have gRPC's default limit.
    let mut health = compressing!(HealthClient, server, GZIP);
    let service = "a".repeat(5 << 20);
    let bomb = health
        .check(HealthCheckRequest { service })
        .await
        .unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb:?}");
}

#[tokio::test]
async fn a_compressed_stream_delivers_each_event_when_it_happens() {
    let server = Server::start(&[]);
    let mut client = compressing!(TrainingServiceClient, server, GZIP);
    let name = server.queue(long_spec(&server.faces("faces", 40, 1))).await;
    let request = v1::StreamEpochMetricsRequest {
        name: name.clone(),
        ..Default::default()
    };
    let response = client.stream_epoch_metrics(request).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    let mut events = response.into_inner();
    // The training never ends, so an event that waited for later ones would never arrive.
    loop {
        let event = events.message().await.unwrap().unwrap().event.unwrap();
        if let Some(Kind::StateChanged(change)) = event.kind
            && change.state() == v1::TrainingState::Running
        {
            break;
        }
    }
}

/// Types of google.rpc's error details.
const DETAILS: [&str; 11] = [
    "google.rpc.ErrorInfo",
    "google.rpc.RetryInfo",
    "google.rpc.DebugInfo",
    "google.rpc.QuotaFailure",
    "google.rpc.PreconditionFailure",
    "google.rpc.BadRequest",
    "google.rpc.RequestInfo",
    "google.rpc.ResourceInfo",
    "google.rpc.Help",
    "google.rpc.LocalizedMessage",
    "google.rpc.Status",
];

/// The file of a symbol with its imports, as a client without descriptors fetches them.
macro_rules! describing_files {
    ($name:ident, $module:ident) => {
        async fn $name(
            server: &Server,
            symbol: &str,
            encoding: Option<CompressionEncoding>,
        ) -> Result<Vec<FileDescriptorProto>, Status> {
            use $module::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let mut client: ServerReflectionClient<Channel> =
                ServerReflectionClient::new(server.channel());
            if let Some(encoding) = encoding {
                client = client.send_compressed(encoding).accept_compressed(GZIP);
            }
            let mut files: Vec<FileDescriptorProto> = Vec::new();
            let mut wanted = vec![MessageRequest::FileContainingSymbol(symbol.to_owned())];
            while let Some(request) = wanted.pop() {
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(request),
                };
                let requests = tokio_stream::once(request);
                let answers = client.server_reflection_info(requests).await?;
                let answer = answers.into_inner().message().await?.unwrap();
                let Some(MessageResponse::FileDescriptorResponse(found)) = answer.message_response
                else {
                    panic!("{answer:?}");
                };
                for file in found.file_descriptor_proto {
                    let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                    let known = |name: &&String| files.iter().all(|file| file.name() != *name);
                    let missing = file.dependency.iter().filter(known).cloned();
                    wanted.extend(missing.map(MessageRequest::FileByFilename));
                    if files.iter().all(|other| other.name() != file.name()) {
                        files.push(file);
                    }
                }
            }
            Ok(files)
        }
    };
}

describing_files!(describing_files, reflection);
describing_files!(old_describing_files, old_reflection);

#[tokio::test]
async fn reflection_describes_the_details_of_errors() {
    let server = Server::start(&[]);
    let mut pools = BTreeMap::new();
    for symbol in DETAILS {
        let files = describing_files(&server, symbol, None).await.unwrap();
        let by_old = old_describing_files(&server, symbol, None).await.unwrap();
        assert_eq!(files, by_old, "{symbol}");
        let expected = match symbol {
            "google.rpc.Status" => "google/rpc/status.proto",
            _ => "google/rpc/error_details.proto",
        };
        assert_eq!(files[0].name(), expected);
        // Fails if an imported file is missing.
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files).unwrap();
        pools.insert(symbol.to_owned(), pool);
    }
    let unknown = describing_files(&server, "google.rpc.Nothing", None).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

    // The details of a real error, decoded with these descriptors only.
    let spec = v1::TrainingSpec {
        max_epochs: Some(0),
        batch_size: Some(0),
        ..small_spec(&server.path("missing"))
    };
    let request = v1::StartTrainingRequest {
        spec: Some(spec),
        ..Default::default()
    };
    let refused = server
        .trainings()
        .start_training(request)
        .await
        .unwrap_err();
    let by_reflection = |name: &str, bytes: &[u8]| {
        let message = pools[name].get_message_by_name(name).unwrap();
        DynamicMessage::decode(message, bytes).unwrap()
    };
    let status = by_reflection("google.rpc.Status", refused.details());
    let details = status.get_field_by_name("details").unwrap();
    let mut found = BTreeSet::new();
    for detail in details.as_list().unwrap() {
        let any = detail.as_message().unwrap();
        let of = |field: &str| any.get_field_by_name(field).unwrap();
        let (url, value) = (of("type_url"), of("value"));
        let name = url
            .as_str()
            .unwrap()
            .strip_prefix("type.googleapis.com/")
            .unwrap();
        let detail = by_reflection(name, value.as_bytes().unwrap());
        match name {
            "google.rpc.ErrorInfo" => {
                let reason = detail.get_field_by_name("reason").unwrap();
                assert_eq!(reason.as_str(), Some("INVALID_FIELDS"));
            }
            "google.rpc.BadRequest" => {
                let violations = detail.get_field_by_name("field_violations").unwrap();
                assert!(violations.as_list().unwrap().len() >= 2, "{detail:?}");
            }
            other => panic!("{other} is not expected: {detail:?}"),
        }
        found.insert(name.to_owned());
    }
    assert_eq!(found.len(), 2, "{found:?}");
}
