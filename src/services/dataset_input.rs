//! The dataset of a request: resolves its name and path, checks its fields, and reads it.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{status, task::read_files};
use crate::{
    dataset::{self, Dataset, DatasetSpec, Phase, Roots},
    names,
    proto::{
        v1::{self, DatasetKind, DatasetState},
        validation::Check,
    },
    store::{self, Store},
};

/// Resolves and checks the field `dataset` of a request.
///
/// # Errors
/// INVALID_ARGUMENT with all violations, including those already in `check`.
pub(super) async fn resolve(
    mut given: v1::DatasetSpec,
    store: &Store,
    roots: &Roots,
    mut check: Check,
) -> Result<DatasetSpec, Status> {
    const PREFIX: &str = "dataset.";
    if !resolve_name(store, &mut given, PREFIX, &mut check).await? {
        // The path is unknown, which would be reported as a further violation.
        let violations = check.finish(()).err().unwrap_or_default();
        return Err(status::violations(&violations));
    }
    if !given.path.is_empty() {
        match roots.resolve_async(&given.path).await {
            Ok(path) => given.path = path.to_string_lossy().into_owned(),
            Err(error) => check.refuse("dataset.path", error.to_string()),
        }
    }
    let spec = DatasetSpec::read(Some(&given), PREFIX, &mut check);
    check
        .finish(spec)
        .map_err(|violations| status::violations(&violations))
}

/// Fills in the path of a named dataset, and how the dataset is read unless the request sets it. A
/// spec without a name is left unchanged. `prefix` precedes the field names in violations.
///
/// Returns false and adds a violation for a name that cannot be used.
pub(super) async fn resolve_name(
    store: &Store,
    given: &mut v1::DatasetSpec,
    prefix: &str,
    check: &mut Check,
) -> Result<bool, Status> {
    if given.name.is_empty() {
        return Ok(true);
    }
    let mut refuse = |field: &str, description: String| {
        check.refuse(&format!("{prefix}{field}"), description);
        Ok(false)
    };
    let id = match names::dataset_id(&given.name) {
        Ok(id) => id,
        Err(error) => return refuse("name", error.to_string()),
    };
    let dataset = match store.dataset(id).await {
        Ok(found) => found.dataset,
        Err(error @ store::Error::NotFound { .. }) => return refuse("name", error.to_string()),
        Err(error) => return Err(error.into()),
    };
    match dataset.state() {
        DatasetState::Ready => {}
        DatasetState::Failed => {
            let description = format!("{} cannot be used: {}", dataset.name, dataset.failure);
            return refuse("name", description);
        }
        state @ (DatasetState::Unspecified | DatasetState::Unpacking | DatasetState::Scanning) => {
            let state = state.as_str_name().trim_start_matches("DATASET_STATE_");
            let description = format!("{} is {state}; wait until it is READY", dataset.name);
            return refuse("name", description);
        }
    }
    // Specs that were resolved before the data directory moved have the old path of an upload.
    let has_moved = dataset.kind() == DatasetKind::Uploaded
        && Path::new(&given.path).file_name() == Path::new(&dataset.path).file_name();
    if !given.path.is_empty() && given.path != dataset.path && !has_moved {
        let description = format!(
            "must be the path of {} or empty, got {:?}",
            dataset.name, given.path
        );
        return refuse("path", description);
    }
    given.path = dataset.path;
    if given.age_pattern.is_empty() {
        given.age_pattern = dataset.age_pattern;
    }
    if given.columns.is_none() {
        given.columns = dataset.columns;
    }
    Ok(true)
}

/// Scans a dataset at low priority; dropping the future cancels the scan. `progress` is called as
/// by [`dataset::load`]. `prefix` precedes the field names in violations.
///
/// # Errors
/// INVALID_ARGUMENT for a dataset that cannot be used.
pub(super) async fn scan(
    path: &str,
    roots: &Roots,
    options: dataset::Options,
    prefix: &str,
    mut progress: impl FnMut(Phase, usize, usize) + Send + 'static,
) -> Result<Dataset, Status> {
    let (path, roots) = (PathBuf::from(path), roots.clone());
    let options = dataset::Options {
        background: true,
        ..options
    };
    let cancelled = CancellationToken::new();
    let _cancel_on_drop = cancelled.clone().drop_guard();
    let scan = move || {
        dataset::load(&path, &roots, &options, &mut progress, &|| {
            cancelled.is_cancelled()
        })
    };
    let dataset = read_files(scan).await?;
    dataset.map_err(|error| status::invalid_dataset(&error, prefix))
}
