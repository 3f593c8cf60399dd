//! Serves the dashboard that is embedded in the program.
//!
//! `make build` builds it in `src/dashboard/web` if Node.js is installed. A program that was built
//! without it does not have a dashboard.

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
            CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

struct Asset {
    /// Relative path with slashes.
    path: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/dashboard.in"));

const START: &str = "index.html";
const LOGIN: &str = "/login";

/// Restricts scripts and requests to the own origin. The page creates images itself, and the charts
/// set inline styles.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'";

/// The camera is for this page only.
const PERMISSIONS: &str = "camera=(self), microphone=(), geolocation=()";

/// Returns the routes of the dashboard, or `None` if the program was built without it.
#[must_use]
pub(crate) fn pages() -> Option<Router> {
    router(ASSETS)
}

/// Returns whether the path is a page or file of the dashboard.
pub(crate) fn has_page(path: &str) -> bool {
    let name = path.strip_prefix('/').unwrap_or(path);
    path == "/" || ASSETS.iter().any(|asset| asset.path == name)
}

fn router(assets: &'static [Asset]) -> Option<Router> {
    let start = assets.iter().find(|asset| asset.path == START)?;
    // The page shows the login where it is needed, so `/login` is another name of it.
    let mut router = Router::new()
        .route("/", get(async |headers: HeaderMap| start.respond(&headers)))
        .route(
            LOGIN,
            get(async |headers: HeaderMap| start.respond(&headers)),
        );
    for asset in assets {
        router = router.route(
            &format!("/{}", asset.path),
            get(async |headers: HeaderMap| asset.respond(&headers)),
        );
    }
    Some(router)
}

impl Asset {
    fn respond(&self, headers: &HeaderMap) -> Response {
        // The names of files in `assets` contain a digest of their contents.
        let caching = if self.path.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let fixed = [
            (CONTENT_TYPE, self.content_type()),
            (CACHE_CONTROL, caching),
            (VARY, "accept-encoding"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (PERMISSIONS_POLICY, PERMISSIONS),
            (OPENER_POLICY, "same-origin"),
        ];
        if accepts_gzip(headers) {
            (fixed, [(CONTENT_ENCODING, "gzip")], self.gzip).into_response()
        } else {
            (fixed, self.plain).into_response()
        }
    }

    fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("ico") => "image/x-icon",
            Some("json" | "webmanifest" | "map") => "application/json",
            Some("woff2") => "font/woff2",
            _ => "application/octet-stream",
        }
    }
}

/// Returns true if the client accepts gzip and does not exclude it (`gzip;q=0`).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING);
    let mut codings = values
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = quality
            .trim()
            .strip_prefix("q=")
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: f32| number <= 0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use tower::ServiceExt;

    use super::*;

    static BUILT: &[Asset] = &[
        Asset {
            path: "assets/page-1a2b.js",
            plain: b"let page",
            gzip: b"zipped page",
        },
        Asset {
            path: "index.html",
            plain: b"<html>",
            gzip: b"zipped html",
        },
    ];

    async fn get_asset(path: &str, accept_encoding: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = Request::get(path)
            .header(ACCEPT_ENCODING, accept_encoding)
            .body(Body::empty())
            .unwrap();
        let response = router(BUILT).unwrap().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1024).await.unwrap().to_vec();
        (parts.status, parts.headers, body)
    }

    #[tokio::test]
    async fn start_page_is_revalidated_and_assets_are_immutable() {
        for path in ["/", "/index.html"] {
            let (status, headers, body) = get_asset(path, "").await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, b"<html>");
            assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
            assert_eq!(headers[CACHE_CONTROL], "no-cache");
        }
        let (_, headers, body) = get_asset("/assets/page-1a2b.js", "").await;
        assert_eq!(body, b"let page");
        assert_eq!(headers[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert!(
            headers[CACHE_CONTROL]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        assert_eq!(
            get_asset("/assets/other.js", "").await.0,
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn compresses_only_for_clients_that_accept_gzip() {
        for (accepted, expected) in [
            ("gzip, deflate, br", &b"zipped html"[..]),
            ("br, GZIP;q=0.5", b"zipped html"),
            ("gzip;q=0", b"<html>"),
            ("br", b"<html>"),
            ("", b"<html>"),
        ] {
            let (_, headers, body) = get_asset("/", accepted).await;
            assert_eq!(body, expected, "{accepted}");
            let is_compressed = headers.contains_key(CONTENT_ENCODING);
            assert_eq!(is_compressed, expected.starts_with(b"zipped"), "{accepted}");
        }
    }

    #[tokio::test]
    async fn login_is_a_page_beside_its_other_method() {
        let routes = Router::new().route(LOGIN, axum::routing::post(async || "done"));
        let routes = routes.merge(router(BUILT).unwrap());
        for (method, expected) in [("GET", &b"<html>"[..]), ("POST", b"done")] {
            let request = Request::builder().method(method).uri(LOGIN);
            let response = routes.clone().oneshot(request.body(Body::empty()).unwrap());
            let body = to_bytes(response.await.unwrap().into_body(), 1024).await;
            assert_eq!(body.unwrap(), expected, "{method}");
        }
    }

    #[test]
    fn program_without_assets_has_no_dashboard() {
        assert!(router(&[]).is_none());
    }
}
