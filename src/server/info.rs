use std::{path::Path, time::SystemTime};

use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::{
    config::ServeConfig,
    model::device,
    proto::{DESCRIPTOR, v1},
};

/// Returns all methods of the API as `package.Service/Method`, for the metrics' labels.
pub(super) fn method_names() -> Vec<String> {
    let mut names: Vec<String> = methods().iter().map(path_of).collect();
    names.extend(["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"].map(str::to_owned));
    names
}

/// Returns the methods whose clients send a stream, as `package.Service/Method`.
pub(super) fn client_streams() -> Vec<String> {
    let mut names: Vec<String> = methods()
        .into_iter()
        .filter(MethodDescriptor::is_client_streaming)
        .map(|method| path_of(&method))
        .collect();
    names.extend(
        ["v1", "v1alpha"].map(|version| {
            format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        }),
    );
    names
}

fn methods() -> Vec<MethodDescriptor> {
    let pool =
        DescriptorPool::decode(DESCRIPTOR).expect("the build created the embedded descriptors");
    pool.services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

fn path_of(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// The response of GetServerInfo except for the live model and the use of the disk.
pub(super) fn server_info(
    config: &ServeConfig,
    device: &str,
    http_port: u16,
) -> v1::GetServerInfoResponse {
    let threads = match config.threads {
        0 => std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        threads => threads,
    };
    v1::GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch_version: device::LIBTORCH_VERSION.to_owned(),
        device: device.to_owned(),
        threads,
        limits: Some(v1::Limits {
            max_message_bytes: config.max_message_bytes as u64,
            max_image_bytes: config.max_image_bytes as u64,
            max_image_pixels: config.max_image_pixels,
            max_images_per_request: config.max_images_per_request,
            max_queued_images: config.max_queued_images,
            max_queued_trainings: config.max_queued_trainings,
            heartbeat_interval: prost_types::Duration::try_from(config.heartbeat_interval).ok(),
            max_upload_bytes: if config.uploads {
                config.max_upload_bytes as u64
            } else {
                0
            },
            max_unpacked_bytes: config.max_unpacked_bytes as u64,
            max_archive_entries: config.max_archive_entries,
        }),
        features: ["annotate", "explain", "detect_faces", "average_flip"]
            .map(str::to_owned)
            .to_vec(),
        start_time: Some(SystemTime::now().into()),
        data_roots: config.data_roots.iter().map(|path| to_utf8(path)).collect(),
        weights_roots: config
            .weights_roots
            .iter()
            .map(|path| to_utf8(path))
            .collect(),
        live_model: String::new(),
        http_port: http_port.into(),
        disk: None,
    }
}

pub(super) fn to_utf8(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
