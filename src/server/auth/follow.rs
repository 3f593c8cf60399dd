//! Creates the authenticator, and keeps it up to date with its files.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::layer::Auth;
use crate::{
    access::{AuditLog, Authenticator, Oidc, OidcOptions},
    config::{Location, ServeConfig},
    server::{error::Error, layers::AuthFailures},
};

/// Interval of the checks whether the token file changed.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reads the token file and opens the audit log. `http_port` is part of the name of the session
/// cookie, because cookies are shared between the ports of a host.
pub(in crate::server) fn open(config: &ServeConfig, http_port: u16) -> Result<Auth, Error> {
    let file = config.tokens_file.clone();
    let file = file.unwrap_or_else(|| config.data_dir.join("tokens.toml"));
    let oidc = match (&config.oidc_issuer, &config.oidc_audience) {
        (Some(issuer), Some(audience)) if config.auth.oidc => Some(Oidc::new(OidcOptions {
            issuer: issuer.clone(),
            audience: audience.clone(),
            jwks: config.oidc_jwks.clone(),
            roles_claim: config.oidc_roles_claim.clone(),
        })?),
        _ => None,
    };
    let authenticator = Authenticator::open(config.auth, file, oidc)?;
    let audit = match &config.audit_log {
        Location::InDataDir if config.auth.is_off() => None,
        location @ (Location::InDataDir | Location::At(_) | Location::Off) => {
            location.path(&config.data_dir, "audit.jsonl")
        }
    };
    let audit =
        audit.map(|path| AuditLog::open(&path).map_err(|source| Error::AuditLog { path, source }));
    let cookie = if config.tls_cert.is_some() {
        // Browsers accept this prefix only from the host itself, over TLS.
        "__Host-visage".to_owned()
    } else {
        format!("visage-{http_port}")
    };
    if config.auth.tokens && !authenticator.has_admin() {
        tracing::warn!(
            "no token or user has the role admin; create one with `visage token new admin --role admin --tokens-file {}`",
            authenticator.token_file().display()
        );
    }
    Ok(Auth {
        authenticator,
        audit: audit.transpose()?,
        failures: AuthFailures::default(),
        logins: AuthFailures::default(),
        cookie: Arc::from(cookie),
    })
}

/// Starts the tasks that read the token file and the issuer's keys again.
pub(in crate::server) fn follow(
    authenticator: &Authenticator,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    if authenticator.is_off() {
        return;
    }
    if let Some(oidc) = authenticator.oidc() {
        tasks.spawn(oidc.clone().follow_keys(shutdown.clone()));
    }
    tasks.spawn(follow_file(authenticator.clone(), shutdown.clone()));
}

#[expect(
    clippy::disallowed_methods,
    reason = "the blocking pool is for file operations; one runs at once"
)]
async fn follow_file(authenticator: Authenticator, shutdown: CancellationToken) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "failed to listen for SIGHUP; changes of the token file are not noticed");
            return;
        }
    };
    let mut checks = tokio::time::interval(INTERVAL);
    let mut seen = None;
    loop {
        let is_forced = tokio::select! {
            _ = checks.tick() => false,
            _ = hangup.recv() => true,
            () = shutdown.cancelled() => return,
        };
        let (reader, previous) = (authenticator.clone(), seen);
        let read = tokio::task::spawn_blocking(move || {
            let current = fingerprint(reader.token_file());
            let is_changed = previous.is_some_and(|previous| previous != current);
            let result = (is_changed || is_forced).then(|| reader.reload());
            (current, result)
        });
        match read.await {
            Ok((current, result)) => {
                seen = Some(current);
                match result {
                    Some(Ok(())) => tracing::info!("read the token file again"),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "failed to read the token file again; the previous tokens stay valid");
                    }
                    None => {}
                }
            }
            Err(error) => tracing::error!(%error, "reading the token file panicked"),
        }
    }
}

/// Differs after each change of the file: its inode, size and time of change.
fn fingerprint(path: &Path) -> Option<(u64, u64, SystemTime)> {
    let metadata = fs_err::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}
