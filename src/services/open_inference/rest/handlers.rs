use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    body::{JSON_LENGTH, json_length, load_parameters},
    route,
    state::{ModelPath, Rest},
};
use crate::{
    proto::to_json,
    services::{
        caller::Caller,
        http::{Failure, JSON, as_json, respond, respond_traced},
        open_inference::{check_load, describe, json as body_json, unload_unsupported},
        status,
    },
    telemetry::traces::CallKind,
};

pub(super) async fn server() -> Response {
    respond(route::SERVER, async {
        Ok(as_json(&to_json(&describe::server())))
    })
    .await
}

pub(super) async fn live() -> Response {
    respond(route::LIVE, async { Ok(as_json(&json!({"live": true}))) }).await
}

pub(super) async fn ready(State(rest): State<Rest>) -> Response {
    respond(route::READY, async {
        if rest.api.is_server_ready() {
            Ok(as_json(&json!({"ready": true})))
        } else {
            Err(status::stream_ends().into())
        }
    })
    .await
}

pub(super) async fn metadata(State(rest): State<Rest>, path: ModelPath) -> Response {
    respond(route::MODEL, async {
        let metadata = rest.api.metadata(path.model_ref()).await?;
        Ok(as_json(&to_json(&metadata)))
    })
    .await
}

pub(super) async fn model_ready(State(rest): State<Rest>, path: ModelPath) -> Response {
    respond(route::MODEL_READY, async {
        rest.api.check_ready(path.model_ref()).await?;
        Ok(as_json(&json!({"name": path.model, "ready": true})))
    })
    .await
}

pub(super) async fn config(State(rest): State<Rest>, path: ModelPath) -> Response {
    respond(route::CONFIG, async {
        let config = rest.api.config(path.model_ref()).await?;
        Ok(as_json(&to_json(&config)))
    })
    .await
}

pub(super) async fn statistics(State(rest): State<Rest>, path: ModelPath) -> Response {
    respond(route::STATS, async {
        let statistics = rest.api.statistics(path.model_ref()).await?;
        Ok(as_json(&to_json(&statistics)))
    })
    .await
}

pub(super) async fn all_statistics(State(rest): State<Rest>) -> Response {
    respond(route::ALL_STATS, async {
        let all = ModelPath {
            model: String::new(),
            version: String::new(),
        };
        let statistics = rest.api.statistics(all.model_ref()).await?;
        Ok(as_json(&to_json(&statistics)))
    })
    .await
}

pub(super) async fn index(State(rest): State<Rest>) -> Response {
    respond(route::INDEX, async {
        let index = to_json(&rest.api.index().await?);
        // The REST form is the list itself.
        Ok(as_json(index.get("models").unwrap_or(&Value::Null)))
    })
    .await
}

pub(super) async fn load(
    State(rest): State<Rest>,
    path: ModelPath,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond(route::LOAD, async {
        let (body, _permit) = rest.bodies.read(&headers, body).await?;
        check_load(load_parameters(&body)?)?;
        rest.api.load(&path.model).await?;
        Ok(as_json(&json!({})))
    })
    .await
}

pub(super) async fn unload() -> Response {
    respond(route::UNLOAD, async { Err(unload_unsupported().into()) }).await
}

pub(super) async fn infer(State(rest): State<Rest>, path: ModelPath, request: Request) -> Response {
    let span = rest
        .traces
        .call(|| CallKind::Post(route::INFER), request.headers(), true);
    // Boxed, because the future contains the state of a whole prediction.
    let work = Box::pin(async move {
        let (parts, body) = request.into_parts();
        let caller = Caller::new(&parts.headers, &parts.extensions)?;
        let json_bytes = json_length(&parts.headers)?;
        let (body, _permit) = rest.bodies.read(&parts.headers, body).await?;
        // Parsing millions of numbers takes too long for an async thread.
        let read = move || body_json::read(path.model, path.version, body, json_bytes);
        let predictor = &rest.api.predictions.predictor;
        let (call, form) = predictor.compute(read).await??;
        let inferred = rest.api.infer(call, caller).await?;
        let written = body_json::write(&inferred, &form).map_err(status::encoding_failed)?;
        let Some(json_bytes) = written.json_bytes else {
            return Ok(([(CONTENT_TYPE, JSON)], written.body).into_response());
        };
        let headers = [
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
            (JSON_LENGTH, HeaderValue::from(json_bytes)),
        ];
        Ok((headers, written.body).into_response())
    });
    respond_traced(route::INFER, span, work).await
}

pub(super) async fn not_found() -> Response {
    respond(route::OTHER, async {
        let status = status::not_found("no such path under /v2");
        Err(status.into())
    })
    .await
}

pub(super) async fn wrong_method() -> Response {
    respond(route::OTHER, async {
        let status = status::unimplemented(
            "the path does not support this method: use POST for predictions, loading and the index, and GET for all other paths",
        );
        Err(Failure {
            status,
            http: StatusCode::METHOD_NOT_ALLOWED,
        })
    })
    .await
}
