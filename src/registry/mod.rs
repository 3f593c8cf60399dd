//! Model versions: how a checkpoint becomes one, which one an alias means, and what Predict needs to serve it.
//!
//! The registry joins training and inference, which know nothing of each other. A version is loaded and warmed before an alias points to it, so
//! that weights which do not load never become live.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{self, Artifacts},
    inference::{self, Predictor, ServedModel},
    model::{
        self,
        checkpoint::{MANIFEST_FILE, MODEL_FILE, read_manifest},
        starter,
    },
    names::{CheckpointRef, DEFAULT_MODEL, LIVE, VersionName, id_of},
    proto::{self, v1},
    store::{self, Promotion, Publish, Store},
    telemetry::metrics,
    training::supervisor::{PublishError, Publisher},
};

/// Until the next attempt with a live version that did not load, or a database that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// Why an alias points to the starter.
const STARTER: &str = "starter";

/// Failures of the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The stored files.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// The manifest.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The weights do not load.
    #[error(transparent)]
    Inference(#[from] inference::Error),
    /// Predict has nothing to serve.
    #[error("model {model} has no live version; train one, or point the alias {LIVE} to a version")]
    NoLiveVersion {
        /// The model's id.
        model: String,
    },
    /// The checkpoint lacks a file.
    #[error("{name} has no file {file}")]
    NoFile {
        /// The checkpoint or version.
        name: String,
        /// The file.
        file: String,
    },
}

/// How the live version does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveStatus {
    /// Nobody has looked yet.
    Unknown,
    /// There is none.
    Missing,
    /// It answers, at the latest when it is loaded, for which calls wait.
    Served,
    /// It does not load, and why.
    Failed(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    artifacts: Artifacts,
    predictor: Predictor,
    resolved: Mutex<Resolved>,
    /// The live version that the metrics show.
    reported_live: Mutex<Option<u64>>,
    live: watch::Sender<LiveStatus>,
}

/// What names meant at a state of the aliases.
#[derive(Default)]
struct Resolved {
    aliases: u64,
    models: HashMap<VersionName, Arc<ServedModel>>,
}

impl Registry {
    /// Joins the store, the files and the predictor.
    pub fn new(store: Store, artifacts: Artifacts, predictor: Predictor) -> Self {
        Registry {
            inner: Arc::new(Inner {
                store,
                artifacts,
                predictor,
                resolved: Mutex::default(),
                reported_live: Mutex::default(),
                live: watch::Sender::new(LiveStatus::Unknown),
            }),
        }
    }

    /// What Predict needs to serve a version, which may be named by an alias.
    ///
    /// # Errors
    /// `NoLiveVersion` or a name that does not exist; files that are missing or damaged.
    pub async fn resolve(&self, name: &VersionName) -> Result<Arc<ServedModel>, Error> {
        // Read before the version: when the alias moves in between, the entry is thrown away too early instead of too late.
        let aliases = *self.inner.store.subscribe_aliases().borrow();
        {
            let mut resolved = self.cache();
            if resolved.aliases != aliases {
                *resolved = Resolved {
                    aliases,
                    models: HashMap::new(),
                };
            }
            if let Some(model) = resolved.models.get(name) {
                return Ok(Arc::clone(model));
            }
        }
        let version = match self.version(name).await {
            Err(Error::Store(store::Error::NotFound { .. })) if name.is_alias(LIVE) => {
                return Err(Error::NoLiveVersion {
                    model: name.model.clone(),
                });
            }
            other => other?,
        };
        let model = Arc::new(self.open(&version.name, &version.files).await?);
        let mut resolved = self.cache();
        if resolved.aliases == aliases {
            // Clients choose among existing names only, so the map is bounded by versions and aliases.
            resolved.models.insert(name.clone(), Arc::clone(&model));
        }
        Ok(model)
    }

    /// One version, by number or alias.
    ///
    /// # Errors
    /// A name that does not exist.
    pub async fn version(&self, name: &VersionName) -> Result<v1::ModelVersion, Error> {
        Ok(self.inner.store.version(&name.model, &name.version).await?)
    }

