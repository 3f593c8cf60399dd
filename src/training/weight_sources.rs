//! Places where the initial weights of a training are looked for.

use std::path::PathBuf;

use crate::{
    model::{init::WeightSources, weights::HubOptions},
    proto::worker_v1::HubAccess,
};

/// Returns the places for a server's weights directories and access to the hub.
pub(super) fn weight_sources(weights_roots: &[String], hub: HubAccess) -> WeightSources {
    let mut directories: Vec<PathBuf> = weights_roots.iter().map(PathBuf::from).collect();
    directories.extend((!hub.torch_home.is_empty()).then(|| PathBuf::from(hub.torch_home)));
    let mut options = HubOptions::new(PathBuf::from(hub.cache_dir));
    options.endpoint = Some(hub.endpoint).filter(|endpoint| !endpoint.is_empty());
    options.token = Some(hub.token).filter(|token| !token.is_empty());
    options.offline = hub.offline;
    WeightSources {
        directories,
        hub: options,
        artifacts: None,
    }
}
