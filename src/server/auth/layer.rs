//! The middleware of both ports that finds and checks the identity of each request.

use std::sync::Arc;

use axum::{body::Body, extract::Request, middleware::Next, response::Response};

use super::{
    audit::{Audited, Change, outcome, record},
    credential::identify,
    refusals::{Form, failed, limited, role_required, unauthenticated},
    revocable::Revocable,
    rules::{Rule, Who, rule},
};
use crate::{
    access::{AuditLog, Authenticator, Identity, Refusal},
    server::layers::{Denials, Failures},
    services::caller::Source,
};

/// State of the middleware. Cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct Auth {
    pub(in crate::server) authenticator: Authenticator,
    pub(in crate::server) audit: Option<AuditLog>,
    /// Refused credentials, which do not count for logins.
    pub(in crate::server) failures: Failures,
    /// Logins, before the password is checked.
    pub(in crate::server) logins: Failures,
    pub(in crate::server) denials: Denials,
    /// Name of the session cookie.
    pub(in crate::server) cookie: Arc<str>,
}

/// Puts the [`Identity`] into the extensions of the request if it has the required role.
pub(in crate::server) async fn check(auth: Auth, mut request: Request, next: Next) -> Response {
    let rule = rule(request.method(), request.uri().path());
    let form = Form::of(&request);
    let found = if auth.authenticator.is_off() {
        Ok(Identity::anonymous())
    } else {
        identify(&auth.authenticator, &auth.cookie, &request)
    };
    let identity = match permitted(&found, rule, &form) {
        Ok(identity) => identity,
        Err(response) => {
            let response = *response;
            let (source, audited) = (Source::of(request.extensions()), Audited::of(&request));
            return auth.refuse(&found, source, audited, &form, response).await;
        }
    };
    request.extensions_mut().insert(identity.clone());
    let response = match &auth.audit {
        Some(log) if rule.is_change => {
            let audited = Audited::of(&request);
            let Some(change) = Change::begin(log, audited, identity.name()).await else {
                return failed(&form);
            };
            let copied = change.request.clone();
            let response = copied.scope(until_invalid(&identity, next.run(request)));
            let response = response.await;
            if let Some(response) = &response {
                change.finish(outcome(&form, response));
            }
            response
        }
        _ => until_invalid(&identity, next.run(request)).await,
    };
    let Some(response) = response else {
        return unauthenticated(Refusal::Expired, &form);
    };
    if !identity.is_authenticated() {
        return response;
    }
    response.map(|body| Body::new(Revocable::new(body, &identity, &form)))
}

fn permitted(
    found: &Result<Identity, Refusal>,
    rule: Rule,
    form: &Form,
) -> Result<Identity, Box<Response>> {
    match (found, rule.who) {
        (_, Who::Everyone) => Ok(found.clone().unwrap_or_else(|_| Identity::none())),
        (Ok(identity), Who::Authenticated) => Ok(identity.clone()),
        (Ok(identity), Who::AnyOf(roles)) if roles.iter().any(|role| identity.has(*role)) => {
            Ok(identity.clone())
        }
        (Ok(_), Who::AnyOf(roles)) => Err(Box::new(role_required(roles, form))),
        (Err(refusal), _) => Err(Box::new(unauthenticated(*refusal, form))),
    }
}

impl Auth {
    /// Counts and records a refused request. Too many of a client are neither recorded nor answered
    /// in detail, so that it cannot fill the audit log or try many credentials.
    async fn refuse(
        &self,
        found: &Result<Identity, Refusal>,
        source: Option<Source>,
        audited: Audited,
        form: &Form,
        response: Response,
    ) -> Response {
        let counted = match (found, source) {
            // A mistake or a scan.
            (Err(Refusal::Missing), _) => return response,
            (Ok(identity), _) => self.denials.count(identity.owner().to_owned()),
            // A page that stays open longer than its session is not an attack.
            (Err(Refusal::Expired), Some(source)) => {
                self.denials.count(format!("address {source}"))
            }
            (Err(_), Some(source)) => self.failures.count(source),
            (Err(_), None) => Ok(()),
        };
        if let Err(refused) = counted {
            return limited(&refused, form);
        }
        if let Some(log) = &self.audit {
            let identity = found.as_ref().ok().map(|found| found.name().to_owned());
            let outcome = outcome(form, &response);
            record(log, audited, identity, outcome).await;
        }
        response
    }
}

