//! The credential of a request.

use axum::extract::Request;
use http::{HeaderMap, header};

use crate::{
    access::{Authenticator, Identity, Refusal},
    server::{layers::origin::is_foreign, network::ConnectionState},
};

/// The scheme of the header `authorization`, in lower case.
const BEARER: &str = "bearer ";

/// The identity of the request: of its bearer token, else its valid session, else its client
/// certificate. A session counts for pages of this server only, because the browser sends its
/// cookie with requests of other pages of the same site too.
pub(super) fn identify(
    authenticator: &Authenticator,
    cookie: &str,
    request: &Request,
) -> Result<Identity, Refusal> {
    let headers = request.headers();
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| Refusal::Malformed)?;
        let (scheme, token) = text
            .split_at_checked(BEARER.len())
            .ok_or(Refusal::Malformed)?;
        if !scheme.eq_ignore_ascii_case(BEARER) {
            return Err(Refusal::Malformed);
        }
        return authenticator.bearer(token.trim());
    }
    let session = session_cookie(headers, cookie)
        .filter(|_| !is_foreign(request))
        .map(|id| authenticator.session(id));
    if let Some(Ok(identity)) = session {
        return Ok(identity);
    }
    let connection = request.extensions().get::<ConnectionState>();
    match connection.and_then(|connection| connection.peer_certificate.as_ref()) {
        Some(certificate) => authenticator.certificate(certificate),
        None => session.unwrap_or(Err(Refusal::Missing)),
    }
}

/// The value of the cookie of this name.
pub(in crate::server) fn session_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; visage-50052=secret".parse().unwrap());
        headers.append(header::COOKIE, "b=2".parse().unwrap());
        assert_eq!(session_cookie(&headers, "visage-50052"), Some("secret"));
        assert_eq!(session_cookie(&headers, "b"), Some("2"));
        assert_eq!(session_cookie(&headers, "visage"), None);
    }
}
