//! The role that each method and page requires; `admin` for those without an entry.

use http::Method;

use crate::{access::Role, dashboard};
use Role::{Admin, Deployer, Metrics, Predictor, Trainer, Viewer};

/// The clients that may call a method or page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody, without a credential.
    Everyone,
    /// Every client with a valid credential.
    Authenticated,
    /// Clients with one of these roles.
    AnyOf(&'static [Role]),
}

/// The rule of a method or page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) who: Who,
    /// Changes the state of the server, so the audit log records it.
    pub(super) is_change: bool,
}

const OPEN: Rule = Rule {
    who: Who::Everyone,
    is_change: false,
};

const DENIED: Rule = change(&[Admin]);

const fn read(roles: &'static [Role]) -> Rule {
    Rule {
        who: Who::AnyOf(roles),
        is_change: false,
    }
}

const fn change(roles: &'static [Role]) -> Rule {
    Rule {
        who: Who::AnyOf(roles),
        is_change: true,
    }
}

/// Metadata of models.
const MODELS: &[Role] = &[Viewer, Predictor];

/// gRPC methods by service.
#[rustfmt::skip]
const METHODS: &[(&str, &[(&str, Rule)])] = &[
    ("visage.v1.TrainingService", &[
        // The services require `deployer` for promotion, `admin` for paths, and the owner of a
        // training, or `admin`, for changes of it.
        ("StartTraining", change(&[Trainer])),
        ("GetTraining", read(&[Viewer])),
        ("ListTrainings", read(&[Viewer])),
        ("StopTraining", change(&[Trainer])),
        ("CancelTraining", change(&[Trainer])),
        ("PauseTraining", change(&[Trainer])),
        ("ResumeTraining", change(&[Trainer])),
        ("UpdateTraining", change(&[Trainer])),
        ("DeleteTraining", change(&[Admin])),
        ("StreamEpochMetrics", read(&[Viewer])),
        ("ListEpochMetrics", read(&[Viewer])),
        ("ListCheckpoints", read(&[Viewer])),
        ("DownloadCheckpoint", read(&[Trainer])),
    ]),
    ("visage.v1.ModelService", &[
        ("ListModelVersions", read(MODELS)),
        ("GetModelVersion", read(MODELS)),
        ("DownloadModelFile", read(&[Trainer])),
        ("RegisterVersion", change(&[Trainer])),
        ("DeleteModelVersion", change(&[Admin])),
        ("SetAlias", change(&[Deployer])),
        ("DeleteAlias", change(&[Deployer])),
        ("ListAliasEvents", read(&[Viewer])),
        ("GetEvaluation", read(&[Viewer])),
        ("EvaluateModelVersion", read(&[Trainer])),
    ]),
    ("visage.v1.DatasetService", &[
        ("RegisterDataset", change(&[Admin])),
        ("CreateDataset", change(&[Trainer])),
        ("GetDataset", read(&[Viewer])),
        ("ListDatasets", read(&[Viewer])),
        ("DeleteDataset", change(&[Admin])),
        ("ListUploads", read(&[Trainer])),
        ("DeleteUpload", change(&[Trainer])),
        ("CheckDataset", read(&[Trainer])),
    ]),
    ("visage.v1.PredictionService", &[
        ("Predict", read(&[Predictor])),
        ("PredictBatch", read(&[Predictor])),
    ]),
    ("visage.v1.SystemService", &[
        ("GetServerInfo", read(MODELS)),
        ("GetLogLevel", read(&[Viewer])),
        ("SetLogLevel", change(&[Admin])),
    ]),
    ("inference.GRPCInferenceService", &[
        ("ServerLive", OPEN),
        ("ServerReady", OPEN),
        ("ModelReady", read(MODELS)),
        ("ServerMetadata", read(MODELS)),
        ("ModelMetadata", read(MODELS)),
        ("ModelInfer", read(&[Predictor])),
        ("ModelStreamInfer", read(&[Predictor])),
        ("ModelConfig", read(MODELS)),
        ("ModelStatistics", read(MODELS)),
        ("RepositoryIndex", read(MODELS)),
        ("RepositoryModelLoad", change(&[Deployer])),
        ("RepositoryModelUnload", change(&[Deployer])),
    ]),
    ("grpc.health.v1.Health", &[
        ("Check", OPEN),
        ("Watch", read(&[Metrics, Viewer, Predictor])),
        ("List", read(&[Metrics, Viewer, Predictor])),
    ]),
    ("grpc.reflection.v1.ServerReflection", &[("ServerReflectionInfo", read(MODELS))]),
    ("grpc.reflection.v1alpha.ServerReflection", &[("ServerReflectionInfo", read(MODELS))]),
];

