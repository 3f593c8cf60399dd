//! The route and its handler.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
    response::Response,
    routing::post,
};

use super::{query::Query, response};
use crate::{
    inference::{Image, PredictOptions, Priority},
    services::{
        caller::Caller,
        http::{Failure, as_json, respond, respond_traced},
        prediction::{PredictionInput, PredictionResolver, interval_level},
        request_body::RequestBodies,
        status,
    },
    telemetry::{
        metrics,
        traces::{CallKind, Traces},
    },
};

const ROUTE: &str = "/predict";
/// Time for a whole request; the client cannot choose it as in gRPC.
const DEADLINE: Duration = Duration::from_secs(60);
/// The image in error details, as if it were the field of a message.
const FIELD: &str = "body";

#[derive(Clone)]
struct Page {
    resolver: PredictionResolver,
    bodies: RequestBodies,
    traces: Traces,
}

/// Creates the series of the route, so the exporter must be installed.
pub(crate) fn router(
    resolver: PredictionResolver,
    bodies: RequestBodies,
    traces: Traces,
) -> Router {
    metrics::http_known(ROUTE);
    let page = Page {
        resolver,
        bodies,
        traces,
    };
    Router::new()
        .route(ROUTE, post(predict).fallback(wrong_method))
        .with_state(page)
}

async fn predict(State(page): State<Page>, request: Request) -> Response {
    let deadline = Instant::now() + DEADLINE;
    let span = page
        .traces
        .call(|| CallKind::Post(ROUTE), request.headers(), true);
    // Boxed, because the future contains the state of a whole prediction.
    let work = Box::pin(async move {
        let answer = page.answer(request, deadline);
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(status::deadline_exceeded().into()),
        }
    });
    respond_traced(ROUTE, span, work).await
}

impl Page {
    async fn answer(&self, request: Request, deadline: Instant) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let caller = Caller {
            deadline: Some(deadline),
            ..Caller::new(&parts.headers, &parts.extensions)?
        };
        refuse_forms(&parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let (image, _permit) = self.bodies.read(&parts.headers, body).await?;
        if image.is_empty() {
            let description =
                "must be an encoded image, got 0 bytes; send one with `curl --data-binary @FILE`";
            return Err(status::invalid(FIELD, description).into());
        }
        if is_stripped(&parts.headers, &image) {
            let description = "must be the whole image, but its zero bytes and newlines are missing, which `curl --data` removes; use `curl --data-binary @FILE`";
            return Err(status::invalid(FIELD, description).into());
        }
        let model = self.resolver.resolve(&query.version).await?;
        let input = PredictionInput {
            options: PredictOptions {
                detect_faces: query.detect_faces,
                interval_level: interval_level(&model, query.interval_level, "interval_level")?,
                ..PredictOptions::default()
            },
            images: vec![Image::Encoded(image)],
            field: FIELD,
            caller,
            priority: Priority::Interactive,
        };
        let version = model.name.clone();
        let predictions = self.resolver.predict(model, input).await?;
        let body = predictions
            .first()
            .map(|prediction| response::body(prediction, &version));
        // The predictor returns as many predictions as it receives images.
        let body = body.ok_or_else(|| status::encoding_failed("it has no prediction"))?;
        Ok(as_json(&body))
    }
}

/// Refuses the form with a file of `curl --form` and of browsers, whose body is not an image.
fn refuse_forms(headers: &HeaderMap) -> Result<(), Failure> {
    if !has_media_type(headers, "multipart/form-data") {
        return Ok(());
    }
    let description = "must not be multipart/form-data; send the bytes of the image as the body, with `curl --data-binary @FILE`";
    Err(Failure {
        status: status::invalid("content-type", description),
        http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    })
}

/// Returns true for a file that `curl --data @FILE` sent: binary, without a byte that it removes.
/// Files of all accepted formats have such bytes in their first hundred.
fn is_stripped(headers: &HeaderMap, image: &[u8]) -> bool {
    let is_removed = |byte: &u8| matches!(byte, b'\0' | b'\n' | b'\r');
    has_media_type(headers, "application/x-www-form-urlencoded")
        && !image.iter().any(is_removed)
        && std::str::from_utf8(image).is_err()
}

fn has_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(wanted)
    })
}

async fn wrong_method(method: Method) -> Response {
    let mut response = respond(ROUTE, async {
        let status = status::unimplemented(format_args!(
            "the method of /predict must be POST, got {method}; send an image with `curl --data-binary @FILE`"
        ));
        Err(Failure {
            status,
            http: StatusCode::METHOD_NOT_ALLOWED,
        })
    })
    .await;
    let allowed = HeaderValue::from_static("POST");
    response.headers_mut().insert(ALLOW, allowed);
    response
}