/// `None` if the credential becomes invalid before the response.
async fn until_invalid(
    identity: &Identity,
    response: impl Future<Output = Response>,
) -> Option<Response> {
    if !identity.is_authenticated() {
        return Some(response.await);
    }
    tokio::select! {
        // First, because the body of a response with an invalid credential ends with an error.
        biased;
        () = identity.invalid() => None,
        response = response => Some(response),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware::from_fn, routing::post};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        access::{Limits, NewCredential, NewEntry, Role, add, revoke},
        config::AuthMethods,
    };

    const STOP: &str = "/visage.v1.TrainingService/StopTraining";

    /// The middleware around a handler that never responds, its state, and the token of a trainer.
    fn protected(directory: &std::path::Path) -> (Router, Auth, String) {
        let file = directory.join("tokens.toml");
        let entry = NewEntry {
            name: "ci".to_owned(),
            roles: vec![Role::Trainer],
            expires: None,
            limits: Limits::default(),
            credential: NewCredential::Token,
        };
        let token = add(&file, &entry).unwrap().unwrap();
        let methods = AuthMethods {
            tokens: true,
            ..AuthMethods::default()
        };
        let audit = AuditLog::open(&directory.join("audit.jsonl")).unwrap();
        let auth = Auth {
            authenticator: Authenticator::open(methods, file, None).unwrap(),
            audit: Some(audit),
            failures: Failures::of_sources(),
            logins: Failures::of_sources(),
            denials: Denials::of_identities(),
            cookie: Arc::from("visage-0"),
        };
        let handler = post(|| async { std::future::pending::<&str>().await });
        let state = auth.clone();
        let router = Router::new().route(STOP, handler).layer(from_fn(
            move |request: Request, next: Next| check(state.clone(), request, next),
        ));
        (router, auth, token)
    }

    fn request(path: &str, token: &str) -> Request {
        Request::post(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap()
    }

    async fn entries(directory: &std::path::Path, auth: &Auth) -> Vec<serde_json::Value> {
        auth.audit.as_ref().unwrap().flush().await;
        let text = fs_err::read_to_string(directory.join("audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn change_of_a_client_that_left_is_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let (router, auth, token) = protected(directory.path());
        let call = router.oneshot(request(STOP, &token));
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), call).await;
        assert!(left.is_err());
        let entries = entries(directory.path(), &auth).await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["identity"], "ci");
        assert_eq!(entries[0]["call"], STOP.trim_start_matches('/'));
        assert_eq!(entries[0]["outcome"], "Unfinished");
    }

    #[tokio::test]
    async fn revoked_credential_ends_a_call_with_a_complete_response() {
        let directory = tempfile::tempdir().unwrap();
        let (router, auth, token) = protected(directory.path());
        let mut call = std::pin::pin!(router.oneshot(request(STOP, &token)));
        // The identity is found before the call waits.
        assert!(futures_util::poll!(&mut call).is_pending());
        revoke(auth.authenticator.token_file(), "ci").unwrap();
        auth.authenticator.reload().unwrap();
        let response = call.await.unwrap();
        assert_eq!(response.status(), 401);
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        let text = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(text.contains("has expired"), "{text}");
    }

    #[tokio::test]
    async fn denied_calls_are_recorded_with_a_short_path_and_up_to_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let (router, auth, token) = protected(directory.path());
        let path = format!("/{}", "x".repeat(5000));
        let mut statuses = Vec::new();
        for _ in 0..70 {
            let response = router.clone().oneshot(request(&path, &token)).await;
            statuses.push(response.unwrap().status().as_u16());
        }
        assert_eq!(statuses[..60], [403; 60]);
        assert_eq!(statuses.last(), Some(&429));
        let entries = entries(directory.path(), &auth).await;
        // One more each second.
        assert!((60..65).contains(&entries.len()), "{}", entries.len());
        let call = entries[0]["call"].as_str().unwrap();
        assert_eq!(call.chars().count(), 513);
    }
}
