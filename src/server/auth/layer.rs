//! The middleware of both ports that finds and checks the identity of each request.

use std::sync::Arc;

use axum::{body::Body, extract::Request, middleware::Next, response::Response};

use super::{
    audit::{Audited, outcome, record},
    credential::identify,
    refusals::{Form, limited as limited_response, role_required, unauthenticated},
    revocable::Revocable,
    rules::{Who, rule},
};
use crate::{
    access::{AuditLog, Authenticator, Identity, Refusal},
    proto::recorded::Recorded,
    server::layers::AuthFailures,
    services::caller,
};

/// State of the middleware. Cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct Auth {
    pub(in crate::server) authenticator: Authenticator,
    pub(in crate::server) audit: Option<AuditLog>,
    /// Refused credentials, which do not count for logins.
    pub(in crate::server) failures: AuthFailures,
    /// Logins, before the password is checked.
    pub(in crate::server) logins: AuthFailures,
    /// Name of the session cookie.
    pub(in crate::server) cookie: Arc<str>,
}

/// Puts the [`Identity`] into the extensions of the request if it has the required role.
pub(in crate::server) async fn check(auth: Auth, mut request: Request, next: Next) -> Response {
    let rule = rule(request.method(), request.uri().path());
    let identity = if auth.authenticator.is_off() {
        Ok(Identity::anonymous())
    } else {
        identify(&auth.authenticator, &auth.cookie, &request)
    };
    let address = caller::address(request.extensions()).map(|address| address.ip());
    let audited = auth.audit.as_ref().map(|_| Audited::of(&request, address));
    let form = Form::of(&request);
    let permitted = match (&identity, rule.who) {
        (_, Who::Everyone) => Ok(identity.clone().unwrap_or_else(|_| Identity::none())),
        (Ok(identity), Who::Authenticated) => Ok(identity.clone()),
        (Ok(identity), Who::AnyOf(roles)) if roles.iter().any(|role| identity.has(*role)) => {
            Ok(identity.clone())
        }
        (Ok(_), Who::AnyOf(roles)) => Err(role_required(roles, &form)),
        (Err(refusal), _) => Err(unauthenticated(*refusal, &form)),
    };
    let identity_name = identity.as_ref().ok().map(|found| found.name().to_owned());
    let identity = match permitted {
        Ok(identity) => identity,
        Err(response) => {
            // A request without a credential is a mistake or a scan; the log would fill with them,
            // and with those of a client that tries many credentials.
            let limited = match (&identity, address) {
                (Err(refusal), Some(address)) if *refusal != Refusal::Missing => {
                    auth.failures.count(address).err()
                }
                _ => None,
            };
            if let Some(limited) = limited {
                return limited_response(&limited, &form);
            }
            if !matches!(identity, Err(Refusal::Missing)) {
                let outcome = outcome(&form, &response);
                record(&auth.audit, audited, identity_name, outcome, None).await;
            }
            return response;
        }
    };
    request.extensions_mut().insert(identity.clone());
    let response = match (rule.is_change, &auth.audit) {
        (true, Some(_)) => {
            let recorded = Recorded::default();
            let response = recorded
                .clone()
                .scope(until_invalid(&identity, &form, next.run(request)))
                .await;
            let outcome = outcome(&form, &response);
            record(
                &auth.audit,
                audited,
                identity_name,
                outcome,
                recorded.take(),
            )
            .await;
            response
        }
        _ => until_invalid(&identity, &form, next.run(request)).await,
    };
    if !identity.is_authenticated() {
        return response;
    }
    response.map(|body| Body::new(Revocable::new(body, &identity, &form)))
}

/// Ends the call when the credential becomes invalid.
async fn until_invalid(
    identity: &Identity,
    form: &Form,
    response: impl Future<Output = Response>,
) -> Response {
    if !identity.is_authenticated() {
        return response.await;
    }
    tokio::select! {
        response = response => response,
        () = identity.invalid() => unauthenticated(Refusal::Expired, form),
    }
}
