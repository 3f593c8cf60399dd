//! Rules that relate several settings.

use std::net::SocketAddr;

use super::{Error, Resolved, ServeConfig, ValueSource};

/// Refuses values that are valid alone but not together.
///
/// # Errors
/// [`Error::Contradiction`], [`Error::Incomplete`], or what an address that other machines reach
/// requires.
pub(super) fn check(resolved: &Resolved) -> Result<(), Error> {
    check_identity(&resolved.config)?;
    if let Some((listener, address)) = reachable(&resolved.config) {
        check_exposed(&resolved.config, listener, address)?;
        check_roots(resolved, listener, address)?;
    }
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
    if config.grpc_socket.is_some() && config.grpc_socket == config.http_socket {
        return Err(resolved.contradiction(
            "http_socket",
            "must not be the same path as",
            "grpc_socket",
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

/// A listener that other machines reach.
fn reachable(config: &ServeConfig) -> Option<(&'static str, SocketAddr)> {
    let listeners = [
        ("grpc_listen", config.grpc_listen),
        ("http_listen", config.http_listen),
    ];
    listeners
        .into_iter()
        .find(|(_, address)| !address.ip().is_loopback())
}

/// Settings of TLS and of credentials that are incomplete without others.
fn check_identity(config: &ServeConfig) -> Result<(), Error> {
    let has_tls = config.tls_cert.is_some();
    let requirements = [
        ("tls_cert", has_tls, "tls_key", config.tls_key.is_some()),
        ("tls_key", config.tls_key.is_some(), "tls_cert", has_tls),
        (
            "tls_client_ca",
            config.tls_client_ca.is_some(),
            "tls_cert",
            has_tls,
        ),
        (
            "auth = certificates",
            config.auth.certificates,
            "tls_client_ca",
            config.tls_client_ca.is_some(),
        ),
        (
            "auth = oidc",
            config.auth.oidc,
            "oidc_issuer",
            config.oidc_issuer.is_some(),
        ),
        (
            "auth = oidc",
            config.auth.oidc,
            "oidc_audience",
            config.oidc_audience.is_some(),
        ),
    ];
    for (setting, is_set, required, has_required) in requirements {
        if is_set && !has_required {
            return Err(Error::Incomplete { setting, required });
        }
    }
    if !config.auth.is_off() && config.cors_origins.iter().any(|origin| origin == "*") {
        return Err(Error::AllOrigins);
    }
    Ok(())
}

fn check_exposed(
    config: &ServeConfig,
    listener: &'static str,
    address: SocketAddr,
) -> Result<(), Error> {
    if config.auth.is_off() {
        return if config.insecure_no_auth {
            Ok(())
        } else {
            Err(Error::AuthRequired { listener, address })
        };
    }
    if config.tls_cert.is_none() && !config.insecure_plaintext {
        return Err(Error::TlsRequired { listener, address });
    }
    Ok(())
}

/// Clients may name any file under the roots, so the default is for loopback addresses only.
fn check_roots(
    resolved: &Resolved,
    listener: &'static str,
    address: SocketAddr,
) -> Result<(), Error> {
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
