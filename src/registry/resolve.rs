use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::TryStreamExt as _;
use tokio::sync::watch;

use super::{error::Error, live::LiveStatus};
use crate::{
    artifacts::Artifacts,
    inference::{Predictor, ServedModel},
    model::{
        checkpoint::{MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE, parse_manifest},
        starter,
        training_images::{TRAINING_IMAGES_FILE, TrainingImages},
    },
    names::{DEFAULT_MODEL, LIVE, VersionName},
    proto::v1,
    store::{self, Store},
};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) predictor: Predictor,
    cache: Mutex<Cache>,
    pub(super) live: watch::Sender<LiveStatus>,
}

#[derive(Clone)]
pub(super) struct OpenVersion {
    pub(super) number: u64,
    pub(super) model: Arc<ServedModel>,
}

#[derive(Default)]
struct Cache {
    /// The state of the aliases that `names` belongs to.
    aliases: u64,
    /// Clients can only choose among existing names, so versions and aliases bound the map.
    names: HashMap<VersionName, OpenVersion>,
    /// Versions by their names. A version never changes, so these entries stay valid until it is
    /// deleted.
    versions: HashMap<String, Arc<ServedModel>>,
    /// Deletions of versions. What was read before one is not entered after it.
    deletions: u64,
}

impl Registry {
    pub(crate) fn new(store: Store, artifacts: Artifacts, predictor: Predictor) -> Self {
        Registry {
            inner: Arc::new(Inner {
                store,
                artifacts,
                predictor,
                cache: Mutex::default(),
                live: watch::Sender::new(LiveStatus::Unknown),
            }),
        }
    }

    /// Resolves a name to a version that inference can load.
    ///
    /// # Errors
    /// `NoLiveVersion` or an unknown name; missing or damaged files.
    pub(crate) async fn resolve(&self, name: &VersionName) -> Result<Arc<ServedModel>, Error> {
        Ok(self.resolve_number(name).await?.model)
    }

    pub(super) async fn resolve_number(&self, name: &VersionName) -> Result<OpenVersion, Error> {
        // Read before the version, so that an alias that moves in between drops the entry too early
        // instead of too late.
        let aliases = *self.inner.store.subscribe_aliases().borrow();
        let deletions = {
            let mut cache = self.cache();
            if cache.aliases != aliases {
                cache.aliases = aliases;
                cache.names.clear();
            }
            if let Some(open) = cache.names.get(name) {
                return Ok(open.clone());
            }
            cache.deletions
        };
        let version = self.live_version(name).await?;
        let open = OpenVersion {
            number: version.version,
            model: self.open_version(&version).await?,
        };
        let mut cache = self.cache();
        if cache.aliases == aliases && cache.deletions == deletions {
            cache.names.insert(name.clone(), open.clone());
        }
        Ok(open)
    }

    /// As [`Registry::resolve`], with the record of the version.
    pub(crate) async fn resolve_with_record(
        &self,
        name: &VersionName,
    ) -> Result<(v1::ModelVersion, Arc<ServedModel>), Error> {
        let version = self.live_version(name).await?;
        let model = self.open_version(&version).await?;
        Ok((version, model))
    }

    /// Reads the record of a version by number or alias.
    ///
    /// # Errors
    /// An unknown name.
    pub(crate) async fn version(&self, name: &VersionName) -> Result<v1::ModelVersion, Error> {
        Ok(self.inner.store.version(&name.model, &name.version).await?)
    }

    /// As [`Registry::version`], with `NoLiveVersion` for a missing alias `live`.
    async fn live_version(&self, name: &VersionName) -> Result<v1::ModelVersion, Error> {
        match self.version(name).await {
            Err(Error::Store(store::Error::NotFound { .. })) if name.is_alias(LIVE) => {
                Err(Error::NoLiveVersion {
                    model: name.model.clone(),
                })
            }
            other => other,
        }
    }

    /// Opens a version, or returns the one that is already open.
    pub(super) async fn open_version(
        &self,
        version: &v1::ModelVersion,
    ) -> Result<Arc<ServedModel>, Error> {
        let deletions = {
            let cache = self.cache();
            if let Some(model) = cache.versions.get(&version.name) {
                return Ok(Arc::clone(model));
            }
            cache.deletions
        };
        let model = self.open(&version.name, &version.files).await?;
        let mut cache = self.cache();
        if cache.deletions != deletions {
            return Ok(model);
        }
        let model = cache.versions.entry(version.name.clone()).or_insert(model);
        Ok(Arc::clone(model))
    }

    /// Opens the files of a checkpoint or version.
    pub(super) async fn open(
        &self,
        name: &str,
        files: &[v1::CheckpointFile],
    ) -> Result<Arc<ServedModel>, Error> {
        let weights = find_file(name, files, MODEL_FILE)?;
        let manifest = &find_file(name, files, MANIFEST_FILE)?.sha256;
        let bytes = self
            .inner
            .artifacts
            .read(manifest, MAX_MANIFEST_BYTES)
            .await?;
        let manifest = parse_manifest(&bytes, std::path::Path::new(manifest))?;
        let path = self.inner.artifacts.local_file(&weights.sha256).await?;
        Ok(Arc::new(ServedModel::new(
            name.to_owned(),
            path,
            weights.sha256.clone(),
            manifest,
        )))
    }

    /// Reads the record of the images that a version was trained on; `None` if they are unknown.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub(crate) async fn training_images(
        &self,
        version: &v1::ModelVersion,
    ) -> Result<Option<TrainingImages>, Error> {
        const CHUNK_BYTES: usize = 1 << 20;
        let named = |name: &str| version.files.iter().find(|file| file.name == name);
        let Some(record) = named(TRAINING_IMAGES_FILE) else {
            // Older programs registered the starter without its record.
            let is_starter = named(MODEL_FILE).is_some_and(|file| file.sha256 == starter::sha256());
            return Ok(is_starter.then(starter::training_images).transpose()?);
        };
        let artifacts = &self.inner.artifacts;
        let mut chunks = artifacts.stream(&record.sha256, CHUNK_BYTES).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let path = Path::new(TRAINING_IMAGES_FILE);
        Ok(Some(TrainingImages::parse(&bytes, path)?))
    }

    /// Forgets a deleted version. Returns it if it is open: requests that were resolved before hold
    /// it until they end.
    pub(super) fn forget(&self, version: &str) -> Option<Arc<ServedModel>> {
        let mut cache = self.cache();
        cache.deletions += 1;
        cache.names.clear();
        cache.versions.remove(version)
    }

    pub(super) fn live_name() -> VersionName {
        VersionName::alias(DEFAULT_MODEL, LIVE)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.inner
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn find_file<'a>(
    name: &str,
    files: &'a [v1::CheckpointFile],
    wanted: &str,
) -> Result<&'a v1::CheckpointFile, Error> {
    files
        .iter()
        .find(|file| file.name == wanted)
        .ok_or_else(|| Error::NoFile {
            name: name.to_owned(),
            file: wanted.to_owned(),
        })
}
