use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use tower_http::cors::CorsLayer;

use super::{
    call_limits::{self, CallLimits},
    origin::{self, Allowed},
    proxies::{self, TrustedProxies},
    rate::{self, Rates},
};
use crate::server::auth::{self, Auth};

/// The outer layers of both ports.
#[derive(Clone)]
pub(crate) struct Guards {
    pub(crate) proxies: TrustedProxies,
    pub(crate) allowed: Allowed,
    pub(crate) cors: CorsLayer,
    pub(crate) auth: Auth,
    pub(crate) limits: CallLimits,
    pub(crate) rates: Rates,
}

impl Guards {
    /// Adds the layers to the handlers of a port.
    pub(crate) fn protect(self, router: Router) -> Router {
        let Guards {
            proxies,
            allowed,
            cors,
            auth,
            limits,
            rates,
        } = self;
        router
            .layer(from_fn(move |request: Request, next: Next| {
                rate::limit(rates.clone(), request, next)
            }))
            .layer(from_fn(move |request: Request, next: Next| {
                call_limits::limit(limits.clone(), request, next)
            }))
            .layer(from_fn(move |request: Request, next: Next| {
                auth::check(auth.clone(), request, next)
            }))
            .layer(cors)
            .layer(from_fn(move |request: Request, next: Next| {
                origin::check(allowed.clone(), request, next)
            }))
            .layer(from_fn(move |request: Request, next: Next| {
                proxies::identify(proxies.clone(), request, next)
            }))
    }
}
