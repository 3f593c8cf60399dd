//! The models that are loaded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::inference::{PrecisionReport, loaded::LoadedModel};

/// The precisions of the loaded models, by the SHA-256 of their weights, as other threads see them.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ResidentModels(Arc<Mutex<BTreeMap<String, PrecisionReport>>>);

impl ResidentModels {
    pub(super) fn contains(&self, sha256: &str) -> bool {
        self.lock().contains_key(sha256)
    }

    pub(super) fn precision_report(&self, sha256: &str) -> Option<PrecisionReport> {
        self.lock().get(sha256).copied()
    }

    fn add(&self, sha256: &str, report: PrecisionReport) {
        self.lock().insert(sha256.to_owned(), report);
    }

    fn remove(&self, sha256: &str) {
        self.lock().remove(sha256);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PrecisionReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loaded models themselves, in the order of their last use.
pub(super) struct ModelCache {
    max_loaded: usize,
    /// By the SHA-256 of the weights, the most recently used last.
    models: VecDeque<(String, Box<LoadedModel>)>,
    /// Never evicted.
    pinned: Option<String>,
    resident: ResidentModels,
}

impl ModelCache {
    pub(super) fn new(max_loaded: usize, resident: ResidentModels) -> Self {
        ModelCache {
            max_loaded: max_loaded.max(1),
            models: VecDeque::new(),
            pinned: None,
            resident,
        }
    }

    pub(super) fn pin(&mut self, sha256: &str) {
        self.pinned = Some(sha256.to_owned());
    }

    /// Returns the model with these weights as the most recently used one, if it is loaded.
    pub(super) fn touch(&mut self, sha256: &str) -> Option<&mut LoadedModel> {
        let found = self.models.iter().position(|(name, _)| name == sha256)?;
        let entry = self.models.remove(found)?;
        self.models.push_back(entry);
        self.models.back_mut().map(|(_, model)| &mut **model)
    }

    /// Adds a model as the most recently used one and returns those that it evicts.
    pub(super) fn install(&mut self, sha256: &str, model: Box<LoadedModel>) -> Vec<LoadedModel> {
        self.models.retain(|(name, _)| name != sha256);
        self.resident.add(sha256, model.report);
        self.models.push_back((sha256.to_owned(), model));
        self.evict()
    }

    /// Removes a model that is not needed any more, also if it is pinned.
    pub(super) fn remove(&mut self, sha256: &str) -> Option<Box<LoadedModel>> {
        self.pinned.take_if(|pinned| pinned == sha256);
        let found = self.models.iter().position(|(name, _)| name == sha256)?;
        self.resident.remove(sha256);
        self.models.remove(found).map(|(_, model)| model)
    }

    /// Evicts the least recently used models, but neither the pinned one nor the latest.
    fn evict(&mut self) -> Vec<LoadedModel> {
        let mut evicted = Vec::new();
        while self.models.len() > self.max_loaded {
            let pinned = self.pinned.as_ref();
            let candidates = self.models.iter().take(self.models.len() - 1);
            let oldest = candidates
                .enumerate()
                .find(|(_, (sha256, _))| Some(sha256) != pinned)
                .map(|(index, _)| index);
            let Some((sha256, model)) = oldest.and_then(|index| self.models.remove(index)) else {
                break;
            };
            self.resident.remove(&sha256);
            evicted.push(*model);
        }
        evicted
    }
}