/// Pages of the HTTP port: methods (empty for all), path and rule. `*` is one segment. The first
/// match counts.
#[rustfmt::skip]
const PAGES: &[(&[Method], &str, Rule)] = &[
    (&[], "/livez", OPEN),
    // Details require the role `metrics`.
    (&[], "/readyz", OPEN),
    (&[], "/login", OPEN),
    (&[], "/logout", OPEN),
    (&[], "/session", OPEN),
    (&[], "/v2/health/live", OPEN),
    (&[], "/v2/health/ready", OPEN),
    (&[], "/endpoints", Rule { who: Who::Authenticated, is_change: false }),
    (&[Method::GET, Method::HEAD], "/metrics", read(&[Metrics])),
    (&[], "/predict", read(&[Predictor])),
    (&[], "/v2", read(MODELS)),
    (&[], "/v2/", read(MODELS)),
    (&[], "/v2/models/stats", read(MODELS)),
    (&[], "/v2/models/*", read(MODELS)),
    (&[], "/v2/models/*/ready", read(MODELS)),
    (&[], "/v2/models/*/config", read(MODELS)),
    (&[], "/v2/models/*/stats", read(MODELS)),
    (&[], "/v2/models/*/infer", read(&[Predictor])),
    (&[], "/v2/models/*/versions/*", read(MODELS)),
    (&[], "/v2/models/*/versions/*/ready", read(MODELS)),
    (&[], "/v2/models/*/versions/*/config", read(MODELS)),
    (&[], "/v2/models/*/versions/*/stats", read(MODELS)),
    (&[], "/v2/models/*/versions/*/infer", read(&[Predictor])),
    (&[], "/v2/repository/index", read(MODELS)),
    (&[], "/v2/repository/models/*/load", change(&[Deployer])),
    (&[], "/v2/repository/models/*/unload", change(&[Deployer])),
    (&[Method::POST], "/datasets/uploads", change(&[Trainer])),
    // An upload exists for the identity that created it and for administrators only.
    (&[Method::HEAD, Method::PATCH], "/datasets/uploads/*", read(&[Trainer])),
    (&[Method::DELETE], "/datasets/uploads/*", change(&[Trainer])),
    (&[Method::GET, Method::HEAD], "/datasets/*/samples/*", read(&[Viewer])),
];

/// The rule of a request.
pub(super) fn rule(method: &Method, path: &str) -> Rule {
    if let Some(rule) = rpc(path) {
        return rule;
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if is_read && dashboard::has_page(path) {
        return OPEN;
    }
    PAGES
        .iter()
        .find(|(methods, pattern, _)| {
            (methods.is_empty() || methods.contains(method)) && matches(pattern, path)
        })
        .map_or(DENIED, |(_, _, rule)| *rule)
}

fn rpc(path: &str) -> Option<Rule> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = METHODS.iter().find(|(name, _)| *name == service)?;
    let found = methods.iter().find(|(name, _)| *name == method);
    Some(found.map_or(DENIED, |(_, rule)| *rule))
}

/// Compares segment by segment.
fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let is_prefix = pattern.split('/').all(|expected| match segments.next() {
        Some(segment) => expected == segment || (expected == "*" && !segment.is_empty()),
        None => false,
    });
    is_prefix && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::info::method_names;

    #[test]
    fn every_method_of_the_api_has_a_rule() {
        for name in method_names() {
            let (service, method) = name.split_once('/').unwrap();
            let found = METHODS
                .iter()
                .find(|(known, _)| *known == service)
                .and_then(|(_, methods)| methods.iter().find(|(known, _)| *known == method));
            assert!(found.is_some(), "{name} has no rule");
        }
    }

    #[test]
    fn pages_have_rules_and_unknown_ones_are_denied() {
        let get = |path: &str| rule(&Method::GET, path);
        assert_eq!(get("/livez"), OPEN);
        assert_eq!(get("/metrics"), read(&[Metrics]));
        assert_eq!(get("/v2/models/age/infer"), read(&[Predictor]));
        assert_eq!(get("/v2/models/age/versions/3/infer"), read(&[Predictor]));
        assert_eq!(get("/v2/models/age"), read(MODELS));
        assert_eq!(get("/datasets/faces/samples/0"), read(&[Viewer]));
        assert_eq!(
            rule(&Method::DELETE, "/datasets/uploads/x"),
            change(&[Trainer])
        );
        for unknown in [
            "/secret",
            "/v2/models",
            "/v2/models//infer",
            "/v2/models/a/b/infer",
            "/visage.v1.TrainingService/Unknown",
            "/visage.v1.TrainingService/",
            "/livez/",
            "//livez",
            "/datasets/uploads/x/y",
            "",
        ] {
            assert_eq!(get(unknown), DENIED, "{unknown}");
        }
        assert_eq!(rule(&Method::POST, "/metrics"), DENIED);
    }
}
