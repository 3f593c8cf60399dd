//! Rules that relate several settings.

use super::{Error, Resolved, ValueSource};

/// Refuses values that are valid alone but not together.
///
/// # Errors
/// [`Error::Contradiction`] or [`Error::RootsRequired`].
pub(super) fn check(resolved: &Resolved) -> Result<(), Error> {
    check_roots(resolved)?;
    let config = &resolved.config;
    let same_port = config.grpc_listen.port() == config.http_listen.port();
    let wildcard =
        config.grpc_listen.ip().is_unspecified() || config.http_listen.ip().is_unspecified();
    let overlap = config.grpc_listen.ip() == config.http_listen.ip() || wildcard;
    // With port 0 the system chooses, so two of them never collide.
    if same_port && overlap && config.grpc_listen.port() != 0 {
        return Err(resolved.contradiction(
            "http_listen",
            "must not be the same address as",
            "grpc_listen",
        ));
    }
    let not_above = [
        (
            "max_batch",
            config.max_batch > config.max_queued_images,
            "max_queued_images",
        ),
        (
            "max_images_per_request",
            config.max_images_per_request > config.max_queued_images,
            "max_queued_images",
        ),
        (
            "max_image_bytes",
            config.max_image_bytes > config.max_message_bytes,
            "max_message_bytes",
        ),
        (
            "max_message_bytes",
            config.max_message_bytes > config.max_inflight_bytes,
            "max_inflight_bytes",
        ),
        (
            "worker_silence_timeout",
            config.worker_silence_timeout > config.worker_stall_timeout,
            "worker_stall_timeout",
        ),
    ];
    for (lesser, is_above, greater) in not_above {
        if is_above {
            return Err(resolved.contradiction(lesser, "must not be above", greater));
        }
    }
    Ok(())
}

/// Clients may name any file under the roots, so the default `/` is for loopback addresses only.
fn check_roots(resolved: &Resolved) -> Result<(), Error> {
    let listeners = [
        ("grpc_listen", resolved.config.grpc_listen),
        ("http_listen", resolved.config.http_listen),
    ];
    let Some((listener, address)) = listeners
        .into_iter()
        .find(|(_, address)| !address.ip().is_loopback())
    else {
        return Ok(());
    };
    for setting in ["data_roots", "weights_roots"] {
        if resolved.source(setting) == &ValueSource::Default {
            return Err(Error::RootsRequired {
                setting,
                listener,
                address,
            });
        }
    }
    Ok(())
}
