//! Sessions of browsers: `/login`, `/logout` and `/session`.

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    access::{Identity, Refusal, Role},
    server::{
        auth::{Audited, Auth, record, session_cookie},
        layers::proxies::is_https,
    },
    services::{caller::Source, status},
};

/// Longest accepted body of a login in bytes.
const MAX_BODY: usize = 8 << 10;
const NAME_LENGTH: usize = 64;

/// The body of `POST /login`.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Login {
    Password { name: String, password: String },
    Token { token: String },
}

pub(in crate::server) fn router(auth: Auth) -> Router {
    Router::new()
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/session", get(session))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(auth)
}

/// 204 with a session cookie.
async fn log_in(State(auth): State<Auth>, request: Request) -> Response {
    let source = Source::of(request.extensions());
    let audited = Audited::of(&request);
    let is_https = is_https(request.headers());
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(refused) => return refused.into_response(),
    };
    let Ok(login) = serde_json::from_slice::<Login>(&body) else {
        let message = "the body must be JSON with `name` and `password`, or with `token`";
        return respond(StatusCode::BAD_REQUEST, &json!({ "error": message }));
    };
    if auth.authenticator.is_off() {
        return StatusCode::NO_CONTENT.into_response();
    }
    // Before the password is checked, which takes time and memory.
    if let Some(source) = source
        && let Err(refused) = auth.logins.count(source)
    {
        let body = json!({ "error": refused.message() });
        return respond(StatusCode::TOO_MANY_REQUESTS, &body);
    }
    let session = match login {
        Login::Password { name, .. } if name.len() > NAME_LENGTH => Err(Refusal::Unknown),
        Login::Password { name, password } => auth.authenticator.log_in(&name, password).await,
        Login::Token { token } => auth.authenticator.log_in_with_token(token.trim()),
    };
    let identity = session.as_ref().ok().map(|started| started.name.clone());
    let response = match session {
        Ok(started) => with_cookie(&auth, &started.id, is_https, ""),
        Err(refusal) => {
            let refused = status::login_refused(refusal);
            let code = if refusal == Refusal::Busy {
                StatusCode::TOO_MANY_REQUESTS
            } else {
                StatusCode::UNAUTHORIZED
            };
            respond(code, &json!({ "error": refused.message() }))
        }
    };
    audit(&auth, audited, identity, response.status()).await;
    response
}

/// Ends the session, if there is one.
async fn log_out(
    State(auth): State<Auth>,
    Extension(identity): Extension<Identity>,
    request: Request,
) -> Response {
    let is_https = is_https(request.headers());
    let response = with_cookie(&auth, "", is_https, "; Max-Age=0");
    let audited = Audited::of(&request);
    let id = session_cookie(request.headers(), &auth.cookie).map(str::to_owned);
    drop(request);
    if let Some(id) = id.filter(|_| identity.is_authenticated()) {
        auth.authenticator.log_out(&id);
        let name = Some(identity.name().to_owned());
        audit(&auth, audited, name, response.status()).await;
    }
    response
}

async fn audit(auth: &Auth, audited: Audited, identity: Option<String>, status: StatusCode) {
    if let Some(log) = &auth.audit {
        let outcome = status.as_u16().to_string();
        record(log, audited, identity, outcome).await;
    }
}

/// The name and the roles of the client; 401 without a session.
async fn session(State(auth): State<Auth>, Extension(identity): Extension<Identity>) -> Response {
    if auth.authenticator.is_off() {
        return respond(StatusCode::OK, &json!({ "authentication": false }));
    }
    if !identity.is_authenticated() {
        let body = json!({ "error": status::unauthenticated(Refusal::Missing).message() });
        return respond(StatusCode::UNAUTHORIZED, &body);
    }
    let roles = Role::ALL
        .into_iter()
        .filter(|role| identity.has(*role))
        .map(Role::as_str);
    let body = json!({
        "authentication": true,
        "name": identity.name(),
        "roles": roles.collect::<Vec<_>>(),
    });
    respond(StatusCode::OK, &body)
}

fn respond(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_TYPE, "application/json"),
    ];
    (status, headers, body.to_string()).into_response()
}

/// The cookie is sent with requests of this site only, and scripts cannot read it.
fn with_cookie(auth: &Auth, id: &str, is_https: bool, attributes: &str) -> Response {
    let secure = if is_https || auth.cookie.starts_with("__Host-") {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{}={id}; Path=/; HttpOnly; SameSite=Strict{secure}{attributes}",
        auth.cookie
    );
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
