//! `datasets/{id}` in the place of a path, wherever a request has a DatasetSpec.

use std::path::Path;

use tonic::Status;

use crate::{
    names,
    proto::{
        v1::{self, DatasetKind, DatasetState},
        validation::Violation,
    },
    store::{self, Store},
};

use super::status;

/// Puts the path of the dataset that a spec names into it, and how the dataset is read unless the spec says it; a spec without a name stays as it is. `field` is where the spec stands in the request.
///
/// # Errors
/// What the store fails with. A name of nothing that can be used is a violation.
pub(super) async fn resolve_name(
    store: &Store,
    given: &mut v1::DatasetSpec,
    field: &str,
) -> Result<Option<Violation>, Status> {
    if given.name.is_empty() {
        return Ok(None);
    }
    let violation = |field: String, description: String| Ok(Some(Violation { field, description }));
    let name = || format!("{field}.name");
    let id = match names::dataset_id(&given.name) {
        Ok(id) => id,
        Err(error) => return violation(name(), error.to_string()),
    };
    let dataset = match store.dataset(id).await {
        Ok(found) => found.dataset,
        Err(error @ store::Error::NotFound { .. }) => return violation(name(), error.to_string()),
        Err(error) => return Err(status::from_store(error)),
    };
    match dataset.state() {
        DatasetState::Ready => {}
        DatasetState::Failed => {
            let description = format!("{} cannot be used: {}", dataset.name, dataset.failure);
            return violation(name(), description);
        }
        state @ (DatasetState::Unspecified | DatasetState::Unpacking | DatasetState::Scanning) => {
            let state = state.as_str_name().trim_start_matches("DATASET_STATE_");
            let description = format!("{} is {state}; wait until it is READY", dataset.name);
            return violation(name(), description);
        }
    }
    // A spec that was read before the data directory was moved has the path that an uploaded dataset had there.
    let has_moved = dataset.kind() == DatasetKind::Uploaded
        && Path::new(&given.path).file_name() == Path::new(&dataset.path).file_name();
    if !given.path.is_empty() && given.path != dataset.path && !has_moved {
        let description = format!(
            "{:?} is not where {} is; leave the path out, or the name",
            given.path, dataset.name
        );
        return violation(format!("{field}.path"), description);
    }
    given.path = dataset.path;
    if given.age_pattern.is_empty() {
        given.age_pattern = dataset.age_pattern;
    }
    if given.columns.is_none() {
        given.columns = dataset.columns;
    }
    Ok(None)
}
