//! The paths as labels of metrics, without versions.

pub(super) const SERVER: &str = "/v2";
pub(super) const LIVE: &str = "/v2/health/live";
pub(super) const READY: &str = "/v2/health/ready";
pub(super) const MODEL: &str = "/v2/models/{model}";
pub(super) const MODEL_READY: &str = "/v2/models/{model}/ready";
pub(super) const CONFIG: &str = "/v2/models/{model}/config";
pub(super) const STATS: &str = "/v2/models/{model}/stats";
pub(super) const INFER: &str = "/v2/models/{model}/infer";
pub(super) const ALL_STATS: &str = "/v2/models/stats";
pub(super) const INDEX: &str = "/v2/repository/index";
pub(super) const LOAD: &str = "/v2/repository/models/{model}/load";
pub(super) const UNLOAD: &str = "/v2/repository/models/{model}/unload";
pub(super) const OTHER: &str = "other";
pub(super) const ALL: [&str; 13] = [
    SERVER,
    LIVE,
    READY,
    MODEL,
    MODEL_READY,
    CONFIG,
    STATS,
    INFER,
    ALL_STATS,
    INDEX,
    LOAD,
    UNLOAD,
    OTHER,
];
