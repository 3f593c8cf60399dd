//! Requests of browsers: gRPC-Web over HTTP/1.1, and CORS preflight requests.

use prost::Message;
use ureq::http::{Response, header::HeaderMap};
use visage::proto::v1;

use crate::support::Server;

const INFO: &str = "/visage.v1.SystemService/GetServerInfo";
/// Origin of another page.
const ORIGIN: &str = "https://example.org";

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.build().into()
}

/// A gRPC-Web frame: a flag, the length in four bytes, the message.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &bytes].concat()
}

/// The frames of a response, each with its flag.
fn frames(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, body)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        frames.push((head[0], body[..length].to_vec()));
        rest = &body[length..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    frames
}

/// Calls a method like a page of the server.
fn call(address: &str, path: &str, message: &impl Message) -> Response<ureq::Body> {
    call_from(&format!("http://{address}"), address, path, message)
}

/// Calls a method like a page of an origin.
fn call_from(
    origin: &str,
    address: &str,
    path: &str,
    message: &impl Message,
) -> Response<ureq::Body> {
    agent()
        .post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .header("origin", origin)
        .send(framed(message))
        .unwrap()
}

/// Sends the preflight request of a page of [`ORIGIN`].
fn preflight(address: &str, path: &str) -> Response<ureq::Body> {
    let request = ureq::http::Request::options(format!("http://{address}{path}"))
        .header("origin", ORIGIN)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-grpc-web")
        .body(())
        .unwrap();
    agent().run(request).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[test]
fn browsers_call_the_whole_api_on_both_ports() {
    let server = Server::start(&[]);
    for address in [&server.grpc, &server.http] {
        let mut answer = call(address, INFO, &v1::GetServerInfoRequest {});
        assert_eq!(answer.status(), 200, "{address}");
        let frames = frames(&answer.body_mut().read_to_vec().unwrap());
        let [(0, message), (0x80, trailers)] = frames.as_slice() else {
            panic!("expected a message and trailers: {frames:?}");
        };
        let info = v1::GetServerInfoResponse::decode(message.as_slice()).unwrap();
        assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
        let trailers = String::from_utf8_lossy(trailers);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");

        // An error is a status in the headers, with its reason in the details.
        let unknown = v1::GetTrainingRequest {
            name: "trainings/nobody".to_owned(),
        };
        let answer = call(address, "/visage.v1.TrainingService/GetTraining", &unknown);
        assert_eq!(header(answer.headers(), "grpc-status"), "5");
        assert!(!header(answer.headers(), "grpc-status-details-bin").is_empty());
    }
}

#[test]
fn stream_reaches_a_browser_event_by_event() {
    let server = Server::start(&[]);
    let request = v1::StreamEpochMetricsRequest {
        name: "trainings/-".to_owned(),
        follow: Some(true),
        heartbeat_interval: prost_types::Duration::try_from(std::time::Duration::from_millis(100))
            .ok(),
        ..Default::default()
    };
    let path = "/visage.v1.TrainingService/StreamEpochMetrics";
    let mut answer = call(&server.http, path, &request);
    // The stream is endless, so the first frame arrives before the last.
    let mut head = [0; 5];
    std::io::Read::read_exact(&mut answer.body_mut().as_reader(), &mut head).unwrap();
    assert_eq!(head[0], 0);
}

#[test]
fn only_pages_of_the_given_origins_may_call() {
    let closed = Server::start(&[]);
    for address in [&closed.grpc, &closed.http] {
        let answer = preflight(address, INFO);
        assert_eq!(header(answer.headers(), "access-control-allow-origin"), "");
        let answer = call_from(ORIGIN, address, INFO, &v1::GetServerInfoRequest {});
        assert_eq!(header(answer.headers(), "grpc-status"), "7");
    }

    let open = Server::start(&["--cors-origins", ORIGIN]);
    for address in [&open.grpc, &open.http] {
        let answer = preflight(address, INFO);
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        assert_eq!(header(headers, "access-control-allow-origin"), ORIGIN);
        assert_eq!(
            header(headers, "access-control-allow-headers"),
            "content-type,x-grpc-web"
        );
        assert!(header(headers, "access-control-allow-methods").contains("POST"));

        let answer = call_from(ORIGIN, address, INFO, &v1::GetServerInfoRequest {});
        let headers = answer.headers();
        assert_eq!(header(headers, "access-control-allow-origin"), ORIGIN);
        let exposed = header(headers, "access-control-expose-headers");
        assert!(exposed.contains("grpc-status-details-bin"), "{exposed}");
    }
    let other = Server::start(&["--cors-origins", "https://example.com"]);
    let answer = preflight(&other.grpc, INFO);
    assert_eq!(header(answer.headers(), "access-control-allow-origin"), "");
}

#[test]
fn http_port_without_the_dashboard_has_no_api() {
    let server = Server::start(&["--dashboard=false"]);
    let answer = call(&server.http, INFO, &v1::GetServerInfoRequest {});
    assert_eq!(answer.status(), 404);
    let answer = call(&server.grpc, INFO, &v1::GetServerInfoRequest {});
    assert_eq!(answer.status(), 200);
}
