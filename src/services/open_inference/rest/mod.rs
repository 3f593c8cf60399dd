//! The paths under `/v2` on the HTTP port.
//!
//! | Path | Response |
//! |---|---|
//! | `/v2` | name, version and extensions of the server |
//! | `/v2/health/live`, `/v2/health/ready` | 200, or 503 |
//! | `/v2/models/{model}[/versions/{version}]` | metadata |
//! | `…/ready` | 200, or 404 |
//! | `…/config`, `…/stats` | Triton's configuration and statistics |
//! | POST `…/infer` | a prediction |
//! | `/v2/models/stats` | statistics of all versions that were used |
//! | POST `/v2/repository/index` | all versions |
//! | POST `/v2/repository/models/{model}/load`, `…/unload` | as the methods over gRPC |
//!
//! Errors are `{"error": "...", "reason": "..."}` with the HTTP status of their code.

mod body;
mod content_type;
mod handlers;
mod route;
mod router;
mod state;

pub(crate) use self::router::router;
