//! Predictions on many files, such as those of a dataset, alongside client requests.
//!
//! They hold no more permits than the background share, which keeps the decoding threads and the
//! engine busy on an otherwise idle server and adds little to the queue of a busy one. Dropping the
//! future stops the work.

use std::{path::PathBuf, sync::Arc};

use futures_util::{StreamExt, stream};

use super::{Error, Predictor, ServedModel};

/// The age in years, or the reason why the file cannot be read.
pub(crate) type FilePrediction = Result<f64, String>;

/// Predicts all files, in order, and reports the number of finished files after each.
///
/// # Errors
/// A model that does not compute. A file that cannot be read has a [`FilePrediction`] of its own.
pub(crate) async fn predict_files(
    predictor: &Predictor,
    model: &Arc<ServedModel>,
    files: Vec<PathBuf>,
    on_progress: impl Fn(usize),
) -> Result<Vec<FilePrediction>, Error> {
    let mut predictions = Vec::with_capacity(files.len());
    let predict = |(index, path): (usize, PathBuf)| {
        let (predictor, model) = (predictor.clone(), Arc::clone(model));
        async move { predictor.predict_file(model, index, &path).await }
    };
    let mut results = stream::iter(files.into_iter().enumerate())
        .map(predict)
        .buffered(predictor.background_capacity());
    while let Some(result) = results.next().await {
        predictions.push(match result {
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
        on_progress(predictions.len());
    }
    Ok(predictions)
}