    /// Makes a version of a checkpoint.
    ///
    /// # Errors
    /// A checkpoint that does not exist or does not load.
    pub async fn register(
        &self,
        model: &str,
        training: &str,
        which: CheckpointRef,
    ) -> Result<v1::ModelVersion, Error> {
        // Until the version is recorded nobody may take its files for unused.
        let _gc_block = self.inner.artifacts.block_gc().await;
        let checkpoint = self.inner.store.checkpoint(training, which).await?;
        let training = self.inner.store.training(training).await?;
        self.warm_up(&checkpoint.name, &checkpoint.files).await?;
        let version = self.describe(&training, &checkpoint).await?;
        Ok(self.inner.store.register_version(model, version).await?)
    }

    /// Makes the starter version 1 of the default model, and the live one, when that model has no version; else everything stays as it is.
    ///
    /// # Errors
    /// A full disk, or a starter that does not load.
    pub async fn register_starter(&self) -> Result<(), Error> {
        if self.inner.store.has_versions(DEFAULT_MODEL).await? {
            tracing::info!(
                model = DEFAULT_MODEL,
                "the model has versions already, so the starter is not registered"
            );
            return Ok(());
        }
        // Until the version is recorded nobody may take its files for unused.
        let _gc_block = self.inner.artifacts.block_gc().await;
        let mut files = Vec::new();
        for (name, bytes) in starter::files() {
            let stored = self.inner.artifacts.put_bytes(Bytes::from_static(bytes));
            let stored = stored.await?;
            files.push(v1::CheckpointFile {
                name: name.to_owned(),
                size_bytes: stored.size,
                sha256: stored.sha256,
            });
        }
        self.warm_up("the starter", &files).await?;
        let version = describe_starter(files);
        let registered = self
            .inner
            .store
            .register_first(DEFAULT_MODEL, version, STARTER);
        if let Some(version) = registered.await? {
            tracing::info!(
                version = version.name,
                sha256 = starter::sha256(),
                "registered the starter, which is live"
            );
        }
        Ok(())
    }

    async fn publication(
        &self,
        training: &v1::Training,
        promotion: Promotion,
    ) -> Result<Publish, Error> {
        let id = id_of(&training.name);
        let checkpoint = self.inner.store.checkpoint(id, CheckpointRef::Best).await?;
        self.warm_up(&checkpoint.name, &checkpoint.files).await?;
        Ok(Publish {
            model: DEFAULT_MODEL.to_owned(),
            version: self.describe(training, &checkpoint).await?,
            promote: promotion,
        })
    }

    /// Points an alias to a version, which is loaded and warmed first when the alias is `live`.
    ///
    /// # Errors
    /// A version that does not exist or does not load; an alias that points elsewhere than `expected`.
    pub async fn set_alias(
        &self,
        target: &VersionName,
        alias: &str,
        expected: Option<u64>,
    ) -> Result<v1::ModelVersion, Error> {
        let version = self.version(target).await?;
        if alias == LIVE {
            self.warm_up(&version.name, &version.files).await?;
        }
        Ok(self
            .inner
            .store
            .set_alias(&target.model, alias, version.version, expected)
            .await?)
    }

    /// Keeps the live version loaded and the metrics up to date until the token is cancelled.
    pub async fn follow_aliases(&self, shutdown: CancellationToken) {
        tokio::join!(
            self.keep_live_loaded(&shutdown),
            self.count_versions(&shutdown)
        );
    }

