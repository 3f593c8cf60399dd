use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{describe::describe_starter, error::Error, resolve::Registry};
use crate::{
    model::starter,
    names::{CheckpointRef, DEFAULT_MODEL, LIVE, VersionName, id_of},
    proto::v1,
    store::{Page, Promotion, Publish},
    training::supervisor::{PublishError, Publisher},
};

/// The cause of the alias move to the starter.
const STARTER: &str = "starter";

impl Registry {
    /// Registers a checkpoint as a version.
    ///
    /// # Errors
    /// A checkpoint that does not exist or does not load.
    pub(crate) async fn register(
        &self,
        model: &str,
        training: &str,
        which: CheckpointRef,
    ) -> Result<v1::ModelVersion, Error> {
        // Keeps the files until the version is recorded.
        let _gc_block = self.inner.artifacts.block_gc().await;
        let checkpoint = self.inner.store.checkpoint(training, which).await?;
        let training = self.inner.store.training(training).await?;
        self.warm_up(&checkpoint.name, &checkpoint.files).await?;
        let version = self.describe(&training, &checkpoint).await?;
        Ok(self.inner.store.register_version(model, version).await?)
    }

    /// Registers the starter as the first, live version of the default model, unless that model
    /// has versions.
    ///
    /// # Errors
    /// A full disk, or a starter that does not load.
    pub(crate) async fn register_starter(&self) -> Result<(), Error> {
        let model = DEFAULT_MODEL;
        if self.inner.store.has_versions(model).await? {
            tracing::info!(
                model,
                "the starter is not registered because the model has versions"
            );
            return Ok(());
        }
        // Keeps the files until the version is recorded.
        let _gc_block = self.inner.artifacts.block_gc().await;
        let version = self.prepare_starter().await?;
        let registered = self.inner.store.register_first(model, version, STARTER);
        if let Some(version) = registered.await? {
            tracing::info!(
                version = version.name,
                sha256 = starter::sha256(),
                "the starter is registered and live"
            );
        }
        Ok(())
    }

    /// Registers the starter as a version of a model, or returns the version that it is already.
    /// It becomes live if nothing is.
    ///
    /// # Errors
    /// A full disk, or a starter that does not load.
    pub(crate) async fn add_starter(&self, model: &str) -> Result<v1::ModelVersion, Error> {
        // Keeps the files until the version is recorded.
        let _gc_block = self.inner.artifacts.block_gc().await;
        let version = self.prepare_starter().await?;
        let registered = self.inner.store.register_starter(model, version, STARTER);
        Ok(registered.await?)
    }

    /// Stores and loads the files of the starter, and describes its version. The caller blocks
    /// garbage collection.
    async fn prepare_starter(&self) -> Result<v1::ModelVersion, Error> {
        let mut files = Vec::new();
        for (name, bytes) in starter::files() {
            let bytes = Bytes::from_static(bytes);
            let stored = self.inner.artifacts.put_bytes(bytes).await?;
            files.push(v1::CheckpointFile {
                name: name.to_owned(),
                size_bytes: stored.size,
                sha256: stored.sha256,
            });
        }
        self.warm_up("the starter", &files).await?;
        Ok(describe_starter(files))
    }

    /// Points an alias to a version; also returns the number of the version that it pointed to
    /// before, 0 for none. If the alias is `live`, the version is loaded and warmed up
    /// first; [`Registry::follow_aliases`] then pins it.
    ///
    /// # Errors
    /// A version that does not exist or does not load; an alias that does not point to `expected`.
    pub(crate) async fn set_alias(
        &self,
        target: &VersionName,
        alias: &str,
        expected: Option<u64>,
    ) -> Result<(v1::ModelVersion, u64), Error> {
        let version = self.version(target).await?;
        if alias == LIVE {
            // Not the open version of the cache: its files may be missing or damaged by now.
            let model = self.open(&version.name, &version.files).await?;
            self.inner.predictor.load(model).await?;
        }
        let (model, number) = (&target.model, version.version);
        let store = &self.inner.store;
        Ok(store.set_alias(model, alias, number, expected).await?)
    }

    /// # Errors
    /// An alias that does not exist.
    pub(crate) async fn delete_alias(&self, model: &str, alias: &str) -> Result<(), Error> {
        Ok(self.inner.store.delete_alias(model, alias).await?)
    }

    /// Lists alias moves, the newest first.
    pub(crate) async fn alias_events(
        &self,
        model: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<v1::AliasEvent>, Error> {
        Ok(self.inner.store.alias_events(model, before, limit).await?)
    }

    /// Lists versions, the newest first.
    pub(crate) async fn versions(
        &self,
        model: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<v1::ModelVersion>, Error> {
        Ok(self.inner.store.list_versions(model, before, limit).await?)
    }

    /// Lists names and numbers of the versions of one model or of all.
    pub(crate) async fn version_numbers(
        &self,
        model: Option<&str>,
    ) -> Result<Vec<(String, u64)>, Error> {
        Ok(self.inner.store.version_numbers(model).await?)
    }

    async fn prepare_version(
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
            comparison: None,
        })
    }

    /// Loads the weights once to prove that they can be served.
    async fn warm_up(&self, name: &str, files: &[v1::CheckpointFile]) -> Result<(), Error> {
        let model = self.open(name, files).await?;
        Ok(self.inner.predictor.load(model).await?)
    }
}

impl Publisher for Registry {
    fn prepare<'a>(
        &'a self,
        training: &'a v1::Training,
        promotion: Promotion,
    ) -> BoxFuture<'a, Result<Publish, PublishError>> {
        Box::pin(async move { Ok(self.prepare_version(training, promotion).await?) })
    }
}
