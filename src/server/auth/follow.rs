//! Creates the authenticator, and keeps it up to date with its files.

use std::{os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::layer::Auth;
use crate::{
    access::{AuditLog, Authenticator, Oidc, OidcOptions},
    config::{Location, ServeConfig},
    server::{
        error::Error,
        layers::{Denials, Failures},
    },
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
        failures: Failures::of_sources(),
        logins: Failures::of_sources(),
        denials: Denials::of_identities(),
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
    let mut follow = Follow::new(authenticator);
    loop {
        let is_requested = tokio::select! {
            _ = checks.tick() => false,
            _ = hangup.recv() => true,
            () = shutdown.cancelled() => return,
        };
        let checked = tokio::task::spawn_blocking(move || {
            follow.check(is_requested);
            follow
        });
        match checked.await {
            Ok(returned) => follow = returned,
            Err(error) => {
                tracing::error!(%error, "reading the token file panicked; its changes are not noticed any more");
                return;
            }
        }
    }
}

/// Reads the token file again after each change, and until that succeeds.
struct Follow {
    authenticator: Authenticator,
    /// Of the file that was read last; `None` before the first time, because the file may have
    /// changed since it was opened.
    read: Option<Fingerprint>,
    /// The reason of the last failure, which is not repeated.
    failure: Option<String>,
}

impl Follow {
    fn new(authenticator: Authenticator) -> Self {
        Self {
            authenticator,
            read: None,
            failure: None,
        }
    }

    fn check(&mut self, is_requested: bool) {
        // Before the file is read, so that a change in the meantime is noticed the next time.
        let current = Fingerprint::of(self.authenticator.token_file());
        if self.read == Some(current) && !is_requested {
            return;
        }
        match self.authenticator.reload() {
            Ok(()) => {
                let is_first = self.read.is_none() && self.failure.is_none();
                if !is_first || is_requested {
                    tracing::info!("read the token file again");
                }
                (self.read, self.failure) = (Some(current), None);
            }
            Err(error) => {
                let reason = Some(error.to_string());
                if self.failure != reason || is_requested {
                    tracing::warn!(%error, "failed to read the token file again; the previous tokens stay valid");
                }
                self.failure = reason;
            }
        }
    }
}

/// Differs after each change of the file: also after one of its mode or owner, or that keeps its
/// size and its time of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint(Option<[i128; 4]>);

impl Fingerprint {
    fn of(path: &Path) -> Self {
        let metadata = fs_err::metadata(path).ok();
        Self(metadata.map(|found| {
            [
                found.ino().into(),
                found.len().into(),
                found.ctime().into(),
                found.ctime_nsec().into(),
            ]
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        access::{Limits, NewCredential, NewEntry, Role, add, revoke},
        config::AuthMethods,
    };

    fn add_token(path: &Path, name: &str) -> String {
        let entry = NewEntry {
            name: name.to_owned(),
            roles: vec![Role::Viewer],
            expires: None,
            limits: Limits::default(),
            credential: NewCredential::Token,
        };
        add(path, &entry).unwrap().unwrap()
    }

    #[test]
    fn failed_reading_is_repeated_and_early_changes_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let methods = AuthMethods {
            tokens: true,
            ..AuthMethods::default()
        };
        let first = add_token(&path, "first");
        let authenticator = Authenticator::open(methods, path.clone(), None).unwrap();
        // Between the opening and the first check.
        let second = add_token(&path, "second");
        let mut follow = Follow::new(authenticator.clone());
        follow.check(false);
        assert!(authenticator.bearer(&second).is_ok());

        revoke(&path, "first").unwrap();
        let set_mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            fs_err::set_permissions(&path, permissions).unwrap();
        };
        set_mode(0o644);
        follow.check(false);
        assert!(authenticator.bearer(&first).is_ok(), "the file is refused");
        assert!(follow.failure.as_ref().unwrap().contains("chmod 600"));
        follow.check(false);
        // The contents and their time stay the same.
        set_mode(0o600);
        follow.check(false);
        assert!(authenticator.bearer(&first).is_err());
        assert_eq!(follow.failure, None);
    }
}
