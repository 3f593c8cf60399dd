//! Entries of the audit log.

use std::{net::IpAddr, time::SystemTime};

use axum::{body::Bytes, extract::Request, response::Response};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::Code;

use super::refusals::Form;
use crate::{
    access::{AuditEntry, AuditLog, AuditPlace},
    proto::{
        DESCRIPTOR,
        recorded::{Copied, Recorded},
    },
    services::caller,
};

/// Longer texts of a request are shortened.
const MAX_TEXT: usize = 512;
/// The outcome of a call that was cancelled.
const UNFINISHED: &str = "Unfinished";

/// The parts of a request that its entry has.
pub(in crate::server) struct Audited {
    address: Option<IpAddr>,
    uid: Option<u32>,
    /// As in [`AuditEntry`].
    call: String,
}

impl Audited {
    pub(in crate::server) fn of(request: &Request) -> Self {
        let path = request.uri().path();
        let is_rpc = path.contains('.') && path.matches('/').count() == 2;
        let mut call = if is_rpc {
            path.trim_start_matches('/').to_owned()
        } else {
            format!("{} {path}", request.method())
        };
        shorten_text(&mut call);
        Self {
            address: caller::address(request.extensions()).map(|address| address.ip()),
            uid: caller::user(request.extensions()),
            call,
        }
    }

    fn entry(self, identity: Option<String>, outcome: String, request: Copied) -> AuditEntry {
        AuditEntry {
            time: SystemTime::now(),
            identity,
            address: self.address,
            uid: self.uid,
            request: match request {
                Copied::Nothing => None,
                Copied::TooLong(bytes) => Some(json!({ "bytes": bytes })),
                Copied::Message(bytes) => fields(&self.call, &bytes),
            },
            outcome,
            call: self.call,
        }
    }
}

/// The entry of a call that changes something. It is recorded as unfinished if it is dropped before
/// the end of the call, as when the client leaves.
pub(super) struct Change {
    /// Until the entry is recorded.
    open: Option<(AuditPlace, Audited)>,
    identity: String,
    /// Receives the request when it is decoded.
    pub(super) request: Recorded,
}

impl Change {
    /// Waits for a place in the log. `None` if the log cannot be written.
    pub(super) async fn begin(log: &AuditLog, audited: Audited, identity: &str) -> Option<Self> {
        Some(Self {
            open: Some((log.reserve().await?, audited)),
            identity: identity.to_owned(),
            request: Recorded::default(),
        })
    }

    pub(super) fn finish(mut self, outcome: String) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: String) {
        if let Some((place, audited)) = self.open.take() {
            let identity = Some(self.identity.clone());
            place.record(audited.entry(identity, outcome, self.request.take()));
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.record(UNFINISHED.to_owned());
    }
}

/// Writes the entry of a call without a change: a refused one, or a login.
pub(in crate::server) async fn record(
    log: &AuditLog,
    audited: Audited,
    identity: Option<String>,
    outcome: String,
) {
    if let Some(place) = log.reserve().await {
        place.record(audited.entry(identity, outcome, Copied::Nothing));
    }
}

/// The outcome of a call in its entry.
pub(super) fn outcome(form: &Form, response: &Response) -> String {
    // A call that succeeds has its status in the trailers.
    let code = response.headers().get("grpc-status");
    match (code, form) {
        (Some(code), _) => format!("{:?}", Code::from_bytes(code.as_bytes())),
        (None, Form::Grpc(_)) if response.status().is_success() => format!("{:?}", Code::Ok),
        (None, _) => response.status().as_u16().to_string(),
    }
}

/// The fields of a request of this method.
fn fields(call: &str, bytes: &Bytes) -> Option<Value> {
    let (service, method) = call.split_once('/')?;
    let pool = DescriptorPool::decode(DESCRIPTOR).ok()?;
    let service = pool.get_service_by_name(service)?;
    let method = service.methods().find(|found| found.name() == method)?;
    let message = DynamicMessage::decode(method.input(), bytes.clone()).ok()?;
    let mut fields = serde_json::to_value(message).ok()?;
    shorten(&mut fields);
    Some(fields)
}

fn shorten_text(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push('…');
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => shorten_text(text),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::v1;

    #[test]
    fn entry_has_the_fields_of_the_request() {
        let request = v1::SetAliasRequest {
            name: "models/age/versions/3".to_owned(),
            alias: "x".repeat(600),
            expected_version: Some(2),
        };
        let bytes = Bytes::from(request.encode_to_vec());
        let found = fields("visage.v1.ModelService/SetAlias", &bytes).unwrap();
        assert_eq!(found["name"], "models/age/versions/3");
        assert_eq!(found["expectedVersion"], "2");
        let alias = found["alias"].as_str().unwrap();
        assert_eq!(alias.chars().count(), 513);
        assert_eq!(fields("visage.v1.ModelService/Unknown", &bytes), None);
    }
}
