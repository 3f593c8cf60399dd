use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{build::shorten, not_found, violations};
use crate::{inference, proto::validation::Violation};

#[test]
fn violations_come_all_at_once_with_a_reason() {
    let status = violations(&[
        Violation {
            field: "spec.max_epochs".to_owned(),
            description: "0 is out of range".to_owned(),
        },
        Violation {
            field: "spec.batch_size".to_owned(),
            description: "0 is out of range".to_owned(),
        },
    ]);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "spec.max_epochs: 0 is out of range (and 1 more violations)"
    );
    let details = status.get_error_details();
    let fields = details.bad_request().unwrap().field_violations.clone();
    assert_eq!(
        fields
            .iter()
            .map(|field| field.field.as_str())
            .collect::<Vec<_>>(),
        ["spec.max_epochs", "spec.batch_size"]
    );
    assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELDS");
}

#[test]
fn trailers_are_no_longer_than_clients_take() {
    let name = "年".repeat(5_000);
    let many: Vec<Violation> = (0..40)
        .map(|_| Violation {
            field: name.clone(),
            description: name.clone(),
        })
        .collect();
    for status in [violations(&many), not_found(&name)] {
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        let bytes: usize = headers
            .iter()
            // 32 for each entry, by the rules of HTTP/2 (RFC 7540, 6.5.2).
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(bytes < 8_192, "{bytes}");
        assert!(status.message().starts_with("年"), "{}", status.message());
    }
    // Texts within the limit are unchanged.
    let fields = violations(&many[..2]).get_error_details();
    assert_eq!(fields.bad_request().unwrap().field_violations.len(), 2);
    assert_eq!(shorten("years %", 9), "years %");
    assert_eq!(shorten("years %", 8), "years …");
}

#[test]
fn retryable_errors_have_a_retry_delay() {
    let status = Status::from(inference::Error::QueueFull {
        waiting: 256,
        wanted: 1,
        limit: 256,
    });
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
    assert_eq!(
        details.retry_info().unwrap().retry_delay,
        Some(Duration::from_secs(1))
    );
}
