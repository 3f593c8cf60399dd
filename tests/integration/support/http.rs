//! Requests to the HTTP port. ureq blocks, so each runs on a thread.

use std::thread;

use tonic::{Code, Status};
use ureq::{Agent, SendBody, http::Response};

pub(crate) async fn page(address: &str) -> Result<String, ureq::Error> {
    let address = address.to_owned();
    let read = move || {
        ureq::get(&address)
            .call()
            .and_then(|mut page| page.body_mut().read_to_string())
    };
    std::thread::spawn(read).join().unwrap()
}

pub(crate) type Answer = Response<ureq::Body>;

/// Sends one request, and returns status and response.
pub(crate) fn ask(
    method: &str,
    url: String,
    headers: &[(&str, String)],
    body: Option<Vec<u8>>,
) -> (u16, Answer) {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let method = method.to_owned();
    let asking = move || {
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method.as_str())
            .uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = match body {
            Some(body) => agent.run(request.body(body).unwrap()),
            None => agent.run(request.body(SendBody::none()).unwrap()),
        };
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer)
    };
    thread::spawn(asking).join().unwrap()
}

pub(crate) fn header(answer: &Answer, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

/// ErrorInfo.reason of a status.
pub(crate) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

pub(crate) fn code<T>(result: &Result<T, Status>) -> Code {
    result.as_ref().err().map_or(Code::Ok, Status::code)
}
