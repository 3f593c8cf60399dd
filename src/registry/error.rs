use crate::{artifacts, inference, model, names::LIVE, store, training::supervisor::PublishError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Inference(#[from] inference::Error),
    #[error("model {model} has no live version; train one, or point the alias {LIVE} to a version")]
    NoLiveVersion { model: String },
    #[error("{name} has no file {file}")]
    NoFile {
        /// The checkpoint or version.
        name: String,
        file: String,
    },
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Artifacts(error) => error.into(),
            Error::Model(_)
            | Error::Inference(_)
            | Error::NoLiveVersion { .. }
            | Error::NoFile { .. } => PublishError::Unusable(error.into()),
        }
    }
}
