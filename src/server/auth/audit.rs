//! Entries of the audit log.

use std::{net::IpAddr, time::SystemTime};

use axum::{body::Bytes, extract::Request, response::Response};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::Code;

use super::refusals::Form;
use crate::{
    access::{AuditEntry, AuditLog},
    proto::DESCRIPTOR,
    server::network::ConnectionState,
};

/// Longer texts of a request are shortened.
const MAX_TEXT: usize = 512;

/// The parts of a request that its entry has.
pub(super) struct Audited {
    address: Option<IpAddr>,
    uid: Option<u32>,
    /// As in [`AuditEntry`].
    call: String,
}

impl Audited {
    pub(super) fn of(request: &Request, address: Option<IpAddr>) -> Self {
        let path = request.uri().path();
        let is_rpc = path.contains('.') && path.matches('/').count() == 2;
        let connection = request.extensions().get::<ConnectionState>();
        Self {
            address,
            uid: connection.and_then(|connection| connection.peer_uid),
            call: if is_rpc {
                path.trim_start_matches('/').to_owned()
            } else {
                format!("{} {path}", request.method())
            },
        }
    }
}

/// Writes an entry, if there is a log.
pub(super) async fn record(
    log: &Option<AuditLog>,
    audited: Option<Audited>,
    identity: Option<String>,
    outcome: String,
    request: Option<Bytes>,
) {
    let (Some(log), Some(audited)) = (log, audited) else {
        return;
    };
    let entry = AuditEntry {
        time: SystemTime::now(),
        identity,
        address: audited.address,
        uid: audited.uid,
        request: request.and_then(|bytes| fields(&audited.call, &bytes)),
        outcome,
        call: audited.call,
    };
    log.record(entry).await;
}

/// The outcome of a call in its entry.
pub(super) fn outcome(form: &Form, response: &Response) -> String {
    if matches!(form, Form::Http) || !response.status().is_success() {
        return response.status().as_u16().to_string();
    }
    // A successful call has its status in the trailers.
    let code = response.headers().get("grpc-status");
    let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    format!("{code:?}")
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

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let end = text.floor_char_boundary(MAX_TEXT);
            text.truncate(end);
            text.push('…');
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
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
