//! Changes of the spec of a live training: by a client, or of the batch after a lack of memory.

use crate::proto::{
    v1,
    validation::{Check, Violation},
};

use super::{Spec, limits};

/// Changes by UpdateTraining; unset fields keep their values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) max_epochs: Option<u32>,
    pub(crate) patience: Option<u32>,
    pub(crate) learning_rate: Option<f64>,
}

impl Changes {
    /// Checks the values of a request.
    ///
    /// # Errors
    /// All violations at once. A request without a change is one.
    pub(crate) fn resolve(request: &v1::UpdateTrainingRequest) -> Result<Self, Vec<Violation>> {
        let mut check = Check::default();
        let changes = Changes {
            max_epochs: request.max_epochs,
            patience: request.patience,
            learning_rate: request.learning_rate,
        };
        if changes == Changes::default() {
            check.refuse("max_epochs", "must be set, or patience or learning_rate");
        }
        limits::max_epochs(&mut check, "max_epochs", request.max_epochs);
        limits::patience(&mut check, "patience", request.patience);
        limits::learning_rate(&mut check, "learning_rate", request.learning_rate);
        check.finish(changes)
    }
}

/// Changes a resolved spec and returns the fields that changed.
pub(crate) fn change(spec: &mut v1::TrainingSpec, changes: Changes) -> Vec<v1::FieldChange> {
    let mut changed = Vec::new();
    set(
        &mut changed,
        "max_epochs",
        &mut spec.max_epochs,
        changes.max_epochs,
    );
    let early_stopping = spec.early_stopping.get_or_insert_default();
    set(
        &mut changed,
        "early_stopping.patience",
        &mut early_stopping.patience,
        changes.patience,
    );
    let optimizer = spec.optimizer.get_or_insert_default();
    set(
        &mut changed,
        "optimizer.learning_rate",
        &mut optimizer.learning_rate,
        changes.learning_rate,
    );
    changed
}

/// Halves the batch of a resolved spec; `None` if it cannot be smaller.
pub(crate) fn halve_batch(spec: &mut v1::TrainingSpec) -> Option<v1::FieldChange> {
    let halved = spec.batch_size? / 2;
    let mut smaller = spec.clone();
    smaller.batch_size = Some(halved);
    // Refuses an empty batch, or a single value for a BatchNorm.
    Spec::resolve(Some(&smaller)).ok()?;
    let mut changed = Vec::new();
    set(
        &mut changed,
        "batch_size",
        &mut spec.batch_size,
        Some(halved),
    );
    changed.pop()
}

fn set<T: Copy + PartialEq + serde::Serialize>(
    changed: &mut Vec<v1::FieldChange>,
    field: &str,
    value: &mut Option<T>,
    new: Option<T>,
) {
    if new.is_none() || new == *value {
        return;
    }
    let to_json = |value: Option<T>| serde_json::json!(value).to_string();
    changed.push(v1::FieldChange {
        field: field.to_owned(),
        before: to_json(*value),
        after: to_json(new),
    });
    *value = new;
}
