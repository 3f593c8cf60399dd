//! What may change while a training is live: what a client asks for, and the batch when memory is short.

use crate::proto::{
    v1,
    validation::{Check, Violation},
};

/// The fields that UpdateTraining may change.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Changes {
    /// Passes over the training images.
    pub max_epochs: Option<u32>,
    /// Validations without improvement before stopping.
    pub patience: Option<u32>,
    /// Step size.
    pub learning_rate: Option<f64>,
}

impl Changes {
    /// Checks the request's values.
    ///
    /// # Errors
    /// All violations at once, and a request that changes nothing.
    pub fn resolve(request: &v1::UpdateTrainingRequest) -> Result<Self, Vec<Violation>> {
        let mut check = Check::default();
        let changes = Changes {
            max_epochs: request.max_epochs,
            patience: request.patience,
            learning_rate: request.learning_rate,
        };
        if changes == Changes::default() {
            check.refuse(
                "max_epochs",
                "nothing is to be changed; set max_epochs, patience or learning_rate",
            );
        }
        check.max_epochs("max_epochs", request.max_epochs);
        check.patience("patience", request.patience);
        check.learning_rate("learning_rate", request.learning_rate);
        check.finish(changes)
    }
}

/// Changes a resolved spec; says what changed, which may be nothing.
pub fn change(spec: &mut v1::TrainingSpec, changes: Changes) -> Vec<v1::FieldChange> {
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

/// Halves the batch of a resolved spec; says what changed, or `None` when it cannot be smaller.
pub fn halve_batch(spec: &mut v1::TrainingSpec) -> Option<v1::FieldChange> {
    let halved = spec.batch_size? / 2;
    let mut smaller = spec.clone();
    smaller.batch_size = Some(halved);
    // A batch of 0, or of a single value for a BatchNorm, is refused there.
    super::Spec::resolve(Some(&smaller)).ok()?;
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
    place: &mut Option<T>,
    wanted: Option<T>,
) {
    if wanted.is_none() || wanted == *place {
        return;
    }
    let in_json = |value: Option<T>| serde_json::json!(value).to_string();
    changed.push(v1::FieldChange {
        field: field.to_owned(),
        before: in_json(*place),
        after: in_json(wanted),
    });
    *place = wanted;
}
