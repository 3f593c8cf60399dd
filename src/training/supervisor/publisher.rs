//! Publication of a successful training as a model version.

use futures_util::future::BoxFuture;

use crate::{
    artifacts,
    proto::v1,
    store::{self, Promotion, Publish},
};

/// Prepares the best checkpoint of a training for publication; implemented by the registry, which
/// the supervisor must not depend on.
pub(crate) trait Publisher: Send + Sync {
    /// Loads the checkpoint once to prove that it can be served, and describes its version.
    fn prepare<'a>(
        &'a self,
        training: &'a v1::Training,
        promotion: Promotion,
    ) -> BoxFuture<'a, Result<Publish, PublishError>>;
}

/// Failures of a [`Publisher`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// The checkpoint does not load.
    #[error(transparent)]
    Unusable(Box<dyn std::error::Error + Send + Sync>),
}
