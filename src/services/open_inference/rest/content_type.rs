use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{CONTENT_TYPE, ORIGIN},
};

use super::route;
use crate::services::{
    http::{Failure, respond},
    status,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The types of the protocol.
const ACCEPTED: [&str; 2] = ["application/json", "application/octet-stream"];
/// The type that curl sends by default.
const FORM: &str = "application/x-www-form-urlencoded";

/// Refuses requests with a body of another type. A page of another site can send forms and text
/// without asking the server first, so pages must name a type of the protocol; other clients may
/// also send none, or the type of curl.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if request.method() != Method::POST || is_accepted(request.headers()) {
        return next.run(request).await;
    }
    let refused = respond(route::OTHER, async {
        let rule = format!("must be {} or {}", ACCEPTED[0], ACCEPTED[1]);
        Err(Failure {
            status: status::invalid("content-type", rule),
            http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        })
    });
    refused.await.into_response()
}

fn is_accepted(headers: &HeaderMap) -> bool {
    let is_page = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    let Some(found) = headers.get(CONTENT_TYPE) else {
        return !is_page;
    };
    let found = String::from_utf8_lossy(found.as_bytes()).to_ascii_lowercase();
    let found = found.split(';').next().unwrap_or_default().trim();
    ACCEPTED.contains(&found) || (found == FORM && !is_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(headers: &[(HeaderName, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()));
        is_accepted(&headers.collect())
    }

    #[test]
    fn pages_must_name_a_type_of_the_protocol() {
        let json = (CONTENT_TYPE, "Application/JSON; charset=utf-8");
        for page in [
            (ORIGIN, "http://localhost"),
            (SEC_FETCH_SITE, "same-origin"),
        ] {
            assert!(accepts(&[page.clone(), json.clone()]));
            assert!(!accepts(&[page.clone(), (CONTENT_TYPE, FORM)]));
            assert!(!accepts(&[page.clone(), (CONTENT_TYPE, "text/plain")]));
            assert!(!accepts(&[page]));
        }
        assert!(accepts(&[json]));
        assert!(accepts(&[(CONTENT_TYPE, "application/octet-stream")]));
        assert!(accepts(&[(CONTENT_TYPE, FORM)]));
        assert!(accepts(&[]));
        assert!(!accepts(&[(CONTENT_TYPE, "text/plain")]));
        assert!(!accepts(&[(CONTENT_TYPE, "application/jsonp")]));
        assert!(!accepts(&[(
            CONTENT_TYPE,
            "multipart/form-data; boundary=x"
        )]));
    }
}