    async fn keep_live_loaded(&self, shutdown: &CancellationToken) {
        let mut moved = self.inner.store.subscribe_aliases();
        loop {
            moved.mark_unchanged();
            let done = self.refresh().await;
            if let Err(error) = &done {
                tracing::error!(%error, "failed to load the live version");
                // A database that fails says nothing about the version.
                if !matches!(error, Error::Store(_)) {
                    self.set_live_status(LiveStatus::Failed(error.to_string()));
                }
            }
            tokio::select! {
                changed = moved.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY_PAUSE), if done.is_err() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn refresh(&self) -> Result<(), Error> {
        let live = VersionName::alias(DEFAULT_MODEL, LIVE);
        match self.resolve(&live).await {
            Ok(model) => {
                if !matches!(*self.inner.live.borrow(), LiveStatus::Failed(_)) {
                    self.set_live_status(LiveStatus::Served);
                }
                self.inner.predictor.load_pinned(Arc::clone(&model)).await?;
                self.set_live_status(LiveStatus::Served);
                let number = model
                    .name
                    .rsplit('/')
                    .next()
                    .and_then(|number| number.parse().ok());
                self.report_live(number);
                Ok(())
            }
            Err(Error::NoLiveVersion { .. }) => {
                self.set_live_status(LiveStatus::Missing);
                self.report_live(None);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// How the live version does, while [`Registry::follow_aliases`] runs.
    pub fn subscribe_live(&self) -> watch::Receiver<LiveStatus> {
        self.inner.live.subscribe()
    }

    fn set_live_status(&self, new: LiveStatus) {
        self.inner.live.send_if_modified(|live| {
            let is_new = *live != new;
            *live = new;
            is_new
        });
    }

    fn report_live(&self, number: Option<u64>) {
        let mut reported = self
            .inner
            .reported_live
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        metrics::live_model_changed(DEFAULT_MODEL, *reported, number);
        *reported = number;
    }

    async fn count_versions(&self, shutdown: &CancellationToken) {
        let mut count = self.inner.store.subscribe_versions();
        loop {
            metrics::model_versions(*count.borrow_and_update());
            tokio::select! {
                changed = count.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Loads the weights once to prove that they can be served.
    async fn warm_up(&self, name: &str, files: &[v1::CheckpointFile]) -> Result<(), Error> {
        let model = self.open(name, files).await?;
        Ok(self.inner.predictor.load(Arc::new(model)).await?)
    }

    async fn open(&self, name: &str, files: &[v1::CheckpointFile]) -> Result<ServedModel, Error> {
        let weights = find_file(name, files, MODEL_FILE)?;
        let manifest = &find_file(name, files, MANIFEST_FILE)?.sha256;
        let manifest = read_manifest(&self.inner.artifacts.local_file(manifest).await?)?;
        let path = self.inner.artifacts.local_file(&weights.sha256).await?;
        Ok(ServedModel::new(
            name.to_owned(),
            path,
            weights.sha256.clone(),
            manifest,
        ))
    }

    async fn describe(
        &self,
        training: &v1::Training,
        checkpoint: &v1::Checkpoint,
    ) -> Result<v1::ModelVersion, Error> {
        let metrics = match &training.best {
            Some(best) if best.epoch == checkpoint.epoch => Some(*best),
            _ => {
                let id = training.name.trim_start_matches("trainings/");
                self.inner.store.epoch_metrics(id, checkpoint.epoch).await?
            }
        };
        let dataset = training.dataset.clone().unwrap_or_default();
        let is_best = training
            .best
            .as_ref()
            .is_some_and(|best| best.epoch == checkpoint.epoch);
        Ok(v1::ModelVersion {
            checkpoint: checkpoint.name.clone(),
            spec: training.resolved_spec.clone(),
            metrics,
            // The test images were only ever used on the best checkpoint.
            test: training.test.clone().filter(|_| is_best),
            dataset_digest: dataset.digest,
            val_digest: dataset.val_digest,
            input_size: training
                .resolved_spec
                .as_ref()
                .and_then(|spec| spec.input_size)
                .unwrap_or_default(),
            files: checkpoint.files.clone(),
            origin: v1::VersionOrigin::Training.into(),
            ..Default::default()
        })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Resolved> {
        self.inner
            .resolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The starter as its manifest describes it.
fn describe_starter(files: Vec<v1::CheckpointFile>) -> v1::ModelVersion {
    const READ: &str = "a test reads the manifest that is built in";
    let manifest = starter::manifest();
    let test = manifest.test.as_ref();
    v1::ModelVersion {
        spec: Some(proto::from_json(&manifest.spec).expect(READ)),
        metrics: Some(proto::from_json(&manifest.metrics).expect(READ)),
        test: test.map(|test| proto::from_json(test).expect(READ)),
        dataset_digest: manifest.dataset.digest.clone(),
        val_digest: manifest.dataset.val_digest.clone(),
        input_size: manifest.input.size,
        files,
        origin: v1::VersionOrigin::Starter.into(),
        ..Default::default()
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

impl Publisher for Registry {
    fn prepare<'a>(
        &'a self,
        training: &'a v1::Training,
        promotion: Promotion,
    ) -> BoxFuture<'a, Result<Publish, PublishError>> {
        Box::pin(async move { Ok(self.publication(training, promotion).await?) })
    }
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
