//! Ages on many files, such as those of a dataset, in the server that predicts for its clients at the same time.
//!
//! It holds no more than the background's share of the permits, so that it keeps the decoding threads and the engine busy when nobody else does, and adds
//! little to the queue when somebody does. Dropping the future ends it: what has begun is dropped before it is computed.

use std::{path::PathBuf, sync::Arc};

use futures_util::{StreamExt, stream};

use super::{Error, ServedModel, predictor::Predictor};

/// The age on a file in years, or why the file has none.
pub type FilePrediction = Result<f64, String>;

/// Predicts all files, in order. `told` hears how many are done, after each.
///
/// # Errors
/// A model that does not compute. A file that cannot be read is a verdict of its own.
pub async fn predict_files(
    predictor: &Predictor,
    model: &Arc<ServedModel>,
    files: Vec<PathBuf>,
    told: impl Fn(usize),
) -> Result<Vec<FilePrediction>, Error> {
    let mut verdicts = Vec::with_capacity(files.len());
    let one = |(index, path): (usize, PathBuf)| {
        let (predictor, model) = (predictor.clone(), Arc::clone(model));
        async move { predictor.predict_file(model, index, &path).await }
    };
    let mut answers = stream::iter(files.into_iter().enumerate())
        .map(one)
        .buffered(predictor.background_places());
    while let Some(answer) = answers.next().await {
        verdicts.push(match answer {
            Ok(age) => Ok(age),
            Err(Error::Image { source, .. }) => Err(source.to_string()),
            Err(Error::File { source, .. }) => Err(source.to_string()),
            Err(
                error @ (Error::Pixels { .. }
                | Error::QueueFull { .. }
                | Error::ShareFull { .. }
                | Error::WaitTooLong { .. }
                | Error::DeadlineExceeded
                | Error::Model { .. }
                | Error::NotFinite { .. }
                | Error::EngineGone),
            ) => return Err(error),
        });
        told(verdicts.len());
    }
    Ok(verdicts)
}
