//! The HTTP port: Prometheus, health checks, the dashboard and further pages.
//!
//! | Path | Response |
//! |---|---|
//! | `/metrics` | all metrics as Prometheus text |
//! | `/livez` | 200 while the process responds; on failure, restart it |
//! | `/readyz` | 200 or 503, and the components as JSON; on failure, send no requests |
//! | `/login`, `/logout`, `/session` | sessions of browsers |
//! | `/endpoints` | these paths |
//! | `/` | the dashboard, or these paths without one |
//!
//! The caller adds further pages: predictions at `/predict` and under `/v2`, uploads under
//! `/datasets`, and the API for the dashboard, which can start and stop trainings. Module
//! `auth` has the role that each page requires.

mod login;
mod pages;
mod readiness;
mod serve;
#[cfg(test)]
mod tests;

pub(super) use self::{
    pages::{State, router},
    readiness::{Component, Readiness, ReadinessProbe},
    serve::serve,
};
