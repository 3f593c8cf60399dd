use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use tower_http::cors::CorsLayer;

use super::{
    auth::{self, Auth},
    layers::{Allowed, CallLimits, Rates, TrustedProxies, call_limits, origin, proxies, rate},
};

/// The outer layers of both ports.
#[derive(Clone)]
pub(super) struct Guards {
    pub(super) proxies: TrustedProxies,
    pub(super) allowed: Allowed,
    pub(super) cors: CorsLayer,
    pub(super) auth: Auth,
    pub(super) limits: CallLimits,
    pub(super) rates: Rates,
}

impl Guards {
    /// Adds the layers to the handlers of a port.
    pub(super) fn protect(self, router: Router) -> Router {
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
