//! Messages to the engine's thread.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::inference::{Error, ServedModel, loaded::LoadedModel, queue::QueueEntry};

#[derive(Debug)]
pub(super) enum Command {
    Predict(Box<QueueEntry>),
    Install(InstallModel),
    Evict(EvictModel),
}

/// A model that is not needed any more.
#[derive(Debug)]
pub(super) struct EvictModel {
    /// SHA-256 of the weights.
    pub(super) sha256: String,
    /// Receives the model, if it was loaded, because freeing one takes milliseconds.
    pub(super) evicted: oneshot::Sender<Option<Box<LoadedModel>>>,
}

/// A loaded model for the engine.
#[derive(Debug)]
pub(super) struct InstallModel {
    pub(super) model: Arc<ServedModel>,
    /// `None` if the engine has it already.
    pub(super) network: Option<Box<LoadedModel>>,
    /// Keep it loaded until another one is pinned.
    pub(super) pin: bool,
    /// Receives the result once the engine has the model.
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
    /// Signals the installation and returns the evicted models. The loader drops them, because
    /// freeing one takes milliseconds, for which predictions need not wait.
    pub(super) installed: oneshot::Sender<Vec<LoadedModel>>,
}
