//! The dashboard: the pages of `src/dashboard/web/`, built before the program and part of it.
//!
//! `npm run build` in `src/dashboard/web/` makes them, and `make build` runs it where Node.js is there. A program that was built without them has no dashboard and says so.

use axum::{
    Router,
    http::{
        HeaderMap, HeaderValue,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
            CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};

/// A file of the built dashboard.
struct Asset {
    /// Relative to the directory, with slashes.
    path: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/dashboard.in"));

/// The page that stands at `/`.
const START: &str = "index.html";

/// Only what comes from here may run or be asked; images may also be made in the page. The charts set styles on their own elements.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; frame-ancestors 'self'";

/// The pages, with the first of them at `/`; `None` where the program was built without.
#[must_use]
pub fn pages() -> Option<Router> {
    router(ASSETS)
}

fn router(assets: &'static [Asset]) -> Option<Router> {
    let start = assets.iter().find(|asset| asset.path == START)?;
    let mut router =
        Router::new().route("/", get(async |headers: HeaderMap| start.answer(&headers)));
    for asset in assets {
        router = router.route(
            &format!("/{}", asset.path),
            get(async |headers: HeaderMap| asset.answer(&headers)),
        );
    }
    Some(router)
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        // The build puts a digest of their contents into the names of files under `assets`.
        let caching = match self.path.starts_with("assets/") {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        };
        let fixed = [
            (CONTENT_TYPE, self.content_type()),
            (CACHE_CONTROL, caching),
            (VARY, "accept-encoding"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, POLICY),
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

/// Whether the client names gzip and does not refuse it (`gzip;q=0`).
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

    async fn ask(path: &str, accept_encoding: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = Request::get(path)
            .header(ACCEPT_ENCODING, accept_encoding)
            .body(Body::empty())
            .unwrap();
        let answer = router(BUILT).unwrap().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, 1024).await.unwrap().to_vec();
        (parts.status, parts.headers, body)
    }

    #[tokio::test]
    async fn start_page_is_asked_for_anew_and_named_files_are_kept() {
        for path in ["/", "/index.html"] {
            let (status, headers, body) = ask(path, "").await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, b"<html>");
            assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
            assert_eq!(headers[CACHE_CONTROL], "no-cache");
        }
        let (_, headers, body) = ask("/assets/page-1a2b.js", "").await;
        assert_eq!(body, b"let page");
        assert_eq!(headers[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert!(
            headers[CACHE_CONTROL]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        assert_eq!(ask("/assets/other.js", "").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn compressed_only_for_those_who_can_read_it() {
        for (accepted, expected) in [
            ("gzip, deflate, br", &b"zipped html"[..]),
            ("br, GZIP;q=0.5", b"zipped html"),
            ("gzip;q=0", b"<html>"),
            ("br", b"<html>"),
            ("", b"<html>"),
        ] {
            let (_, headers, body) = ask("/", accepted).await;
            assert_eq!(body, expected, "{accepted}");
            let is_compressed = headers.contains_key(CONTENT_ENCODING);
            assert_eq!(is_compressed, expected.starts_with(b"zipped"), "{accepted}");
        }
    }

    #[test]
    fn program_without_pages_has_none() {
        assert!(router(&[]).is_none());
    }
}
