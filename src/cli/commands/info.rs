//! `visage info`: version, device, limits and disk use of the server.

use crate::{
    cli::{
        client::request,
        context::{Context, Outcome},
        error::Error,
        output::{
            json,
            text::{duration_text, size_text, std_duration, time_text},
        },
    },
    proto::v1::{GetServerInfoRequest, GetServerInfoResponse},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  visage info
  visage info --server gpu-1:50051
  visage info --json | jq .limits";

pub(crate) async fn run(context: &mut Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let response = client
        .system()
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info = client.message(response)?;
    if context.output.is_json() {
        context
            .output
            .object(&json::value("GetServerInfoResponse", &info))?;
        return Ok(Outcome::Done);
    }
    for (label, text) in lines(client.server(), &info) {
        context.output.line(&format!("{label:<24} {text}"))?;
    }
    Ok(Outcome::Done)
}

fn lines(server: &str, info: &GetServerInfoResponse) -> Vec<(&'static str, String)> {
    let limits = info.limits.unwrap_or_default();
    let or_none = |text: String| match text.is_empty() {
        true => "none".to_owned(),
        false => text,
    };
    let mut lines = vec![
        ("server", server.to_owned()),
        ("version", info.version.clone()),
        ("libtorch", info.libtorch_version.clone()),
        ("device", info.device.clone()),
        ("threads", info.threads.to_string()),
        (
            "HTTP port",
            match info.http_port {
                0 => or_none(String::new()),
                port => port.to_string(),
            },
        ),
        ("live model", or_none(info.live_model.clone())),
        ("features", or_none(info.features.join(", "))),
        ("started", time_text(info.start_time)),
        ("data roots", info.data_roots.join(", ")),
        ("weights roots", info.weights_roots.join(", ")),
        ("largest request", size_text(limits.max_message_bytes)),
        ("largest image", size_text(limits.max_image_bytes)),
        ("largest image, pixels", limits.max_image_pixels.to_string()),
        (
            "images per request",
            limits.max_images_per_request.to_string(),
        ),
        (
            "largest upload",
            or_none(match limits.max_upload_bytes {
                0 => String::new(),
                bytes => size_text(bytes),
            }),
        ),
        ("queued images", limits.max_queued_images.to_string()),
        ("queued trainings", limits.max_queued_trainings.to_string()),
        (
            "heartbeat",
            limits
                .heartbeat_interval
                .map(|interval| duration_text(std_duration(&interval)))
                .unwrap_or_default(),
        ),
    ];
    // Servers of earlier releases do not report it.
    if let Some(disk) = &info.disk {
        lines.extend([
            ("disk, versions", size_text(disk.artifacts_bytes)),
            ("disk, datasets", size_text(disk.datasets_bytes)),
            ("disk, uploads", size_text(disk.uploads_bytes)),
            ("disk, free", size_text(disk.free_bytes)),
        ]);
    }
    lines
}
